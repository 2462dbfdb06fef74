"""Noise levels: how an image is noised at a timestep, and how the timestep is passed to the denoiser.

A timestep t is in [0, T - 1] (T is 1,000 as a rule), whatever the model. Variance-preserving models noise by the
schedule they were trained with; flow matching (Lipman et al., ICLR 2023) interpolates: (1 - t / T) image + t / T noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float
from torch import Tensor

from diffsift.errors import ModelError


class Schedule:
    """Adds noise at a training timestep, as in the model's training.

    Args:
        scheduler: the pipeline's scheduler.
        source: the user's name for the model, for messages.

    Attributes:
        train_timesteps: number of noise levels, T.

    Raises:
        ModelError: the scheduler is neither a flow-matching nor a variance-preserving one.
    """

    def __init__(self, scheduler: Any, source: str) -> None:
        self.flow = _is_flow(scheduler)
        if not self.flow and not any(
            kind.__name__ == "DDPMScheduler" for kind in [type(scheduler), *scheduler.compatibles]
        ):
            raise ModelError(
                f"the scheduler of {source} must have a variance-preserving noise schedule or flow matching, but is a "
                f"{type(scheduler).__name__}, which cannot add noise at a training timestep."
            )
        # Samplers such as Euler only know the steps they were set to: use the schedule of training instead.
        self._scheduler: Any = None if self.flow else DDPMScheduler.from_config(scheduler.config)
        config: Any = scheduler.config if self._scheduler is None else self._scheduler.config
        self.train_timesteps = int(config["num_train_timesteps"])
        self._config = {key: value for key, value in sorted(config.items()) if key[0] != "_"}
        if self.flow:
            # Shifts and samplers' options decide which levels are visited, not what a level is.
            self._config = {"flow_matching": True, "num_train_timesteps": self.train_timesteps}

    def add_noise(
        self,
        clean: Float[Tensor, "batch channels rows columns"],
        noise: Float[Tensor, "batch channels rows columns"],
        timestep: int,
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The clean input noised to one timestep.

        Args:
            clean: the denoiser's clean input.
            noise: standard normal.
            timestep: from 0 to T - 1.
        """
        if self.flow:
            sigma = timestep / self.train_timesteps
            return (1.0 - sigma) * clean + sigma * noise
        steps = torch.full((len(clean),), timestep, device=clean.device, dtype=torch.long)
        noisy: Tensor = self._scheduler.add_noise(clean, noise, steps)
        return noisy

    def identity(self) -> dict[str, Any]:
        """The settings that decide how noise is added, as JSON."""
        return dict(self._config)

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
                return form
        raise ModelError(
            f"the pipeline {source} must pass the timestep t to its denoiser as t, t / {steps} or 1 - t / {steps}, but "
            f"passes {passed:g} for t = {timestep:g}: diffsift does not know what this model means by a timestep."
        )


def _is_flow(scheduler: Any) -> bool:
    config = scheduler.config
    return (
        hasattr(scheduler, "scale_noise")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )
