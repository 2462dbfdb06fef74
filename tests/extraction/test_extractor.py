"""The packaged extractor: exactly the selection's features, from exactly the selection's model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from support import tiny
from torch import Tensor, nn

from diffsift import FeatureExtractor
from diffsift.backbones import ModelSpecification, PipelineBackbone, load
from diffsift.errors import SelectionError
from diffsift.extraction import Standardiser, save_selection
from diffsift.spaces import Candidate, Selection

EARLY = Candidate("main", "up-level0-repeat0-vit-block0-cross-q", 50)  # 4 x 4 places
LATE = Candidate("main", "up-level1-repeat0-vit-block0-self-k", 300)  # 8 x 8 places
SELECTION = Selection.of({EARLY: 1.0, LATE: 0.5})


def statistics() -> dict[Candidate, Standardiser]:
    generator = torch.Generator().manual_seed(0)
    return {
        EARLY: Standardiser.fit(torch.randn(200, 16, generator=generator), max_channels=6),
        LATE: Standardiser.fit(torch.randn(200, 8, generator=generator), max_channels=64),
    }


@pytest.fixture
def saved(tiny_pipeline: Path, tiny_backbone: PipelineBackbone, tmp_path: Path) -> Path:
    """A selection file whose model lies beside it."""
    shutil.copytree(tiny_pipeline, tmp_path / "model")
    save_selection(
        tmp_path / "selection.json",
        SELECTION,
        {"main": ModelSpecification(id=str(tmp_path / "model"))},
        statistics(),
        identities={"main": tiny_backbone.identity()},
        about={"study": "tiny"},
    )
    return tmp_path / "selection.json"


@pytest.fixture
def extractor(tiny_backbone: PipelineBackbone) -> FeatureExtractor:
    return FeatureExtractor(SELECTION, [tiny_backbone], statistics(), noise_seed=0)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 20, 17, generator=torch.Generator().manual_seed(0))


def test_a_saved_selection_gives_the_same_features(saved: Path, extractor: FeatureExtractor, images: Tensor) -> None:
    loaded = FeatureExtractor.from_selection(saved, device="cpu")
    assert loaded.selection == SELECTION
    assert isinstance(loaded, nn.Module)
    assert loaded.channels == 6 + 8
    features = loaded(images)
    assert tuple(features.shape) == (5, 14, 8, 8)
    assert not features.requires_grad
    assert torch.allclose(features, extractor(images), atol=1e-5)


def test_attention_maps_of_a_selection_are_extracted(tiny_pipeline: Path, images: Tensor) -> None:
    attention = Candidate("main", "mid-vit-block0-self-map", 50)
    backbone = load(ModelSpecification(id=str(tiny_pipeline), device="cpu"))
    raw = {attention: Standardiser.fit(torch.randn(200, 16), max_channels=64)}
    assert FeatureExtractor(Selection.of([attention]), [backbone], raw, noise_seed=0)(images).shape == (5, 16, 4, 4)


def test_an_image_has_the_same_features_in_any_batch(extractor: FeatureExtractor, images: Tensor) -> None:
    together = extractor(images)
    assert torch.allclose(torch.cat([extractor(image[None]) for image in images]), together, atol=1e-5)
    assert torch.allclose(extractor(images.flip(0)).flip(0), together, atol=1e-5)


def test_features_at_grid_centers_are_the_map(extractor: FeatureExtractor, images: Tensor) -> None:
    y, x = torch.meshgrid((torch.arange(8) + 0.5) / 8, (torch.arange(8) + 0.5) / 8, indexing="ij")
    points = torch.stack([x, y], dim=-1).reshape(1, 64, 2).expand(5, -1, -1)
    expected = extractor(images).flatten(2).transpose(1, 2)
    assert torch.allclose(extractor.features_at(images, points), expected, atol=1e-4)


def test_the_backbone_runs_once_a_timestep_and_no_deeper_than_needed(
    extractor: FeatureExtractor, images: Tensor
) -> None:
    ran: list[str] = []
    paths = ("conv_in", "up_blocks.0.upsamplers.0", "up_blocks.1.attentions.0", "up_blocks.1.resnets.1", "conv_out")
    handles = [
        extractor.denoisers[0].get_submodule(path).register_forward_hook(lambda *_, path=path: ran.append(path))
        for path in paths
    ]
    extractor(images)
    for handle in handles:
        handle.remove()
    # The attention of the last level is entered but not left.
    assert ran == ["conv_in", "conv_in", "up_blocks.0.upsamplers.0"]


def test_a_moved_model_is_named(saved: Path, images: Tensor) -> None:
    expected = FeatureExtractor.from_selection(saved, device="cpu")(images)
    (saved.parent / "model").rename(saved.parent / "moved")
    found = FeatureExtractor.from_selection(saved, model=str(saved.parent / "moved"), device="cpu")
    assert torch.equal(found(images), expected)


def test_another_model_is_refused(saved: Path, tmp_path: Path, images: Tensor) -> None:
    other = tiny.pipeline()
    other.unet.conv_in.weight.data += 0.1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(SelectionError, match="was made with another model: denoiser must be the same, but differ"):
        FeatureExtractor.from_selection(saved, model=str(tmp_path / "other"), device="cpu")
    forced = FeatureExtractor.from_selection(saved, model=str(tmp_path / "other"), device="cpu", verify=False)
    assert forced(images).isfinite().all()


def test_changed_or_missing_tensors_are_refused(saved: Path) -> None:
    tensors = saved.with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(SelectionError, match=r"selection\.safetensors does not belong to"):
        FeatureExtractor.from_selection(saved, device="cpu")
    tensors.unlink()
    with pytest.raises(SelectionError, match=r"needs selection\.safetensors beside it"):
        FeatureExtractor.from_selection(saved, device="cpu")


def test_a_changed_document_is_refused_unless_its_checksum_is_taken_out(saved: Path) -> None:
    document = json.loads(saved.read_text())
    document["members"][0]["weight"] = 0.25
    saved.write_text(json.dumps(document))
    with pytest.raises(SelectionError, match=r"was changed: its checksum differs.*remove the field 'checksum'"):
        FeatureExtractor.from_selection(saved, device="cpu")
    del document["checksum"]  # as files of older versions have none
    saved.write_text(json.dumps(document))
    FeatureExtractor.from_selection(saved, device="cpu")


def test_a_document_that_is_no_selection_is_refused(saved: Path) -> None:
    document = json.loads(saved.read_text())
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "has no format"),
        (json.dumps({**document, "format": 99}), "must be of format 1, but is of format 99"),
        (json.dumps({key: value for key, value in document.items() if key != "members"}), "has no members"),
        (json.dumps({**document, "members": [{}]}), "each member must have"),
        (json.dumps({**document, "models": {"main": {}}}), r"models\.main\.id is not right: Field required"),
    ):
        saved.write_text(content)
        with pytest.raises(SelectionError, match=message):
            FeatureExtractor.from_selection(saved, device="cpu")
    with pytest.raises(SelectionError, match=r"nowhere\.json cannot be read"):
        FeatureExtractor.from_selection(saved.with_name("nowhere.json"))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.full((1, 3, 8, 8), 255.0), r"in \[0, 1\], but got .* divide 8-bit images by 255"),
        (torch.full((1, 3, 8, 8), -0.5), r"in \[0, 1\]"),
        (torch.zeros((1, 3, 8, 8), dtype=torch.uint8), "must be floating point"),
        (torch.zeros((3, 8, 8)), r"must be \(batch, 3, height, width\), but got \(3, 8, 8\)"),
        (torch.zeros((1, 4, 8, 8)), r"but got \(1, 4, 8, 8\)"),
    ],
)
def test_images_are_checked(extractor: FeatureExtractor, wrong: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor(wrong)


def test_candidates_of_another_backbone_are_refused(tiny_backbone: PipelineBackbone) -> None:
    with pytest.raises(SelectionError, match=r"must be of the backbones \['random'\], but got \['main'\]"):
        FeatureExtractor(SELECTION, [tiny_backbone.untrained()], statistics(), noise_seed=0)


def test_it_is_a_module_with_the_denoiser_in_it(extractor: FeatureExtractor) -> None:
    assert sum(1 for _ in extractor.parameters()) == sum(1 for _ in extractor.denoisers.parameters()) > 0
    assert any(name.startswith("denoisers.0.") for name in extractor.state_dict())


def test_a_misspelt_device_is_named(saved: Path) -> None:
    with pytest.raises(SelectionError, match=r"device must be auto, cpu, .* but got 'gpu'; did you mean 'cuda'"):
        FeatureExtractor.from_selection(saved, device="gpu")
