"""Noise levels: how an image is noised at a timestep, and what the denoiser is told of it.

A timestep t is in [0, T - 1] (T is 1,000 as a rule), whatever the model. Variance-preserving models noise by the
schedule they were trained with; flow matching (Lipman et al., ICLR 2023) interpolates: (1 - t / T) image + t / T noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from diffsift.errors import ModelError


class Schedule:
    """Adds noise at a training timestep, as the model was trained.

    Args:
        scheduler: of the pipeline.
        source: what the user named the model by; for messages.

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
        # Samplers such as Euler only know the steps they were set to: the schedule is taken as training used it.
        self._scheduler: Any = None if self.flow else DDPMScheduler.from_config(scheduler.config)
        config: Any = scheduler.config if self._scheduler is None else self._scheduler.config
        self.train_timesteps = int(config["num_train_timesteps"])
        self._config = {key: value for key, value in sorted(config.items()) if key[0] != "_"}
        if self.flow:
            # Shifts and samplers' options say which levels are visited, not what a level is.
            self._config = {"flow_matching": True, "num_train_timesteps": self.train_timesteps}

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """The clean input with the noise of one timestep."""
        if self.flow:
            sigma = timestep / self.train_timesteps
            return (1.0 - sigma) * clean + sigma * noise
        steps = torch.full((len(clean),), timestep, device=clean.device, dtype=torch.long)
        noisy: Tensor = self._scheduler.add_noise(clean, noise, steps)
        return noisy

    def identity(self) -> dict[str, Any]:
        """What shapes the noising, as JSON."""
        return dict(self._config)

    def reading(self, told: float, of_timestep: float, source: str) -> Callable[[int], float]:
        """How a timestep is told to the denoiser, found from what the pipeline itself told it once.

        Args:
            told: what the pipeline passed to the denoiser.
            of_timestep: the scheduler's timestep that it meant.
            source: for the message.

        Raises:
            ModelError: it is neither t, t / T nor 1 - t / T.
        """
        steps = self.train_timesteps
        forms: tuple[Callable[[float], float], ...] = (
            lambda t: t,
            lambda t: t / steps,
            lambda t: 1.0 - t / steps,
        )
        for form in forms:
            expected = form(of_timestep)
            if abs(told - expected) <= 4e-3 * max(1.0, abs(expected)):  # bfloat16 keeps eight bits
                return form
        raise ModelError(
            f"the denoiser of {source} must be told the timestep t as t, t / {steps} or 1 - t / {steps}, but is told "
            f"{told:g} for t = {of_timestep:g}: diffsift does not know what this model means by a timestep."
        )


def _is_flow(scheduler: Any) -> bool:
    config = scheduler.config
    return (
        hasattr(scheduler, "scale_noise")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )
