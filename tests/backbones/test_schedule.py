"""The noise is the pipeline's own: checked against every scheduler class that diffusers exports."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import diffusers
import pytest
import torch
from support import tiny
from support.tiny_pipelines import backbone_of
from torch import Tensor

from diffsift.backbones._schedule import Schedule
from diffsift.errors import ModelError

UNDERIVED = {
    "AmusedScheduler": {"mask_token_id": 9},
    "VQDiffusionScheduler": {"num_vec_classes": 9},
    "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "tan", "tsr_k": 1.0, "tsr_sigma": 1.0},
}
"""Arguments of the classes that cannot be made without any."""

NOT_FOR_IMAGES = {
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "LTXEulerAncestralRFScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "RFD4ProteinaScheduler",
    "SCMScheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "VQDiffusionScheduler",
}
"""Classes that noise tokens or proteins, or have no noise levels by training timesteps."""


def scheduler_classes() -> list[str]:
    """All that are exported and can be used here: some need packages that are not installed."""
    found = []
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        if inspect.isclass(kind) and "dummy" not in kind.__module__:
            found.append(name)
    return found


SET_TO_STEPS = {
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
}
"""Classes whose `add_noise` needs `set_timesteps` first: before, their sigmas lie in the opposite order."""

NOT_RUN_BY_STABLE_DIFFUSION = {
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "UnCLIPScheduler",
}


def made(name: str, **config: Any) -> Any:
    diffusers.utils.logging.set_verbosity_error()
    return getattr(diffusers, name)(**{**UNDERIVED.get(name, {}), **config})


def given_to_the_denoiser(scheduler: Any, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the scheduler's own methods make of images at one of its own timesteps."""
    at = timestep.expand(len(clean))
    if type(scheduler).__name__ == "HeliosDMDScheduler":  # of videos
        videos = (clean[:, :, None], noise[:, :, None])
        return scheduler.add_noise(*videos, at, scheduler.sigmas, scheduler.timesteps)[:, :, 0]
    if type(scheduler).__name__ == "FlowMatchHeunDiscreteScheduler":
        return scheduler.scale_noise(clean, timestep, noise)
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(clean, at, noise)
    return scheduler.scale_model_input(scheduler.add_noise(clean, noise, at), timestep)


def value_of(scheduler: Any, timestep: int) -> Tensor:
    """The scheduler's own timestep of a level: the nearest, or where they are not counted, that of the same rank."""
    if getattr(scheduler, "timesteps", None) is None:
        return torch.tensor(timestep)
    nearest: Tensor = scheduler.timesteps[(scheduler.timesteps - timestep).abs().argmin()]
    counted = abs(float(nearest) - timestep) < 1.0 and scheduler.config.get("timestep_type") != "continuous"
    if counted and not type(scheduler).__name__.startswith(("EDM", "CM")):
        return nearest.long() if hasattr(scheduler, "alphas_cumprod") else nearest
    ranked: Tensor = scheduler.timesteps[-1 - timestep]
    return ranked


@pytest.fixture
def clean_and_noise() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 3, 3, generator=generator), torch.randn(2, 4, 3, 3, generator=generator)


VARIATIONS: list[tuple[str, dict[str, Any]]] = [
    ("CogVideoXDDIMScheduler", {"snr_shift_scale": 4.0, "rescale_betas_zero_snr": True}),
    ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True}),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
    ("HeunDiscreteScheduler", {"beta_schedule": "exp"}),
    ("KDPM2DiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
    ("HeunDiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
    ("LCMScheduler", {"beta_start": 0.001, "beta_schedule": "linear"}),
    ("EDMEulerScheduler", {"sigma_max": 50.0, "sigma_data": 1.0}),
    ("CMStochasticIterativeScheduler", {"num_train_timesteps": 20}),
    ("DDPMScheduler", {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3}),
    ("UniPCMultistepScheduler", {"rescale_betas_zero_snr": True}),
]


@pytest.mark.parametrize(
    ("name", "config"),
    [*((name, {}) for name in scheduler_classes()), *VARIATIONS],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value) or "defaults",
)
def test_the_noised_input_is_what_the_pipelines_scheduler_gives_its_denoiser(
    name: str, config: dict[str, Any], clean_and_noise: tuple[Tensor, Tensor]
) -> None:
    if name in NOT_FOR_IMAGES:
        with pytest.raises(ModelError, match=f"the scheduler of my-model must .*but {name} has none"):
            Schedule(made(name, **config), "my-model")
        return
    schedule = Schedule(made(name, **config), "my-model")
    if not hasattr(made(name), "add_noise") and not hasattr(made(name), "scale_noise"):
        return  # samplers alone (DDIM inversion, Helios); their levels are those of training
    # RePaint's says itself that DDPM's adds its noise.
    own = made("DDPMScheduler" if name == "RePaintScheduler" else name, **config)
    if name in SET_TO_STEPS:
        own.set_timesteps(40)
    for timestep in (1, schedule.train_timesteps // 3, schedule.train_timesteps - 1):
        if name in SET_TO_STEPS:
            timestep = int(own.timesteps[timestep * len(own.timesteps) // schedule.train_timesteps])
        value = value_of(own, timestep)
        theirs = given_to_the_denoiser(copy.deepcopy(own), *clean_and_noise, value)
        # Flow matching has a continuous level at any timestep: theirs may lie beside a whole number.
        beside = abs(float(value) - timestep) / schedule.train_timesteps if schedule.flow else 0.0
        torch.testing.assert_close(
            schedule.add_noise(*clean_and_noise, timestep), theirs, atol=2e-6 + 8 * beside, rtol=2e-6
        )
        assert beside < 1e-3


def test_a_level_of_a_preconditioned_scheduler_is_passed_as_its_own_timestep() -> None:
    schedule = Schedule(made("EDMEulerScheduler"), "my-model")
    passed = schedule.timestep_form(1.0955, 1.0955, "my-model")
    sigmas = made("EDMEulerScheduler").sigmas
    for timestep in (0, 400, 999):
        assert passed(timestep) == pytest.approx(0.25 * float(sigmas[-2 - timestep].log()))
    assert passed(0) < passed(400) < passed(999)


@pytest.mark.parametrize("name", [name for name in scheduler_classes() if name not in NOT_FOR_IMAGES])
def test_a_pipeline_loads_with_every_scheduler_that_its_own_call_runs_with(name: str) -> None:
    pipeline = tiny.pipeline()
    pipeline.scheduler = made(name)
    if name in NOT_RUN_BY_STABLE_DIFFUSION:
        with pytest.raises(ModelError, match="StableDiffusionPipeline fails"):
            backbone_of(pipeline)
        return
    backbone = backbone_of(pipeline)
    given: list[Tensor] = []
    backbone.denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: given.append(kwargs["sample"]), with_kwargs=True
    )
    with torch.inference_mode():
        clean = backbone.encode(torch.rand(1, 3, 16, 16))
        backbone.denoise(clean, torch.randn_like(clean), 30, backbone.condition(1))
    assert given[0].isfinite().all()


def test_fields_that_are_left_to_a_classs_defaults_are_that_classs(clean_and_noise: tuple[Tensor, Tensor]) -> None:
    heun = Schedule(made("HeunDiscreteScheduler"), "my-model")
    ddpm = Schedule(made("DDPMScheduler"), "my-model")
    assert not torch.allclose(heun.add_noise(*clean_and_noise, 300), ddpm.add_noise(*clean_and_noise, 300))
    assert heun.identity() != ddpm.identity()


def test_schedulers_of_the_same_levels_keep_the_identity_that_they_always_had() -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    found = Schedule(made("DDIMScheduler", **betas), "my-model").identity()
    assert found.items() >= {**betas, "num_train_timesteps": 1000, "variance_type": "fixed_small"}.items()
    assert "class" not in found
    flow = Schedule(made("FlowMatchEulerDiscreteScheduler", shift=3.0), "my-model").identity()
    assert flow == {"flow_matching": True, "num_train_timesteps": 1000}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("DDIMScheduler", {"beta_start": -5.0}, "must leave a share of the image from 0 to 1"),
        ("DDIMScheduler", {"beta_end": float("nan")}, "must leave a share of the image from 0 to 1"),
        ("DDIMScheduler", {"trained_betas": [0.1, 0.2]}, r"num_train_timesteps \(1000\), but its trained_betas make 2"),
        ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 20_000}, "from 1 to 10000, but .* has 20000"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Schedule(made(name, **config), "my-model")
