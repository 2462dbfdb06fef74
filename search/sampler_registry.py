"""The samplers of a search by name: ours, Optuna's, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from numpy import ndarray

from diffsift.common.registry import Registry
from diffsift.spaces import Selection

if TYPE_CHECKING:  # a specification is judged without Optuna
    from optuna.samplers import BaseSampler

    from .space import SearchSpace

Encoding = Literal["slots", "keys"]
"""How a selection is written as Optuna parameters; see `SearchSpace`."""


@dataclass(frozen=True)
class SamplerSetup:
    """What a sampler is made from.

    Attributes:
        space: pool and limits of the study.
        seed: of the search, 0 or more; another one in each process.
        finished: trials of the study that have ended; a sampler that keeps no state adds it to the seed, so that a
            study that is resumed does not repeat its first proposals.
        warm_starts: selections to try first.
        costs: objective values that are minimised beside the score: any of "channels", "passes" and "operations".
        similarity: of every two candidates of the pool, with 1 on the diagonal; None: unknown.
        skip: stages to leave out.
    """

    space: SearchSpace
    seed: int
    finished: int = 0
    warm_starts: Sequence[Selection] = ()
    costs: Sequence[str] = ()
    similarity: Float[ndarray, "pool pool"] | None = None
    skip: Sequence[str] = ()


@dataclass(frozen=True)
class SamplerKind:
    """A kind of sampler, as `SAMPLERS` holds it.

    Attributes:
        make: makes a sampler, which must work in an Optuna study that maximises the score and whose parameters are
            those of `SearchSpace.distributions`. A sampler with a dictionary ``stage_of`` names there, by trial number,
            the stage that proposed a trial.
        encoding: how selections are written as parameters: "slots" suit samplers that model each parameter, "keys"
            those that need parameters that mean the same in every trial, such as crossover.
        keeps_state: False: the sampler is made anew for each trial, so that its proposals depend on the seed and the
            number of finished trials. True: it is made once in each process, and its proposals must depend on the seed
            and the finished trials alone.
    """

    make: Callable[[SamplerSetup], BaseSampler]
    encoding: Encoding = "slots"
    keeps_state: bool = False


_OURS = ("sift", "tpe", "nsga2", "cmaes", "random")
SAMPLERS: Registry[SamplerKind] = Registry(
    "sampler", "diffsift.samplers", {name: f"diffsift.search.samplers:{name.upper()}" for name in _OURS}
)
"""Kinds of samplers by their name in ``study.sampler``."""


def register_sampler(
    name: str,
    make: Callable[[SamplerSetup], BaseSampler],
    *,
    encoding: Encoding = "slots",
    keeps_state: bool = False,
) -> None:
    """Add a sampler for this process, as a value of ``study.sampler``.

    A package adds one for all with an entry point of the group ``diffsift.samplers`` that names a `SamplerKind`.
    `diffsift.testing.SamplerContract` tests what a sampler must do.

    Args:
        name: the value of ``study.sampler``; none that there is already.
        make: see `SamplerKind`.
        encoding: see `SamplerKind`.
        keeps_state: see `SamplerKind`.

    Raises:
        SpecificationError: the name is taken.
    """
    SAMPLERS.register(name, SamplerKind(make, encoding, keeps_state))
