"""What is one move away from a selection, where candidates are of variants of a model."""

from __future__ import annotations

import numpy as np
import pytest

from diffsift.search import SearchSpace, SubsetGPSampler
from diffsift.search.samplers._moves import Moves, rated
from diffsift.search.samplers._surrogate import PlacedSelections
from diffsift.spaces import Candidate, LimitsSpecification, Selection

VARIANTS = {"main-96x96": "main", "main-2noise": "main"}
POOL = sorted(
    Candidate(backbone, name, timestep)
    for backbone in ("main", "main-96x96", "main-2noise", "other")
    for name in "ab"
    for timestep in (50, 300)
)
AT = {candidate: position for position, candidate in enumerate(POOL)}


def moved(
    stage: str, members: dict[Candidate, float], variants: dict[str, str] | None = VARIANTS
) -> list[dict[Candidate, float]]:
    """The selections that moves of a stage lead to."""
    parent = {AT[candidate]: weight for candidate, weight in members.items()}
    families = Moves(POOL, 4, variants).around(parent, np.arange(len(POOL)), weights=None)
    return [
        {POOL[position]: weight for position, weight in family.members(index).items()}
        for family in families
        if family.stage == stage
        for index in range(len(family))
    ]


def test_one_member_moves_to_other_timesteps_and_variants() -> None:
    found = moved("retime", {Candidate("main", "a", 50): 1.0})
    assert len(found) == 5
    assert {next(iter(entry)) for entry in found} == {
        Candidate(backbone, "a", timestep)
        for backbone in ("main", *VARIANTS)
        for timestep in (50, 300)
        if (backbone, timestep) != ("main", 50)
    }
    assert moved("retime", {Candidate("other", "a", 50): 1.0}) == [{Candidate("other", "a", 300): 1.0}]


def test_all_members_move_to_one_timestep_one_variant_or_both() -> None:
    a, b = Candidate("main", "a", 50), Candidate("main-2noise", "b", 300)
    found = moved("retime all", {a: 1.0, b: 0.5})
    places = [tuple((candidate.backbone, candidate.timestep) for candidate in entry) for entry in found]
    assert len(places) == len(set(places))
    for backbone in ("main", *VARIANTS):
        assert ((backbone, 50), (backbone, 300)) in places
        for timestep in (50, 300):
            assert ((backbone, timestep), (backbone, timestep)) in places
    for timestep in (50, 300):
        assert (("main", timestep), ("main-2noise", timestep)) in places
    assert len(places) == 3 + 3 * 2 + 2
    assert all(list(entry.values()) == [1.0, 0.5] for entry in found)


def test_models_of_their_own_stay_where_they_are() -> None:
    found = moved("retime all", {Candidate("main", "a", 50): 1.0, Candidate("other", "a", 50): 1.0})
    assert all(list(entry)[1].backbone == "other" for entry in found)
    assert {next(iter(entry)).backbone for entry in found} == {"main", *VARIANTS}


def test_without_variants_a_timestep_is_all_that_changes() -> None:
    members = {Candidate("main", "a", 50): 1.0, Candidate("main-2noise", "b", 300): 1.0}
    for stage in ("retime", "retime all"):
        found = moved(stage, members, None)
        assert len(found) == 2
        assert all(sorted(candidate.backbone for candidate in entry) == ["main", "main-2noise"] for entry in found)


@pytest.mark.parametrize("known", [True, False])
def test_the_sampler_moves_between_variants(known: bool) -> None:
    """At one timestep, to change the variant is all that *retime* can be."""
    names, count = ("main", "main-96x96"), 200
    pool = [Candidate(name, f"a{number:03}", 50) for name in names for number in range(count)]
    space = SearchSpace(
        pool,
        dict.fromkeys(pool, 8),
        LimitsSpecification(activations=3),
        variants={"main-96x96": "main"} if known else {},
    )
    rng = np.random.default_rng(0)
    worth = np.tile(rng.random(count), 2) + 0.2 * rng.random(2 * count)
    alike = np.kron([[1.0, 0.8], [0.8, 1.0]], np.eye(count))
    sampler, history = SubsetGPSampler(space, seed=0, similarity=alike), dict[Selection, float]()
    stages = set()
    for _ in range(60):
        selection, stage = sampler.propose(history)
        stages.add(stage)
        history[selection] = sum(float(worth[pool.index(candidate)]) for candidate in selection.candidates)
    assert bool(stages & {"retime", "retime all"}) == known


def test_selections_of_all_moves_are_placed_where_their_members_say() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(POOL), 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = (vectors @ vectors.T) ** 2
    observed = PlacedSelections.at(rng.integers(len(POOL), size=(5, 4)), rng.uniform(0.1, 1.0, (5, 4)), similarity)
    parent = {0: 1.0, 5: 0.5, 9: 0.25}
    families = list(Moves(POOL, 4, VARIANTS).around(parent, np.arange(len(POOL)), weights=rng))
    members = [family.members(index) for family in families for index in range(len(family))]
    positions, squares = np.zeros((len(members), 4), dtype=int), np.zeros((len(members), 4))
    for row, weights in enumerate(members):
        positions[row, : len(weights)] = list(weights)
        squares[row, : len(weights)] = np.square(list(weights.values()))
    wanted = PlacedSelections.at(positions, squares, similarity)
    products, norm, size = rated(families, np.ascontiguousarray(observed.inner.T), similarity, 4)
    assert {family.stage for family in families} >= {"add", "swap", "drop", "retime", "reweight"}
    np.testing.assert_allclose(products, wanted.products(observed))
    np.testing.assert_allclose(norm, wanted.norm)
    np.testing.assert_allclose(size, wanted.size)
