"""Principal components: every form against the exact primal one, and what each takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffsift.extraction import Standardiser
from diffsift.extraction import _components as components


def decaying(samples: int, channels: int, power: float, seed: int = 0) -> Tensor:
    """Features with standard deviations i^-power along directions of random mixtures."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(samples, channels)
    sources = torch.randn(samples, rank, generator=generator) * torch.arange(1, rank + 1) ** -power
    return sources @ torch.randn(rank, channels, generator=generator) + torch.arange(channels) % 7


def exact(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Standardised features and their components, from C x C in float64."""
    known = features.to(torch.float64)
    standardised = (known - known.mean(0)) / known.std(0, correction=0)
    return standardised, torch.linalg.eigh(standardised.T @ standardised)[1][:, -count:].flip(1)


def projection_of(found: Standardiser) -> Tensor:
    assert found.projection is not None
    return found.projection.to(torch.float64)


@pytest.mark.parametrize(
    ("samples", "channels", "form"),
    [(150, 90, "primal"), (90, 100, "primal"), (90, 150, "dual"), (250, 240, "Krylov"), (240, 400, "Krylov")],
)
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_every_form_finds_the_exact_components(
    samples: int, channels: int, form: str, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "EXACT", 100)
    assert components.form_of(samples, channels, 8) == form
    features = decaying(samples, channels, power)
    standardised, expected = exact(features, 8)
    found = projection_of(Standardiser.fit(features, max_channels=8))
    assert torch.allclose(found.T @ found, torch.eye(8, dtype=torch.float64), atol=1e-6)
    assert float((standardised @ found).square().sum() / (standardised @ expected).square().sum()) > 1 - 1e-6
    assert float(torch.linalg.svdvals(found.T @ expected).min()) > 1 - 1e-4  # the same subspace
    assert bool((found.gather(0, found.abs().argmax(0, keepdim=True)) > 0).all())
    variances = (standardised @ found).var(0)
    assert bool((variances.diff() <= 1e-6 * variances[0]).all())


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_stated_variance_is_explained_at_full_size(power: float) -> None:
    """With the default of 256 components, whose Krylov space does not hold most directions as a smaller one's would."""
    features = decaying(1300, 1500, power)
    assert components.form_of(1300, 1500, 256) == "Krylov"
    standardised, expected = exact(features, 256)
    found = projection_of(Standardiser.fit(features, max_channels=256))
    share = float((standardised @ found).square().sum() / (standardised @ expected).square().sum())
    assert 0.999 < share < 1 + 1e-6


def test_components_are_equal_each_time_and_leave_torch_s_generator_alone() -> None:
    features = decaying(1300, 1400, 1.0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = projection_of(Standardiser.fit(features, max_channels=16))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(projection_of(Standardiser.fit(features, max_channels=16)), first)
    order = torch.randperm(len(features))
    again = projection_of(Standardiser.fit(features[order], max_channels=16))
    assert torch.allclose(again, first, atol=1e-3)


@pytest.mark.parametrize("shape", [(1300, 1400), (50, 1400)])
def test_directions_without_variance_are_orthonormal_too(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(shape[0], 3, generator=generator) @ torch.randn(3, shape[1], generator=generator)
    found = projection_of(Standardiser.fit(features, max_channels=20))
    assert torch.allclose(found.T @ found, torch.eye(20, dtype=torch.float64), atol=1e-6)
    standardised, _ = exact(features, 3)
    assert torch.allclose((standardised @ found[:, :3]).square().sum(), standardised.square().sum(), rtol=1e-6)


def test_there_are_no_more_components_than_samples_where_channels_are_many() -> None:
    assert Standardiser.fit(decaying(30, 1400, 1.0), max_channels=256).channels == 30
    assert Standardiser.fit(decaying(30, 400, 1.0), max_channels=256).channels == 256


@pytest.mark.parametrize("shape", [(300, 200), (100, 1400), (1300, 1400)])
def test_features_are_overwritten_only_where_that_is_allowed(shape: tuple[int, int]) -> None:
    features = decaying(*shape, 1.0)
    kept = features.clone()
    found = Standardiser.fit(features, max_channels=16)
    assert torch.equal(features, kept)
    spent = Standardiser.fit(features, max_channels=16, overwrite=True)
    assert torch.equal(projection_of(spent), projection_of(found))
    assert torch.equal(features, kept) is (components.form_of(*shape, 16) != "Krylov")


def test_parts_in_float64_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((300, 200), (100, 1400)):
        features = decaying(*shape, 1.0)
        whole = Standardiser.fit(features, max_channels=16)
        monkeypatch.setattr(components, "_AT_ONCE", 1000)
        parts = Standardiser.fit(features, max_channels=16)
        monkeypatch.undo()
        assert torch.allclose(parts.mean, whole.mean, rtol=1e-6)
        assert torch.allclose(parts.scale, whole.scale, rtol=1e-6)
        assert torch.allclose(projection_of(parts), projection_of(whole), atol=1e-6)


@pytest.mark.parametrize("shape", [(4000, 900), (600, 3000), (2000, 4000), (4000, 100)])
def test_the_memory_of_a_fit_is_what_is_said(shape: tuple[int, int]) -> None:
    """Counted by torch's allocator: no float64 copy of all features, and no C x C matrix of many channels."""
    features = torch.rand(shape)
    said = Standardiser.fit_memory(*shape, 256)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        Standardiser.fit(features, max_channels=256, overwrite=True)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
            peak = max(peak, held)
    assert 0.4 * said < peak <= 1.05 * said
