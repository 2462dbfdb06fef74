"""Our sampler: a planted answer is found, limits hold, nothing is tried twice, and history and seed decide alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import planted

from diffsift.search import SAMPLERS, SamplerSetup, SearchSpace, SubsetGPOptions, SubsetGPSampler
from diffsift.spaces import Candidate, LimitsSpecification, Selection, declared_similarity

History = dict[Selection, float]
SIZE = 60


def search(
    sampler: SubsetGPSampler,
    proposals: int,
    history: History | None = None,
    score: Callable[[Selection], float] = planted.value,
) -> History:
    history = {} if history is None else history
    for _ in range(proposals):
        selection, _ = sampler.propose(history)
        history[selection] = score(selection)
    return history


def best(history: History) -> Selection:
    return max(history, key=history.__getitem__)


@pytest.mark.parametrize("seed", range(10))
def test_the_planted_selection_of_three_in_sixty_is_found(seed: int) -> None:
    sampler = SubsetGPSampler(planted.space(SIZE), seed=seed, similarity=planted.similarity(SIZE))
    assert set(best(search(sampler, 120)).candidates) == set(planted.PLANTED)


def test_it_is_found_where_similarity_says_nothing() -> None:
    """The names of the planted pool have nothing to do with what its candidates cover: the model finds that out."""
    sampler = SubsetGPSampler(planted.space(20), seed=0)
    assert set(best(search(sampler, 250)).candidates) >= set(planted.PLANTED[:2])


def test_similarity_saves_evaluations() -> None:
    """The label-free similarity is what makes the search short: without it, the best after 60 is worse."""
    informed, blind = (
        np.mean(
            [
                max(search(SubsetGPSampler(planted.space(SIZE), seed=seed, similarity=known), 60).values())
                for seed in range(3)
            ]
        )
        for known in (planted.similarity(SIZE), np.eye(SIZE))
    )
    assert informed > blind + 0.02


@pytest.mark.parametrize("planted_weights", [(1.0, 0.5, 0.3), (1.0, 0.72, 0.41)])
def test_identifiable_weights_are_found_within_a_tenth_of_each(planted_weights: tuple[float, ...]) -> None:
    """As with cosines: the score falls with the angle between a selection's weights and the planted ones."""
    candidates = planted.pool(6)
    wanted = dict(zip(candidates[:3], planted_weights, strict=True))

    def score(selection: Selection) -> float:
        weights = dict(selection.members)
        ours = np.array([weights.get(candidate, 0.0) for candidate in candidates])
        truth = np.array([wanted.get(candidate, 0.0) for candidate in candidates])
        return float(ours @ truth / np.linalg.norm(ours) / np.linalg.norm(truth))

    space = SearchSpace(candidates, dict.fromkeys(candidates, 8), LimitsSpecification(activations=3))
    found = dict(best(search(SubsetGPSampler(space, seed=0, similarity=np.eye(6)), 200, score=score)).members)
    assert found.keys() == wanted.keys()
    assert all(found[candidate] == pytest.approx(weight, rel=0.1) for candidate, weight in wanted.items())


def test_nothing_is_proposed_twice_while_there_is_something_else() -> None:
    assert len(search(SubsetGPSampler(planted.space(6, activations=3), seed=0), 150)) == 150
    assert len(search(SubsetGPSampler(planted.space(5, activations=1), seed=0), 5)) == 5


def test_any_stage_can_be_left_out() -> None:
    def stages(*skip: str) -> Counter[str]:
        warm = [Selection.of(planted.pool()[:2])]
        options = SubsetGPOptions(skip=skip)
        sampler = SubsetGPSampler(
            planted.space(), seed=0, similarity=planted.similarity(), warm_starts=warm, options=options
        )
        history: dict[Selection, float] = {}
        met: Counter[str] = Counter()
        for _ in range(130):
            selection, stage = sampler.propose(history)
            history[selection] = planted.value(selection)
            met[stage] += 1
        return met

    usual = stages()
    begun = {"warm start": 1, "spread": 7, "drawn": 3}
    assert usual.items() >= begun.items()
    assert usual.keys() >= {"swap", "reweight", "restart"}
    moves = ("add", "swap", "drop", "retime", "retime all", "reweight", "single")
    assert not stages("swap", "reweight", "restart").keys() & {"swap", "reweight", "restart"}
    later = stages(*begun)
    assert later["drawn"] == 1  # the first of all: there is nothing to move from
    assert not later.keys() & {"warm start", "spread"}
    assert stages(*moves).keys() == {*begun, "restart"}


def test_the_first_singles_are_unlike_one_another() -> None:
    """Of four kinds of features, each is met among the first four."""
    pool = sorted(Candidate("main", f"a{i}", t) for i in range(4) for t in (10, 20, 30))
    kind = [candidate.activation for candidate in pool]
    alike = np.array([[1.0 if a == b else 0.1 for a in kind] for b in kind]) * 0.9 + 0.1 * np.eye(len(pool))
    space = SearchSpace(pool, dict.fromkeys(pool, 1), LimitsSpecification(activations=2))
    first = list(search(SubsetGPSampler(space, seed=0, similarity=alike), 4))
    assert {selection.candidates[0].activation for selection in first} == {"a0", "a1", "a2", "a3"}
    assert all(len(selection.members) == 1 for selection in first)


def test_warm_starts_come_first_where_the_limits_allow_them() -> None:
    pool = planted.pool()
    allowed, too_many = Selection.of(pool[:2]), Selection.of(pool[:4])
    sampler = SubsetGPSampler(planted.space(), seed=0, warm_starts=[too_many, allowed])
    assert sampler.propose({}) == (allowed, "warm start")
    assert sampler.propose({allowed: 0.1})[1] == "spread"
    assert sampler.propose({}, frozenset([allowed]))[0] != allowed


def test_what_others_evaluate_is_not_proposed() -> None:
    sampler = SubsetGPSampler(planted.space(), seed=0, similarity=planted.similarity())
    history = search(sampler, 30)
    pending: set[Selection] = set()
    for _ in range(5):
        selection, _ = sampler.propose(history, frozenset(pending))
        assert selection not in history
        assert selection not in pending
        pending.add(selection)


@given(
    widths=st.lists(st.integers(1, 40), min_size=4, max_size=12),
    activations=st.integers(1, 4),
    room=st.integers(0, 60),
    passes=st.none() | st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=15, deadline=None)
def test_limits_hold(widths: list[int], activations: int, room: int, passes: int | None, seed: int) -> None:
    pool = planted.pool(len(widths))
    channels = dict(zip(pool, widths, strict=True))
    most = min(widths) + room
    space = SearchSpace(pool, channels, LimitsSpecification(activations=activations, channels=most, passes=passes))
    for selection in search(SubsetGPSampler(space, seed=seed), 30):
        assert len(selection.members) <= activations
        assert space.channels(selection) <= most
        assert passes is None or space.passes(selection) <= passes
        assert set(selection.candidates) <= set(pool)


@pytest.mark.parametrize("kind", ["tpe", "nsga2", "cmaes", "random"])
def test_samplers_of_optuna_keep_the_limits_too(kind: str) -> None:
    pool = planted.pool(8)
    limits = LimitsSpecification(activations=3, channels=20)
    space = SearchSpace(pool, dict(zip(pool, range(4, 12), strict=True)), limits).encoded(SAMPLERS[kind].encoding)
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[kind].make(SamplerSetup(space, seed=0)))
    for _ in range(15):
        trial = study.ask()
        selection = space.suggest(trial)
        assert space.channels(selection) <= 20
        assert space.read(study.tell(trial, planted.value(selection))) == selection


@pytest.mark.parametrize("encoding", ["slots", "keys"])
def test_parameters_say_the_selection(encoding: Any) -> None:
    pool = planted.pool(8)
    space = SearchSpace(pool, dict.fromkeys(pool, 1), LimitsSpecification(activations=3)).encoded(encoding)
    selection = Selection.of([pool[1], pool[6]])
    parameters = space.parameters(selection)
    assert space.is_complete(parameters)
    assert not space.is_complete({"count": 2})
    assert parameters.keys() <= space.distributions.keys()
    distributions = {name: space.distributions[name] for name in parameters}
    trial = optuna.trial.create_trial(value=0.0, params=parameters, distributions=distributions)
    assert space.read(trial) == selection


def test_costs_are_searched_below_too() -> None:
    """With channels to be kept small, the best of the narrow selections is better than where only the score counts."""
    candidates = planted.pool(SIZE)
    rng = np.random.default_rng(0)
    channels = dict(zip(candidates, rng.integers(1, 100, SIZE).tolist(), strict=True))
    space = SearchSpace(candidates, channels, LimitsSpecification(activations=3))
    best_narrow = []
    for costs in (("channels",), ()):
        scores = []
        for seed in range(3):
            sampler = SubsetGPSampler(space, seed=seed, costs=costs, similarity=planted.similarity(SIZE))
            history = search(sampler, 80)
            scores.append(max(score for selection, score in history.items() if space.channels(selection) <= 60))
        best_narrow.append(np.mean(scores))
    assert best_narrow[0] > best_narrow[1]


def test_proposals_depend_on_history_and_seed_alone() -> None:
    sampler = SubsetGPSampler(planted.space(), seed=3)
    history = search(sampler, 80)
    fresh = SubsetGPSampler(planted.space(), seed=3)
    assert fresh.propose(history) == sampler.propose(history)
    assert list(search(fresh, 40, dict(list(history.items())[:40]))) == list(history)
    assert list(search(SubsetGPSampler(planted.space(), seed=4), 80)) != list(history)


def test_the_declared_similarity_is_one() -> None:
    pool = [
        Candidate("main", "up-level1-repeat0-vit-block0-cross-q", 50),
        Candidate("main", "up-level1-repeat0-vit-block0-cross-q", 200),
        Candidate("main", "up-level1-repeat1-vit-block0-cross-q", 50),
        Candidate("main", "down-level0-repeat0-res-out", 50),
        Candidate("other", "up-level1-repeat0-vit-block0-cross-q", 50),
    ]
    found = declared_similarity(pool)
    assert np.allclose(np.diag(found), 1)
    assert np.allclose(found, found.T)
    assert np.linalg.eigvalsh(found).min() > -1e-9
    assert found[0, 2] > found[0, 3]
    assert found[0, 4] == pytest.approx(0.5)
