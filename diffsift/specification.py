"""The specification: everything a search is told, composed of each folder's part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from diffsift.backbones import JointSpecification, ModelSpecification
from diffsift.backbones.names import BackboneName, is_reserved
from diffsift.bank import BankSpecification
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.common.workspace import Workspace
from diffsift.datasets import Dataset, DataSpecification
from diffsift.datasets.specification import PythonSpecification
from diffsift.errors import SpecificationError, did_you_mean
from diffsift.objectives import AnyTaskSpecification, ProbeSpecification, TaskSpecification
from diffsift.objectives.specification import task_model
from diffsift.protocols import with_protocol
from diffsift.search import StudySpecification
from diffsift.spaces import FilterSpecification, LimitsSpecification
from diffsift.tracking.specification import TrackingSpecification

__all__ = ["Specification", "load_specification"]

ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,29}$")]
"""What a further model goes by in candidates, and a further data set in tables."""

MAIN = BackboneName.MAIN.value
"""Name of the main model, and of the main data set."""

_SHARED = ("device", "batch_size", "noise_seed")
"""Fields of `model` that hold for all models."""

Level = Annotated[int, Field(ge=0, strict=True)] | Annotated[float, Field(gt=0, lt=1, strict=True)]
"""A noise level: a timestep, or a share of all noise levels."""

_RUNTIME_FIELDS: dict[str, tuple[str, ...]] = {
    "model": ("device", "batch_size"),
    "bank": ("budget_gb",),
    "study": ("storage", "trials", "timeout", "workers", "rerank", "rerank_probe"),
    "tracking": tuple(TrackingSpecification.model_fields),
}

_LATER_FIELDS: dict[str, dict[str, Any]] = {
    "model": {"kind": "diffusers", "options": {}},
    "filters": {"further": []},
}
"""Identity fields with their defaults that older versions did not have; at the default they are left out of it."""


class Specification(BaseModel):
    """A search: model, data and task, what may be chosen, how it is scored, searched and tracked.

    The fields in `identity` identify a study and may not change on resume; those in `runtime` may.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["ddpm-segmentation", "dift", "probe3d"] | None = Field(
        default=None, description="a protocol of the literature that sets fields which are not given"
    )
    model: ModelSpecification
    further_models: dict[ShortName, ModelSpecification] = Field(
        default={}, description="other models in the same search, by a short name"
    )
    joint: JointSpecification = JointSpecification()
    data: DataSpecification
    further_data: dict[ShortName, DataSpecification] = Field(
        default={}, description="other data sets of the same task, by a short name; the score is the mean over all"
    )
    task: AnyTaskSpecification = TaskSpecification()
    timesteps: tuple[Level, ...] = Field(
        default=(50, 150, 300),
        min_length=1,
        description="noise levels, 0 (clean) to 999, or shares of the model's noise levels such as 0.15",
    )
    filters: FilterSpecification = FilterSpecification()
    limits: LimitsSpecification = LimitsSpecification()
    bank: BankSpecification = BankSpecification()
    probe: ProbeSpecification = ProbeSpecification()
    study: StudySpecification
    tracking: TrackingSpecification = TrackingSpecification()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Set what a protocol sets, give further models what holds for all, and refuse what contradicts either."""
        if not isinstance(values, dict):
            return values
        values = with_protocol(renamed(values))
        if not isinstance(values.get("further_models"), dict):
            return values
        main = values.get("model")
        given = main if isinstance(main, dict) else {}
        shared = {name: given.get(name, ModelSpecification.model_fields[name].default) for name in _SHARED}
        completed = {}
        for name, model in values["further_models"].items():
            if is_reserved(str(name)):
                raise ValueError(f"further_models must not use the names {', '.join(BackboneName)}, but has {name!r}")
            if isinstance(model, dict):
                for field in _SHARED:
                    if model.get(field, shared[field]) != shared[field]:
                        raise ValueError(
                            f"further_models.{name}.{field} must not differ from model.{field}, which holds for all"
                        )
                model = {**model, **shared}
            completed[name] = model
        return {**values, "further_models": completed}

    @field_validator("further_data")
    @classmethod
    def _data_have_names(cls, data: dict[str, Any]) -> dict[str, Any]:
        if MAIN in data:
            raise ValueError(f"must not use the name {MAIN}, which is that of data")
        return data

    @model_validator(mode="after")
    def _parts_agree(self) -> Specification:
        taken = sorted(self.variants.keys() & self.further_models.keys())
        if taken:
            raise ValueError(f"further_models must not use a name that joint gives, but has {taken[0]!r}")
        name, most = max(self.noise_draws.items(), key=lambda pair: pair[1])
        if self.limits.passes is not None and self.limits.passes < most:
            raise ValueError(
                f"limits.passes must leave room for every noise draw of each model, each of which is a pass, but is "
                f"{self.limits.passes}, and {name} has {most} (noise_seeds): none of it could be chosen"
            )
        return self

    @property
    def data_sets(self) -> dict[str, DataSpecification]:
        """All data sets by name; the first is ``main``."""
        return {MAIN: self.data, **self.further_data}

    @property
    def models(self) -> dict[str, ModelSpecification]:
        """All models by the name of their backbone; the first is ``main``, and its variants follow it."""
        return {MAIN: self.model, **self.variants, **self.further_models}

    @property
    def variants(self) -> dict[str, ModelSpecification]:
        """What `joint` makes of `model`, by the names of their backbones."""
        return self.joint.variants(MAIN, self.model)

    @property
    def variant_of(self) -> dict[str, str]:
        """The backbone that each variant is one of."""
        return dict.fromkeys(self.variants, MAIN)

    @property
    def noise_draws(self) -> dict[str, int]:
        """How many noise draws each model's features are averaged over: it runs once for each."""
        return {name: model.noise_seeds for name, model in self.models.items()}

    @classmethod
    def parse(cls, values: Any, *, source: str = "specification") -> Specification:
        """Validate a nested mapping.

        Raises:
            SpecificationError: names every field that is wrong, with the closest valid name for an unknown one.
        """
        if not isinstance(values, dict):
            raise SpecificationError(f"{source} must be a mapping of fields, but is a {type(values).__name__}.")
        try:
            found = cls.model_validate(values)
        except ValidationError as error:
            lines = [_explain(entry, values) for entry in error.errors()]
            raise SpecificationError(f"{source}: " + "\n  ".join(dict.fromkeys(lines))) from None
        if len(set(found.timesteps)) < len(found.timesteps):
            raise SpecificationError(f"{source}: timesteps must differ, but got {list(found.timesteps)}.")
        return found

    @classmethod
    def of(cls, values: Specification | Mapping[str, Any], dataset: Dataset | None = None) -> Specification:
        """A specification, or a nested mapping of its fields, with a data set from Python as its data.

        Raises:
            SpecificationError: a field is wrong, or data are named in two places.
        """
        if dataset is None:
            return values if isinstance(values, Specification) else cls.parse(values)
        named = values.data.kind if isinstance(values, Specification) else dict(values.get("data") or {}).get("kind")
        if named not in (None, "python"):
            raise SpecificationError(f"data must be left out, or of kind python, beside dataset=..., but is {named!r}.")
        if isinstance(values, Specification):
            data = PythonSpecification(kind="python", dataset=dataset)
            return values.model_copy(update={"data": data})
        return cls.parse({**values, "data": {"kind": "python", "dataset": dataset}})

    def context(self, workspace: Workspace, reporter: Reporter) -> RunContext:
        """How a run of this study is carried out.

        Args:
            workspace: where things lie.
            reporter: told what is being done.
        """
        return RunContext(
            workspace=workspace,
            seed=self.study.seed,
            noise_seed=self.model.noise_seed,
            batch_size=self.model.batch_size,
            device=self.model.device,
            reporter=reporter,
        )

    def identity(self) -> dict[str, Any]:
        """The fields that identify a study, as JSON."""
        values = self.model_dump(mode="json")
        for part, fields in _RUNTIME_FIELDS.items():
            for field in fields:
                values[part].pop(field, None)
        for model in values["further_models"].values():
            for field in _RUNTIME_FIELDS["model"]:
                model.pop(field, None)
        for part, later in _LATER_FIELDS.items():
            for mapping in (values[part], *(values["further_models"].values() if part == "model" else ())):
                for field, default in later.items():
                    if mapping[field] == default:
                        del mapping[field]
        return values

    def with_runtime(
        self,
        *,
        trials: int | None = None,
        timeout: float | None = None,
        workers: int | None = None,
        storage: str | None = None,
    ) -> Specification:
        """A copy with some fields of `study` replaced; None leaves a field as it is."""
        changes = {"trials": trials, "timeout": timeout, "workers": workers, "storage": storage}
        given = {field: value for field, value in changes.items() if value is not None}
        return self.model_copy(update={"study": StudySpecification(**{**self.study.model_dump(), **given})})


_RENAMED = {"study": {"confirm": "rerank", "confirm_probe": "rerank_probe"}}
"""Fields of older versions and their present names, by part."""


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """A nested mapping with the fields of older versions under their present names."""
    found = dict(values)
    for part, names in _RENAMED.items():
        if isinstance(found.get(part), dict):
            found[part] = {names.get(field, field): value for field, value in found[part].items()}
    return found


def load_specification(path: str | Path) -> Specification:
    """Read a YAML specification. Paths in it are relative to the file.

    Raises:
        SpecificationError: the file cannot be read or parsed, or a field is wrong.
    """
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecificationError(f"{file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = str(error).replace('"<unicode string>"', f'"{file.name}"')
        raise SpecificationError(f"{file} must be YAML, but cannot be parsed: {said}") from error
    specification = Specification.parse(values, source=str(file))
    return _with_resolved_paths(specification, file.resolve().parent)


def _with_resolved_paths(specification: Specification, base: Path) -> Specification:
    update: dict[str, Any] = {}
    update["data"] = _with_resolved_data(specification.data, base)
    update["further_data"] = {
        name: _with_resolved_data(data, base) for name, data in specification.further_data.items()
    }
    update["model"] = _with_resolved_model(specification.model, base)
    update["further_models"] = {
        name: _with_resolved_model(model, base) for name, model in specification.further_models.items()
    }
    return specification.model_copy(update=update)


def _with_resolved_data(data: DataSpecification, base: Path) -> DataSpecification:
    paths = {name: base / value.expanduser() for name, value in data if isinstance(value, Path)}
    return data.model_copy(update=paths)


def _with_resolved_model(model: ModelSpecification, base: Path) -> ModelSpecification:
    local = base / Path(model.id).expanduser()
    update = {"id": str(local)} if (local / "model_index.json").is_file() else {}
    lora = base / Path(model.lora or "").expanduser()
    if model.lora and lora.exists():
        update["lora"] = str(lora)
    return model.model_copy(update=update)


_DATA_KINDS: dict[str, type[BaseModel]] = {
    kind: part
    for part in get_args(get_args(DataSpecification)[0])
    for kind in get_args(part.model_fields["kind"].annotation)
}


def _explain(entry: Any, values: dict[str, Any]) -> str:
    """One validation error in the house's form."""
    # A tagged union puts its tag into the location: it is no field of the user's.
    tags = set(_DATA_KINDS)
    loc = entry["loc"]
    loc = (loc[0], *loc[2:]) if loc[:1] == ("task",) else loc  # the tag of the task's union
    if loc[:1] == ("further_data",):
        path = [str(part) for number, part in enumerate(loc) if number != 2 or part not in tags]
    else:
        path = [str(part) for part in loc if part not in tags]
    name, shown = ".".join(path), _shown_value(entry["input"])
    if entry["type"] == "extra_forbidden":
        return f"{name} is not a field{did_you_mean(path[-1], _fields_at(path[:-1], values))}"
    if entry["type"] == "missing":
        return f"{name} must be given, but is missing."
    if entry["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return f"{name}.kind must be one of {', '.join(sorted(tags))}, but got {_shown(values, [*path, 'kind'])}."
    message = entry["msg"].removeprefix("Value error, ")
    if not path:  # about several fields together: the message names them
        return f"{message}."
    if path[0] == "timesteps" and len(path) > 1:
        name = ".".join(path[:2])
        message = "must be a whole number from 0 on, or a share of noise levels above 0 and below 1"
    elif path == ["study", "name"] and entry["type"] == "string_pattern_mismatch":
        message = "must be letters, digits, dots, dashes and underscores, at most 100, and begin with a letter or digit"
    elif entry["type"] in _CONDITIONS:
        message = _CONDITIONS[entry["type"]].format(**entry.get("ctx", {}))
    elif "but got" in message or not message.startswith("must"):
        return f"{name}: {message}{'' if 'but got' in message else f', but got {shown}'}."
    return f"{name} {message}, but got {shown}."


_CONDITIONS = {
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "path_type": "must be a path",
}
"""What must hold, by pydantic's types of errors."""


def _fields_at(path: list[str], values: dict[str, Any]) -> list[str]:
    if not path:
        return list(Specification.model_fields)
    if path == ["data"]:
        return list(_DATA_KINDS[values["data"]["kind"]].model_fields)
    if path[0] == "further_data":
        return list(_DATA_KINDS[values["further_data"][path[1]]["kind"]].model_fields)
    if path[0] == "further_models":
        return list(ModelSpecification.model_fields)
    if path == ["task"]:
        return list(task_model(values["task"].get("kind", "segmentation")).model_fields)
    part: Any = Specification.model_fields[path[0]].annotation
    return list(part.model_fields)


def _shown(values: Any, path: list[str]) -> str:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return "nothing" if values is None else repr(values)


def _shown_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
