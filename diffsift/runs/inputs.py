"""What a specification names, looked at before anything heavy is imported: folders, first images, models, timesteps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from diffsift.backbones.folders import check_model_folder, check_parts, parts_of, read_index
from diffsift.datasets.specification import PythonSpecification, RenderedScenesSpecification
from diffsift.errors import DataError, SpecificationError
from diffsift.specification import Specification

if TYPE_CHECKING:
    from diffsift.datasets import Dataset, Split


def check_inputs(specification: Specification) -> None:
    """Refuse folders that do not exist and files that are not what they should be, as far as a first look tells.

    The data's folders are listed, and the first image of each split is read with its label. A search looks at
    everything later; this answers the commonest mistakes at once.

    Args:
        specification: of the study, with resolved paths.

    Raises:
        DataError: data are missing, or the first image or label cannot be used.
        ModelError: a model is named by a folder that is no pipeline.
        SpecificationError: a timestep is beyond those of a model in a folder, or the data have labels of another task.
    """
    for model in specification.models.values():
        if getattr(model, "kind", "diffusers") != "diffusers":
            continue  # a registered kind of backbone says itself what its id means
        check_model_folder(model.id)
        folder = Path(model.id).expanduser()
        if folder.is_dir():
            check_parts(folder, parts_of(read_index(folder)))
            _check_timesteps(specification, folder)
    for name, data in specification.data_sets.items():
        if isinstance(data, RenderedScenesSpecification | PythonSpecification):
            continue
        from diffsift.datasets.opening import open_dataset

        field = "data" if data is specification.data else f"further_data.{name}"
        try:
            _look_at(open_dataset(data, specification.task.kind))
        except DataError as error:
            raise DataError(f"{field}: {error}") from error


def _look_at(dataset: Dataset) -> None:
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        samples = dataset.split(split)
        if len(samples):
            _ = samples[0]


def _check_timesteps(specification: Specification, folder: Path) -> None:
    """Refuse timesteps that the scheduler of a pipeline in a folder was not trained with."""
    try:
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        count = int(scheduler["num_train_timesteps"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # the pipeline itself will tell
    for number, level in enumerate(specification.timesteps):
        if isinstance(level, int) and level >= count:
            raise SpecificationError(
                f"timesteps.{number} (counted from 0): timestep must be in [0, {count - 1}], but got {level}."
            )
