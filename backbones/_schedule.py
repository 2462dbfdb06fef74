"""Noise levels: how an image is noised at a timestep, and how the timestep is passed to the denoiser.

A timestep t is in [0, T - 1] (T is 1,000 as a rule), whatever the model. The noised input is what the denoiser of the
pipeline is given: what its scheduler's `add_noise` or `scale_noise` makes of the image, scaled by the scheduler's
`scale_model_input`. There are three kinds of schedulers:

- variance-preserving ones know the share of the image at every training timestep (`alphas_cumprod`);
- flow matching (Lipman et al., ICLR 2023) interpolates: (1 - t / T) image + t / T noise;
- preconditioned ones (Karras et al., NeurIPS 2022; consistency models) have a list of levels of their own, each with a
  value that the denoiser takes as its timestep.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float
from torch import Tensor

from diffsift.errors import ModelError

from .folders import MOST_TIMESTEPS


class Schedule:
    """Adds noise at a training timestep, as in the model's training.

    Args:
        scheduler: the pipeline's scheduler; it is not changed.
        source: the user's name for the model, for messages.

    Attributes:
        train_timesteps: number of noise levels, T.

    Raises:
        ModelError: the scheduler has no noise levels for images, or its configuration makes no sense.
    """

    def __init__(self, scheduler: Any, source: str) -> None:
        kind = type(scheduler).__name__
        self.train_timesteps = _checked_timesteps(scheduler.config.get("num_train_timesteps"), kind, source)
        self.flow = _is_flow(scheduler)
        # A pipeline sets its scheduler to a few steps; as it is made, it knows all levels.
        self._levels: Any = type(scheduler).from_config(scheduler.config) if _is_preconditioned(scheduler) else None
        self._preserving: Any = None
        self._identity: dict[str, Any] = {"class": kind, **_written(scheduler.config)}
        if self.flow:
            # Shifts and samplers' options decide which levels are visited, not what a level is.
            self._identity = {"flow_matching": True, "num_train_timesteps": self.train_timesteps}
        elif self._levels is None:
            shares = _checked_shares(scheduler, self.train_timesteps, source)
            # Samplers such as Euler only know the steps they were set to: add noise as training did.
            self._preserving = DDPMScheduler(num_train_timesteps=1)
            self._preserving.alphas_cumprod = shares.clone()
            self._identity = _ddpm_identity(scheduler, shares) or self._identity

    def add_noise(
        self,
        clean: Float[Tensor, "batch channels rows columns"],
        noise: Float[Tensor, "batch channels rows columns"],
        timestep: int,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The clean input noised to one timestep, as the denoiser takes it.

        Args:
            clean: the denoiser's clean input.
            noise: standard normal.
            timestep: from 0 to T - 1.
        """
        if self.flow:
            sigma = timestep / self.train_timesteps
            return (1.0 - sigma) * clean + sigma * noise
        noisy: Tensor
        if self._levels is not None:
            levels = copy.deepcopy(self._levels)  # it counts its steps from the first call on
            value = levels.timesteps[-1 - timestep]
            noisy = levels.scale_model_input(levels.add_noise(clean, noise, value.expand(len(clean))), value)
            return noisy
        steps = torch.full((len(clean),), timestep, device=clean.device, dtype=torch.long)
        noisy = self._preserving.add_noise(clean, noise, steps)
        return noisy

    def identity(self) -> dict[str, Any]:
        """The settings that decide how noise is added, as JSON."""
        return dict(self._identity)

    def timestep_form(self, passed: float, timestep: float, source: str) -> Callable[[int], float]:
        """Infer how this pipeline scales the timestep (t, t / T or 1 - t / T) from one recorded call.

        Args:
            passed: the value that the pipeline passed to its denoiser.
            timestep: the scheduler's timestep of that call.
            source: the user's name for the model, for the message.

        Returns:
            A function from a timestep to the value to pass.

        Raises:
            ModelError: the value is none of the three.
        """
        steps = self.train_timesteps
        forms: tuple[Callable[[float], float], ...] = (
            float,
            lambda t: t / steps,
            lambda t: 1.0 - t / steps,
        )
        for form in forms:
            expected = form(timestep)
            if abs(passed - expected) <= 4e-3 * max(1.0, abs(expected)):  # bfloat16 keeps eight bits
                return form if self._levels is None else partial(self._passed, form)
        raise ModelError(
            f"the pipeline {source} must pass the timestep t to its denoiser as t, t / {steps} or 1 - t / {steps}, but "
            f"passes {passed:g} for t = {timestep:g}: diffsift does not know what this model means by a timestep."
        )

    def _passed(self, form: Callable[[float], float], timestep: int) -> float:
        """What is passed for a level of a scheduler that has its own timesteps."""
        return form(float(self._levels.timesteps[-1 - timestep]))


def _checked_timesteps(count: Any, kind: str, source: str) -> int:
    if isinstance(count, int) and 1 <= count <= MOST_TIMESTEPS:
        return count
    has = "has none" if count is None else f"has {str(count)[:40]}"
    raise ModelError(
        f"the scheduler of {source} must have num_train_timesteps from 1 to {MOST_TIMESTEPS}, but {kind} {has}: mend "
        "scheduler/scheduler_config.json, or name there the scheduler that the model was trained with."
    )


def _is_flow(scheduler: Any) -> bool:
    config = scheduler.config
    return (
        hasattr(scheduler, "scale_noise")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def _is_preconditioned(scheduler: Any) -> bool:
    """Whether a scheduler has levels of its own, whose timesteps are no training timesteps."""
    methods = ("add_noise", "scale_model_input", "index_for_timestep")
    if _is_flow(scheduler) or not all(hasattr(scheduler, name) for name in methods):
        return False
    continuous = scheduler.config.get("timestep_type") == "continuous"
    return continuous or not hasattr(scheduler, "alphas_cumprod")


def _checked_shares(scheduler: Any, count: int, source: str) -> Float[Tensor, " timesteps"]:
    """The share of the image's variance at each training timestep."""
    kind, shares = type(scheduler).__name__, getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(shares, Tensor):
        raise ModelError(
            f"the scheduler of {source} must know its noise levels by training timesteps (alphas_cumprod), as flow "
            f"matching (scale_noise), or by sigmas with a timestep each, but {kind} has none of them: name a scheduler "
            "of the same noise in scheduler/scheduler_config.json and model_index.json, such as DDPMScheduler."
        )
    if len(shares) != count:
        raise ModelError(
            f"the scheduler of {source} must have as many noise levels as num_train_timesteps ({count}), but its "
            f"trained_betas make {len(shares)}: mend scheduler/scheduler_config.json."
        )
    if not bool(((shares >= 0) & (shares <= 1)).all()):  # NaN is neither
        worst = next(float(share) for share in shares if not 0 <= share <= 1 or math.isnan(share))
        raise ModelError(
            f"the betas of {source} must leave a share of the image from 0 to 1 at every timestep, but leave "
            f"{worst:g}: mend beta_start, beta_end or trained_betas in scheduler/scheduler_config.json."
        )
    return shares


def _ddpm_identity(scheduler: Any, shares: Tensor) -> dict[str, Any] | None:
    """The configuration as that of a DDPMScheduler, if that one has the same noise levels."""
    try:
        training: Any = DDPMScheduler.from_config(scheduler.config)
    except (NotImplementedError, TypeError, ValueError):  # a beta schedule that only other classes know
        return None
    return _written(training.config) if torch.equal(training.alphas_cumprod, shares.cpu()) else None


def _written(config: Any) -> dict[str, Any]:
    return {key: value for key, value in sorted(config.items()) if key[0] != "_"}
