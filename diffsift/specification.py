"""The specification of a search, composed of each folder's part."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from diffsift.backbones import JointSpecification, ModelSpecification
from diffsift.backbones.names import BackboneName, is_reserved
from diffsift.bank import BankSpecification
from diffsift.datasets import DATASETS, DataKind, DataSpecification, PythonSpecification
from diffsift.errors import SpecificationError
from diffsift.mistakes import explain, shown
from diffsift.objectives import AnyTaskSpecification, ProbeSpecification, TaskSpecification
from diffsift.objectives.specification import task_model
from diffsift.protocols import with_protocol
from diffsift.renamed_fields import renamed
from diffsift.search import StudySpecification
from diffsift.spaces import FilterSpecification, LimitsSpecification
from diffsift.tracking.specification import TrackingSpecification

if TYPE_CHECKING:
    from diffsift.common.context import RunContext
    from diffsift.common.reporting import Reporter
    from diffsift.common.workspace import Workspace
    from diffsift.datasets import Dataset

__all__ = ["Specification", "with_stored_paths"]

ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,29}$")]
"""Name of a further model in candidates, or of a further data set in tables."""

MAIN = BackboneName.MAIN.value
"""Name of the main model and of the main data set."""

_SHARED = ("device", "batch_size", "noise_seed")
"""Fields of `model` that hold for all models."""

Level = Annotated[int, Field(ge=0, strict=True)] | Annotated[float, Field(gt=0, lt=1, strict=True)]
"""A noise level: a timestep, or a share of all noise levels."""

_RUNTIME_FIELDS: dict[str, tuple[str, ...]] = {
    "data": ("allow_absent_classes",),  # a refusal or none: it changes no score
    "model": ("device", "batch_size"),
    "bank": ("budget_gb",),
    "study": ("storage", "trials", "timeout", "workers", "rerank", "rerank_probe", "random_weights"),
    "tracking": tuple(TrackingSpecification.model_fields),
}

_LATER_FIELDS: dict[str, dict[str, Any]] = {
    "data": {"label_suffix": "", "palette": None, "exif": "turn", "depth_limit": None},
    "model": {"kind": "diffusers", "options": {}, "vae_tiling": False},
    "filters": {"further": []},
}
"""Identity fields with their defaults that older versions did not have; at the default they are left out of it."""


class Specification(BaseModel):
    """A search: model, data and task, what may be chosen, how it is scored, searched and tracked.

    Fields in `identity` identify a study: they may not change when it is resumed. All others (device, batch sizes,
    trials, workers, trackers) may. ``docs/specification.md`` describes every field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["ddpm-segmentation", "dift", "probe3d"] | None = Field(
        default=None, description="a published protocol; it sets fields that are not given"
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
        description="noise levels, 0 (clean) to 999, or fractions of the model's noise levels such as 0.15",
    )
    filters: FilterSpecification = FilterSpecification()
    limits: LimitsSpecification = LimitsSpecification()
    bank: BankSpecification = BankSpecification()
    probe: ProbeSpecification = ProbeSpecification()
    study: StudySpecification
    tracking: TrackingSpecification = TrackingSpecification()
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Set what a protocol sets, give further models what holds for all, and refuse what contradicts either."""
        if not isinstance(values, dict):
            return values
        values = with_protocol(renamed(values)[0])
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
            raise ValueError(f"must not use the name {MAIN}, which stands for data")
        return data

    @model_validator(mode="after")
    def _parts_agree(self) -> Specification:
        taken = sorted(self.variants.keys() & self.further_models.keys())
        if taken:
            raise ValueError(f"further_models must not use a name that joint gives, but has {taken[0]!r}")
        name, most = max(self.noise_draws.items(), key=lambda pair: pair[1])
        if self.limits.passes is not None and self.limits.passes < most:
            raise ValueError(
                f"limits.passes must be at least the noise draws of each model, because each draw is a pass, but is "
                f"{self.limits.passes}, and {name} has {most} (noise_seeds): none of its activations could be chosen"
            )
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, such as on fields under the names of older versions."""
        return self._notes

    @property
    def data_sets(self) -> dict[str, DataKind]:
        """All data sets by name; the first is ``main``."""
        return {MAIN: self.data, **self.further_data}

    @property
    def models(self) -> dict[str, ModelSpecification]:
        """All models by the name of their backbone: ``main``, its variants, and further models."""
        return {MAIN: self.model, **self.variants, **self.further_models}

    @property
    def variants(self) -> dict[str, ModelSpecification]:
        """The variants of `model` that `joint` describes, by the names of their backbones."""
        return self.joint.variants(MAIN, self.model)

    @property
    def variant_of(self) -> dict[str, str]:
        """For each variant, the backbone that it is a variant of."""
        return dict.fromkeys(self.variants, MAIN)

    @property
    def noise_draws(self) -> dict[str, int]:
        """Noise draws per model: it runs once for each draw, and its features are averaged over them."""
        return {name: model.noise_seeds for name, model in self.models.items()}

    @classmethod
    def parse(cls, values: Any, *, source: str = "specification") -> Specification:
        """Validate a nested mapping.

        Args:
            values: fields by part, as YAML gives them; names of older versions are understood.
            source: where they come from, with which messages begin.

        Returns:
            The specification, with paths as they are given.

        Raises:
            SpecificationError: names every field that is wrong, with the closest valid name for an unknown one.
        """
        if not isinstance(values, dict):
            raise SpecificationError(f"{source} must be a mapping of fields, but {shown(values)}.")
        present, notes = renamed(values)
        try:
            found = cls.model_validate(present)
        except ValidationError as error:
            lines = explain(error, present, partial(_fields_at, present))
            raise SpecificationError(f"{source}: " + "\n  ".join(lines)) from None
        if len(set(found.timesteps)) < len(found.timesteps):
            raise SpecificationError(f"{source}: timesteps must differ, but got {list(found.timesteps)}.")
        found._notes = notes
        return found

    @classmethod
    def of(cls, values: Specification | Mapping[str, Any], dataset: Dataset | None = None) -> Specification:
        """A specification, or a nested mapping of its fields, with a data set from Python as its data.

        Args:
            values: the specification, or a nested mapping of its fields. Relative paths are relative to the current
                folder.
            dataset: in the place of `data`; default: none.

        Returns:
            The specification with resolved paths.

        Raises:
            SpecificationError: a field is wrong, or data are named in two places.
        """
        return cls._with_dataset(values, dataset).with_resolved_paths(Path.cwd())

    @classmethod
    def _with_dataset(cls, values: Specification | Mapping[str, Any], dataset: Dataset | None) -> Specification:
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
            workspace: folder of bank, databases and reports.
            reporter: receives lines, warnings and progress.

        Returns:
            Workspace and reporter as given; seeds, batch size and device of the specification.
        """
        from diffsift.common.context import RunContext

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
        further = {"model": values["further_models"].values(), "data": values["further_data"].values()}
        for part, alike in further.items():
            for mapping in alike:
                for field in _RUNTIME_FIELDS[part]:
                    mapping.pop(field, None)
        for part, later in _LATER_FIELDS.items():
            for mapping in (values[part], *further.get(part, ())):
                for field, default in later.items():
                    if field in mapping and mapping[field] == default:
                        del mapping[field]
        return values

    def with_resolved_paths(self, base: Path) -> Specification:
        """A copy in which every path is absolute, without ``..`` and links, so that equal folders are written alike.

        Args:
            base: folder that relative paths are relative to.

        Returns:
            The copy. A model that is a hub id, not a folder, stays as it is.
        """

        def data(part: DataKind) -> DataKind:
            paths = {name: _resolved(base, value) for name, value in part if isinstance(value, Path)}
            return part.model_copy(update=paths)

        def model(part: ModelSpecification) -> ModelSpecification:
            update, local, lora = {}, _resolved(base, part.id), _resolved(base, part.lora or "")
            if (local / "model_index.json").is_file():
                update["id"] = str(local)
            if part.lora and lora.exists():
                update["lora"] = str(lora)
            return part.model_copy(update=update)

        parts = {
            "data": data(self.data),
            "further_data": {name: data(part) for name, part in self.further_data.items()},
            "model": model(self.model),
            "further_models": {name: model(part) for name, part in self.further_models.items()},
        }
        return self.model_copy(update=parts)

    def with_runtime(
        self,
        *,
        trials: int | None = None,
        timeout: float | None = None,
        workers: int | None = None,
        storage: str | None = None,
    ) -> Specification:
        """A copy with some fields of `study` replaced.

        Args:
            trials: total number of distinct selections to evaluate; None: unchanged, as for the others.
            timeout: seconds after which no new trial starts.
            workers: processes that evaluate selections.
            storage: SQLAlchemy URL of the study database.

        Returns:
            The copy; the values are checked as those of a file are.
        """
        changes = {"trials": trials, "timeout": timeout, "workers": workers, "storage": storage}
        given = {field: value for field, value in changes.items() if value is not None}
        return self.model_copy(update={"study": StudySpecification(**{**self.study.model_dump(), **given})})


def with_stored_paths(identity: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """An identity in which paths are written as in a stored one where both lead to the same file.

    Older versions stored paths as the user wrote them.

    Args:
        identity: of `Specification.identity`.
        stored: the identity of a study.
    """

    def same(new: Any, old: Any) -> Any:
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            return {key: same(value, old.get(key)) for key, value in new.items()}
        if not (isinstance(new, str) and isinstance(old, str) and Path(new).is_absolute() and Path(old).is_absolute()):
            return new
        return old if Path(new).resolve() == Path(old).resolve() else new

    return {key: same(value, stored.get(key)) for key, value in identity.items()}


def _resolved(base: Path, path: str | Path) -> Path:
    """The absolute path; refused where no file can be called so, because it is too long or holds a zero byte."""
    try:
        found = (base / Path(path).expanduser()).resolve()
        found.exists()
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SpecificationError(
            f"a path must be one that this machine can have, but {shown(str(path))} ({why})."
        ) from error
    return found


def _fields_at(values: Any, path: tuple[str, ...]) -> list[str]:
    """Names that a mapping in a specification may have: the fields at a path, or the kinds of data at one to a kind."""
    if not path:
        return list(Specification.model_fields)
    part, inside = path[0], path[1:]
    given = values.get(part)
    if part in ("further_models", "further_data") and inside:
        given, inside = given.get(inside[0]), inside[1:]
    kind = given.get("kind") if isinstance(given, dict) else None
    if part in ("data", "further_data"):
        if not isinstance(kind, str) or kind not in DATASETS:
            return sorted(DATASETS.names()) if inside else ["kind"]
        return list(DATASETS[kind].model_fields)
    if part in ("model", "further_models"):
        return list(ModelSpecification.model_fields)
    if part == "task":
        return list(task_model(str(kind or "segmentation")).model_fields)
    return list(getattr(Specification.model_fields[part].annotation, "model_fields", ()))
