"""What every long step of a run needs besides its own arguments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from .reporting import NullReporter, Reporter
from .workspace import Workspace


@dataclass(frozen=True)
class RunContext:
    """How a run is carried out, made once and handed down unchanged.

    Attributes:
        workspace: where the bank, databases and artifacts lie.
        seed: of everything that is drawn but the noise: proposals, fits of slow probes.
        noise_seed: of the noise added to images.
        batch_size: images that run through a backbone together.
        device: that backbones and slow probes run on: ``auto``, ``cpu``, ``cuda``, ...
        reporter: told what is being done.
    """

    workspace: Workspace = field(default_factory=Workspace.at)
    seed: int = 0
    noise_seed: int = 0
    batch_size: int = 8
    device: str = "auto"
    reporter: Reporter = field(default_factory=NullReporter)

    def with_noise(self, seed: int) -> Self:
        """The same run with other noise.

        Args:
            seed: the noise seed.

        Returns:
            A copy that differs in `noise_seed` alone.
        """
        return replace(self, noise_seed=seed)
