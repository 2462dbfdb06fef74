"""The results of a finished study as its workspace keeps them: the report is written again without another test."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from diffsift.common.files import write_atomically
from diffsift.errors import StudyError

from .records import Outcome
from .report import ActivationPicture, PredictionPicture, ReportPictures

_FORMAT = 1


@dataclass(frozen=True)
class StudyResults:
    """What the final test of a study found, with the pictures of its report.

    Attributes:
        outcome: everything that the search says.
        pictures: shown besides the tables.
        tested: names what was tested: the trials that there were and how one of them was chosen.
    """

    outcome: Outcome
    pictures: ReportPictures
    tested: str

    def save(self, file: Path) -> str:
        """Write the results in one step.

        Args:
            file: an ``.npz`` file; its folder is made.

        Returns:
            SHA-256 of the file, which `load` asks for.

        Raises:
            OSError: the file cannot be written.
        """
        shown = self.pictures
        arrays: dict[str, Any] = {"image": shown.image} if shown.image is not None else {}
        arrays |= {f"activation.{index}": picture.rgb for index, picture in enumerate(shown.activations)}
        for index, picture in enumerate(shown.predictions):
            arrays |= {f"prediction.{index}.{part}": pixels for part, pixels in vars(picture).items()}
        about = {
            "format": _FORMAT,
            "tested": self.tested,
            "outcome": asdict(self.outcome),
            "activations": [
                {"name": entry.name, "timestep": entry.timestep, "kept": entry.kept} for entry in shown.activations
            ],
            "predictions": len(shown.predictions),
        }
        content = io.BytesIO()
        np.savez_compressed(content, about=np.array(json.dumps(about)), **arrays)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content.getvalue())
        return hashlib.sha256(content.getvalue()).hexdigest()

    @classmethod
    def load(cls, file: Path, sha256: str) -> StudyResults:
        """Read what `save` wrote.

        Args:
            file: the ``.npz`` file.
            sha256: that the ledger recorded.

        Returns:
            The results.

        Raises:
            StudyError: the file is missing or another one, or a newer diffsift wrote it.
        """
        try:
            content = file.read_bytes()
        except OSError as error:
            raise StudyError(f"the results {file} cannot be read: {error.strerror or error}.") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StudyError(f"the results {file} must be those that the study recorded, but were changed.")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls._parsed(json.loads(str(arrays["about"])), arrays)
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile, ValidationError) as error:
            raise StudyError(
                f"the results {file} must be of this version of diffsift, but cannot be read ({type(error).__name__})."
            ) from error

    @classmethod
    def _parsed(cls, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> StudyResults:
        if about["format"] != _FORMAT:
            raise ValueError("another format")
        pictures = ReportPictures(
            image=arrays.get("image"),
            activations=[
                ActivationPicture(rgb=arrays[f"activation.{index}"], **entry)
                for index, entry in enumerate(about["activations"])
            ],
            predictions=[
                PredictionPicture(*(arrays[f"prediction.{index}.{part}"] for part in ("image", "label", "prediction")))
                for index in range(about["predictions"])
            ],
        )
        return cls(TypeAdapter(Outcome).validate_python(about["outcome"]), pictures, about["tested"])
