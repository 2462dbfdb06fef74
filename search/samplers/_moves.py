"""Selections that are one move away from another, written so that a surrogate can rate thousands of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

from diffsift.spaces import Candidate

Members = Mapping[int, float]
"""Positions in the pool with weights."""

_FACTORS = (4, 3.0)
"""How many factors a weight is multiplied by, drawn log-uniformly up to the second number or its inverse."""


@dataclass(frozen=True)
class Family:
    """Selections that share a base and differ in one more member at weight 1, or the base itself.

    Attributes:
        base: what all of them hold.
        added: positions of the one more member; None: there is one selection, the base.
        stage: what the move is called.
    """

    base: Members
    added: Int[np.ndarray, "added"] | None
    stage: str

    def __len__(self) -> int:
        return 1 if self.added is None else len(self.added)

    def members(self, index: int) -> dict[int, float]:
        """Of one of the selections."""
        if self.added is None:
            return dict(self.base)
        return {**self.base, int(self.added[index]): 1.0}

    def rate_into(
        self,
        products: Float[np.ndarray, "selections observed"],
        norm: Float[np.ndarray, "selections"],
        inner: Float[np.ndarray, "pool observed"],
        similarity: Float[np.ndarray, "pool pool"],
    ) -> None:
        """Fill in, for each of the selections, its products with the observed ones and its norm."""
        positions, squares = list(self.base), np.array([weight**2 for weight in self.base.values()])
        base = squares @ inner[positions] if positions else np.zeros(inner.shape[1])
        own = squares @ similarity[positions] if positions else np.zeros(len(similarity))
        square = float(squares @ own[positions]) if positions else 0.0
        if self.added is None:
            products[0], norm[0] = base, np.sqrt(square)
            return
        np.take(inner, self.added, axis=0, out=products, mode="clip")  # the default mode makes a copy first
        products += base
        norm[:] = np.sqrt(square + 2 * own[self.added] + similarity[self.added, self.added])


def rated(
    families: Sequence[Family],
    inner: Float[np.ndarray, "pool observed"],
    similarity: Float[np.ndarray, "pool pool"],
    most: int,
) -> tuple[Float[np.ndarray, "selections observed"], Float[np.ndarray, "selections"], Float[np.ndarray, "selections"]]:
    """What `Surrogate.predict` takes, of the selections of all families: products with the observed ones, norms, sizes.

    Args:
        families: in the order of the answer.
        inner: of every candidate with the observed selections.
        similarity: of the pool.
        most: members of a selection at most.
    """
    ends = np.cumsum([len(family) for family in families])
    products, norm, size = np.empty((ends[-1], inner.shape[1])), np.empty(ends[-1]), np.empty(ends[-1])
    for family, end in zip(families, ends, strict=True):
        part = slice(end - len(family), end)
        family.rate_into(products[part], norm[part], inner, similarity)
        size[part] = (len(family.base) + (family.added is not None)) / most
    return products, norm, size


class Moves:
    """What may be tried next to a selection.

    Args:
        pool: candidates by position.
        most: members of a selection at most.
        variants: backbones that are another one run in another way, with the name of that one; an activation in
            another variant is a sibling as one at another timestep is.
    """

    def __init__(self, pool: Sequence[Candidate], most: int, variants: Mapping[str, str] | None = None) -> None:
        self._pool, self._most, self._variant_of = pool, most, dict(variants or {})
        by_activation: dict[tuple[str, str], list[int]] = {}
        for position, candidate in enumerate(pool):
            by_activation.setdefault((self._model_of(candidate.backbone), candidate.activation), []).append(position)
        self._siblings = {position: group for group in by_activation.values() for position in group}
        self._at = {candidate: position for position, candidate in enumerate(pool)}
        self._timesteps = sorted({candidate.timestep for candidate in pool})
        self._variants = sorted({*self._variant_of, *self._variant_of.values()})

    def around(
        self, parent: Members, offered: Int[np.ndarray, "offered"], *, weights: np.random.Generator | None
    ) -> Iterator[Family]:
        """Add, swap, drop, retime one member or all, and if wanted change a weight; `offered` may come in."""
        fresh = offered[~np.isin(offered, list(parent))]
        if len(parent) < self._most:
            yield Family(parent, fresh, "add")
        for gone in parent:
            rest = {position: weight for position, weight in parent.items() if position != gone}
            yield Family(rest, fresh, "swap")
            siblings = [position for position in self._siblings[gone] if position not in parent]
            if siblings:
                yield Family(rest, np.array(siblings), "retime")
            if rest:
                yield Family(rest, None, "drop")
                if weights is not None:
                    count, largest = _FACTORS
                    for factor in largest ** weights.uniform(-1.0, 1.0, count):
                        yield Family({**parent, gone: parent[gone] * float(factor)}, None, "reweight")
        yield from self._all_retimed(parent)

    def _all_retimed(self, parent: Members) -> Iterator[Family]:
        """All members at one timestep, in one variant of their model, or both: one pass instead of several."""
        for variant, timestep in product((None, *self._variants), (None, *self._timesteps)):
            moved = {}
            for position, weight in parent.items():
                at = self._at.get(self._moved(self._pool[position], variant, timestep))
                if at is not None:
                    moved[at] = weight
            if len(moved) == len(parent) and moved.keys() != parent.keys():
                yield Family(moved, None, "retime all")

    def _moved(self, candidate: Candidate, variant: str | None, timestep: int | None) -> Candidate:
        """A candidate in a variant, if it is of the same model, and at a timestep; None leaves either."""
        backbone = candidate.backbone
        if variant is not None and self._model_of(variant) == self._model_of(backbone):
            backbone = variant
        return Candidate(backbone, candidate.activation, candidate.timestep if timestep is None else timestep)

    def _model_of(self, backbone: str) -> str:
        return self._variant_of.get(backbone, backbone)
