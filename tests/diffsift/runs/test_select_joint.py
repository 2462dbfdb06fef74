"""Joint extras: prompt, image size and noise draws as search dimensions, each combination a variant of the model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from support import tiny
from support.reporters import Recorder
from support.tiny_pipelines import build
from typer.testing import CliRunner

import diffsift
from diffsift import FeatureExtractor, Specification
from diffsift.backbones import ModelSpecification, PipelineBackbone, load
from diffsift.cli.app import app
from diffsift.common.reporting import NullReporter, Reporter
from diffsift.common.workspace import Workspace
from diffsift.errors import DiffsiftError, SpecificationError, StudyError
from diffsift.extraction import block_scale
from diffsift.runs.pick import front_of
from diffsift.runs.prepare import Prepared, prepare
from diffsift.runs.score import score_file
from diffsift.spaces import Candidate, Selection, passes_per_image
from diffsift.study_store import StudyStore
from diffsift.tracking import Ledger, open_database

SMALLEST: dict[str, Any] = {"model": {"id": "m"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "s"}}
FEW = {"rules": "none", "keep": ["up-level1-*-vit-out", "up-level0-upsampler-out", "up-level0-*-vit-out"]}


def parsed(joint: dict[str, Any], **parts: Any) -> Specification:
    return Specification.parse({**SMALLEST, "joint": joint, **parts})


def small(model: Path, data: Path, joint: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A search over few activations of the tiny pipeline."""
    return {**tiny.specification(model, data, **{"filters": FEW, **changes}), "joint": joint}


def test_every_further_combination_is_a_variant_named_after_what_it_is() -> None:
    found = parsed({"prompts": ["a", "b"], "image_sizes": [[96, 64]], "noise_seeds": [4]}).variants
    assert list(found)[:4] == ["main-4noise", "main-96x64", "main-96x64-4noise", "main-prompt1"]
    assert len(found) == 3 * 2 * 2 - 1
    last = found["main-prompt2-96x64-4noise"]
    assert (last.prompt, last.image_size, last.noise_seeds) == ("b", (96, 64), 4)
    assert {name: (m.prompt, m.image_size, m.noise_seeds) for name, m in found.items()}["main-4noise"] == ("", None, 4)


def test_variants_stand_between_the_model_and_further_models() -> None:
    found = parsed({"noise_seeds": [2]}, further_models={"other": {"id": "o"}})
    assert list(found.models) == ["main", "main-2noise", "other"]
    assert found.noise_draws == {"main": 1, "main-2noise": 2, "other": 1}
    assert found.variant_of == {"main-2noise": "main"}
    assert Specification.parse(SMALLEST).variants == {}


def test_the_joint_part_identifies_a_study() -> None:
    assert parsed({"noise_seeds": [2]}).identity() != parsed({}).identity()


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "the model's own prompt": (
        {"joint": {"prompts": ["a", ""]}},
        r"joint.prompts must not hold the value of model.prompt, which is tried anyway, but has ''",
    ),
    "its own size": (
        {"model": {"id": "m", "image_size": [64, 64]}, "joint": {"image_sizes": [[64, 64]]}},
        r"joint.image_sizes must not hold the value of model.image_size, .* has \(64, 64\)",
    ),
    "its own draws": (
        {"joint": {"noise_seeds": [1]}},
        "joint.noise_seeds must not hold the value of model.noise_seeds, .* has 1",
    ),
    "twice": ({"joint": {"prompts": ["a", "a"]}}, r"joint.prompts must differ from one another, but got \['a', 'a'\]"),
    "too many": (
        {"joint": {"prompts": [*"abcdefgh"], "noise_seeds": [2, 3, 4]}},
        "at most 32 combinations .* 9 prompts x 1 image sizes x 4 numbers of noise draws are 36: take fewer values",
    ),
    "very many": (
        {"joint": {"prompts": [str(i) for i in range(10000)], "noise_seeds": list(range(2, 65))}},
        "at most 32 combinations",
    ),
    "unknown field": ({"joint": {"prompt": ["a"]}}, "joint.prompt is not a field; did you mean 'prompts'"),
    "too many draws": ({"joint": {"noise_seeds": [65]}}, "joint.noise_seeds.0 .*must be at most 64, but got 65"),
    "a size too small": ({"joint": {"image_sizes": [[4, 8]]}}, "joint.image_sizes.0.0 .*must be at least 8, but got 4"),
    "one number": ({"joint": {"image_sizes": [64]}}, "joint.image_sizes.0"),
    "a name that is taken": (
        {"joint": {"noise_seeds": [2]}, "further_models": {"main-2noise": {"id": "o"}}},
        "further_models must not use a name that joint gives, but has 'main-2noise'",
    ),
    "fewer passes than draws": (
        {"model": {"id": "m", "noise_seeds": 8}, "joint": {"noise_seeds": [4]}, "limits": {"passes": 3}},
        "limits.passes must be at least the noise draws .* is 3, and main.* has .* none of its activations",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_by_field(mistake: str) -> None:
    values, message = MISTAKES[mistake]
    with pytest.raises(SpecificationError, match=message):
        Specification.parse({**SMALLEST, **values})


@pytest.mark.parametrize(
    ("joint", "message"),
    [
        ({"image_sizes": [[16, 16]]}, r"joint.image_sizes must not hold the model's own size, .* has \[16, 16\]"),
        ({"image_sizes": [[24, 20]]}, "joint.image_sizes must be multiples of 8 px for .*, but got 24 x 20"),
    ],
)
def test_sizes_are_checked_before_anything_is_extracted(
    joint: dict[str, Any], message: str, tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DiffsiftError, match=message):
        prepared(small(tiny_pipeline, tiny_data, joint), tmp_path)
    assert list(tmp_path.rglob("bank/*")) == []


def test_prompts_need_a_model_of_text(tiny_data: Path, tmp_path: Path) -> None:
    build("DDPM").save_pretrained(tmp_path / "model", safe_serialization=True)
    with pytest.raises(
        SpecificationError, match=r"joint\.prompts must be left out for .*model, because it takes no text"
    ):
        prepared(small(tmp_path / "model", tiny_data, {"prompts": ["a"]}), tmp_path)


def test_prompts_are_refused_where_each_image_has_its_own(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({file.stem: "a" for file in (tiny_data / "images").iterdir()}))
    values = small(tiny_pipeline, tiny_data, {"prompts": ["b"]})
    values["data"]["prompts"] = str(prompts)
    with pytest.raises(
        SpecificationError, match=r"joint\.prompts must be left out, because the data has a prompt for each"
    ):
        prepared(values, tmp_path)


def test_attention_maps_are_placed_where_the_filters_want_them(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    for wanted in (False, True):
        values = tiny.specification(tiny_pipeline, tiny_data, filters={"attention_maps": wanted, "rules": "none"})
        (model,) = prepared(values, tmp_path / str(wanted)).models.values()
        assert ("mid-vit-block0-cross-map" in model.kept) is wanted
        reasons = {entry.activation.name: entry.reason for entry in model.decisions}
        assert reasons["up-cross-map"] == ("" if wanted else "attention map: filters.attention_maps is off")


def prepared(values: dict[str, Any], folder: Path, reporter: Reporter | None = None) -> Prepared:
    specification = Specification.parse(values)
    store = StudyStore(folder / "workspace")
    return prepare(specification, store, specification.context(store.workspace, reporter or NullReporter()))


@contextmanager
def loads_counted() -> Iterator[list[str]]:
    """Every pipeline that is loaded from disk meanwhile."""
    found: list[str] = []
    original = DiffusionPipeline.from_pretrained.__func__  # type: ignore[attr-defined]

    def counting(cls: Any, source: Any, **options: Any) -> Any:
        found.append(str(source))
        return original(cls, source, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionPipeline, "from_pretrained", classmethod(counting))
        yield found


WAYS = [{"prompt": "a b"}, {"image_size": (24, 32)}, {"noise_seeds": 3}, {"resize": "pad"}, {"noise_shared": True}]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: next(iter(way)))
def test_a_variant_is_what_a_pipeline_of_its_own_would_be(way: dict[str, Any], tiny_pipeline: Path) -> None:
    plain = ModelSpecification(id=str(tiny_pipeline), device="cpu")
    varied = plain.model_copy(update=way)
    base = load(plain)
    images = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    before = activations(base, images)
    shared, alone = load(varied, name="main", beside=base), load(varied)
    assert shared.denoiser is base.denoiser
    assert shared.identity() == alone.identity() != base.identity()
    assert shared.untrained().identity() == alone.untrained().identity() != alone.identity()
    found, expected = activations(shared, images), activations(alone, images)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(found[name].shape != before[name].shape or not torch.equal(found[name], before[name]) for name in before)
    assert all(torch.equal(before[name], value) for name, value in activations(base, images).items())


def activations(backbone: PipelineBackbone, images: torch.Tensor) -> dict[str, torch.Tensor]:
    entries = [entry for entry in backbone.activations() if entry.kind == "vit-out"]
    return dict(
        itertools.chain.from_iterable(maps.items() for _, maps in backbone.capture(images, {50: entries}, seed=0))
    )


def test_operations_of_a_variant_are_in_passes_of_the_model(tiny_backbone: PipelineBackbone) -> None:
    larger = tiny_backbone.varied(ModelSpecification(id="tiny", image_size=(32, 32)), name="larger")
    ratios = [
        counted.operations / own.operations
        for own, counted in zip(larger.activations(), larger.activations_in_passes_of(tiny_backbone), strict=True)
        if own.operations and counted.operations
    ]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert 4.0 < ratios[0] < 16.0  # four times the places; of attention, four times as many again
    alike = tiny_backbone.varied(ModelSpecification(id="tiny", prompt="a"), name="again")
    alike = alike.activations_in_passes_of(tiny_backbone)
    assert alike == tiny_backbone.activations()


def test_the_extractor_gives_what_the_bank_holds_of_two_variants(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    study = prepared(small(tiny_pipeline, tiny_data, {"prompts": ["a b"], "image_sizes": [[24, 32]]}), tmp_path)
    for model in study.models.values():
        study.bank.fill(study.backbone(model.name), study.wanted(model))
    names = ("main-prompt1", "main-24x32", "main-prompt1-24x32")
    chosen = [Candidate(name, "up-level1-repeat1-vit-out", 300) for name in names]
    selection = Selection.of({chosen[0]: 1.0, chosen[1]: 0.5, chosen[2]: 0.5})
    study.save_selection(tmp_path / "found.json", selection, {})
    with loads_counted() as loads:
        extractor = FeatureExtractor.from_selection(tmp_path / "found.json", device="cpu")
    assert len(loads) == 1
    assert len(extractor.denoisers) == 1
    development = study.bank.development
    images = [torch.from_numpy(sample.image.copy()).permute(2, 0, 1) / 255 for sample in development.samples]
    for number in range(3):
        points = torch.from_numpy(development.points[number])[None]
        found = extractor.features_at(images[number][None].float(), points)[0]
        blocks = []
        for candidate, weight in selection.members:
            entry = study.bank[candidate]
            features = torch.from_numpy(np.array(entry.features[number], dtype=np.float32))
            blocks.append(features * block_scale(weight, entry.standardiser.raw_channels))
        assert torch.allclose(found, torch.cat(blocks, dim=1), atol=5e-3)


def test_a_moved_model_is_named_once_for_all_its_variants(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(tiny_pipeline)
    study = prepared(small(tiny_pipeline, tiny_data, {"noise_seeds": [2]}), tmp_path)
    chosen = [Candidate(name, "up-level1-repeat1-vit-out", 50) for name in ("main", "main-2noise")]
    for model in study.models.values():
        study.bank.fill(study.backbone(model.name), study.wanted(model))
    study.save_selection(tmp_path / "found.json", Selection.of(chosen), {})
    found = FeatureExtractor.from_selection(tmp_path / "found.json", model=str(tmp_path / "moved"), device="cpu")
    assert found(torch.rand(1, 3, 16, 16)).isfinite().all()


@pytest.fixture(scope="module")
def searched(tiny_pipeline: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished search over four variants, with its folder, what it said and the pipelines it loaded."""
    folder = tmp_path_factory.mktemp("joint")
    joint = {"image_sizes": [[24, 32]], "noise_seeds": [3]}
    values = small(tiny_pipeline, tiny_data, joint, study={"trials": 40}, limits={"activations": 3, "passes": 4})
    recorder = Recorder()
    with loads_counted() as loads:
        result = diffsift.select(values, workspace=folder / "w", out=folder / "s.json", reporter=recorder)
    return values, folder, recorder.lines, loads, result


def test_a_search_takes_members_of_variants(searched: Any) -> None:
    values, folder, said, loads, _ = searched
    assert len(loads) == 1
    with Ledger(open_database(Workspace.at(folder / "w").study_url)) as ledger:
        row = ledger.study("tiny")
        scored = [entry.selection for entry in ledger.evaluations("tiny")]
        shares = row.operations
    names = {"main", "main-3noise", "main-24x32", "main-24x32-3noise"}
    assert {candidate.backbone for candidate in row.candidates} == names
    assert {candidate.backbone for selection in scored for candidate in selection.candidates} == names
    assert any(len({candidate.backbone for candidate in selection.candidates}) > 1 for selection in scored)
    draws = Specification.parse(values).noise_draws
    assert max(passes_per_image(selection.candidates, draws) for selection in scored) <= 4
    assert shares[Candidate("main-24x32", "up-level1-repeat1-vit-out", 50)] > 2.5  # three times the pixels
    said_at = {line.split()[0]: number for number, line in enumerate(said)}
    assert said_at["joint"] < said_at["bank"]
    price = said[said_at["joint"]]
    # Of 7 images and 2 timesteps: three draws, one, and three.
    assert "3 variants of the model: 98 passes" in price
    assert "without them 14 passes" in price


def test_the_table_counts_noise_draws_also_of_controls(searched: Any) -> None:
    values, _, _, _, result = searched
    draws = Specification.parse(values).noise_draws
    table = {row.name: row for row in result.outcome.table}
    expected = passes_per_image(result.outcome.found.candidates, draws)
    assert table["selection found"].passes == table["random weights"].passes == expected
    assert {c.backbone for c in table["random weights"].selection.candidates} == {
        "random" if c.backbone == "main" else f"random-{c.backbone}" for c in result.outcome.found.candidates
    }
    together = table["all kept, one timestep"].selection.candidates
    assert len({(candidate.backbone, candidate.timestep) for candidate in together}) == 1
    records = result.outcome.trials
    assert {record.passes for record in records} == {passes_per_image(r.selection.candidates, draws) for r in records}


def test_pick_and_score_know_variants(searched: Any) -> None:
    values, folder, _, _, result = searched
    draws = Specification.parse(values).noise_draws
    points = front_of("tiny", workspace=folder / "w")
    assert all(point.passes == passes_per_image(point.selection.candidates, draws) for point in points)
    with loads_counted() as loads:
        found = score_file(folder / "s.json", probe="ridge", workspace=folder / "w", device="cpu")
    assert len(loads) == 1
    selection = result.outcome.found
    equal = next((entry.score for entry in result.outcome.trials if entry.selection == selection), None)
    assert equal is None or found.value == pytest.approx(equal)
    used = {candidate.backbone for candidate in selection.candidates} & Specification.parse(values).variants.keys()
    assert used
    assert all(f"; {name}: " in result.outcome.model for name in used)


def test_a_resumed_study_keeps_its_variants(searched: Any) -> None:
    values, folder, _, _, _ = searched
    options: dict[str, Any] = {"workspace": folder / "w", "out": folder / "again.json"}
    recorder = Recorder()
    diffsift.resume("tiny", trials=42, reporter=recorder, **options)
    assert "without them 0 passes" in next(line for line in recorder.lines if line.startswith("joint"))
    with pytest.raises(StudyError, match=r"joint\.noise_seeds.* identity fields cannot change"):
        diffsift.select({**values, "joint": {"image_sizes": [[24, 32]]}}, reporter=recorder, **options)


def test_a_dry_run_lists_the_price_of_each_variant(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    values = small(tiny_pipeline, tiny_data, {"prompts": ["a b"], "noise_seeds": [4]})
    spec.write_text(yaml.safe_dump(values))
    found = CliRunner().invoke(app, ["search", str(spec), "--dry-run", "-w", str(tmp_path / "w")])
    assert found.exit_code == 0, found.output
    said = found.output
    # Of 7 images and 2 timesteps.
    assert "140 passes (7 images)" in said
    for name, passes in {"main": 14, "main-4noise": 56, "main-prompt1": 14, "main-prompt1-4noise": 56}.items():
        line = next(line for line in said.splitlines() if line.split()[:1] == [name])
        assert f" {passes} passes, " in line
        assert " MB, about " in line
    assert "(prompt 'a b', 4 noise draws)" in said
    assert "3 variants of the model: 126 passes" in said
    assert "without them 14 passes" in said
    assert list((tmp_path / "w" / "bank").iterdir()) == []


def test_properties_are_measured_on_each_variant(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    values = small(tiny_pipeline, tiny_data, {"noise_seeds": [2]}, filters={"rules": "measured"}, timesteps=[50])
    study = prepared(values, tmp_path, recorder)
    assert len(list((tmp_path / "workspace" / "properties").glob("*.json"))) == 2
    training = int(study.bank.development.training.sum())
    measured = f"first, properties of the model's variants are measured: at most {training * 4 * 2} passes"
    assert any(measured in line for line in recorder.lines)
    assert all(model.kept for model in study.models.values())
