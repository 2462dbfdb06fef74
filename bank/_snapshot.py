"""What a process needs to score selections on a bank that another one has filled, without images or backbones.

One safetensors file per study: the development set's arrays, the images' digests, which entry's folder holds which
candidate, and a checksum over all of it. It is derived data: the leader of a study rewrites it at each start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diffsift.common.files import write_atomically
from diffsift.datasets import Sample
from diffsift.errors import BankError
from diffsift.spaces import Candidate

from .development import DevelopmentSet, Matching

FORMAT = 4

Array = Shaped[np.ndarray, "..."]
_ARRAYS = ("points", "labels", "weights", "fold", "training")
_MATCHING = ("pairs", "rows", "sizes", "boxes")


@dataclass(frozen=True)
class Snapshot:
    """A development set without its images, their digests, and the folder's name of each candidate's entry."""

    development: DevelopmentSet
    digests: list[bytes]
    folders: dict[Candidate, str]


class NoSamples:
    """Stands for images that are not here."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        raise BankError("a reopened bank holds no images, but one was indexed.")


def write_snapshot(
    path: Path, development: DevelopmentSet, digests: Sequence[bytes], folders: Mapping[Candidate, str]
) -> None:
    """Write or replace a snapshot, in one step.

    Raises:
        BankError: it cannot be written.
    """
    arrays = _arrays(development, "")
    arrays["digests"] = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
    about = {
        "format": FORMAT,
        "development": _about(development),
        "entries": [[*_fields(candidate), folder] for candidate, folder in folders.items()],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(about)
        write_atomically(path, save(arrays, {"snapshot": text, "sha256": _checksum(text, arrays)}))
    except (OSError, SafetensorError) as error:
        raise BankError(f"{path}, which other workers of the study need, cannot be written: {error}.") from error


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot.

    Raises:
        BankError: there is none, or it is not what this diffsift writes.
    """
    if not path.is_file():
        raise BankError(f"a worker needs {path}, but there is none: 'diffsift resume' writes it.")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            about = json.loads(metadata["snapshot"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["format"] != FORMAT:
            _refuse(path, f"its format is {about['format']}, not {FORMAT}")
        if metadata["sha256"] != _checksum(metadata["snapshot"], arrays):
            _refuse(path, "it is damaged: its SHA-256 differs")
        development = _development(about["development"], arrays, "")
        folders = {Candidate(*fields): folder for *fields, folder in about["entries"]}
        return Snapshot(development, [row.tobytes() for row in arrays["digests"]], folders)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        _refuse(path, str(error))


def _checksum(text: str, arrays: Mapping[str, Array]) -> str:
    """SHA-256 of the fields and of every array with its name, type and shape."""
    checksum = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        checksum.update(f"{name} {array.dtype} {array.shape}".encode())
        checksum.update(np.ascontiguousarray(array).tobytes())
    return checksum.hexdigest()


def _arrays(development: DevelopmentSet, prefix: str) -> dict[str, Array]:
    """The arrays of a development set, and those of its members under their number."""
    found = {f"{prefix}{name}": np.ascontiguousarray(getattr(development, name)) for name in _ARRAYS}
    if development.matching is not None:
        for name in _MATCHING:
            found[f"{prefix}matching.{name}"] = np.ascontiguousarray(getattr(development.matching, name))
    for number, member in enumerate(development.members):
        found |= _arrays(member, f"{prefix}{number}.")
    return found


def _about(development: DevelopmentSet) -> dict[str, Any]:
    """The fields of a development set that are no arrays, as JSON."""
    return {
        "class_names": development.class_names,
        "groups": development.groups,
        "identity": development.identity,
        "pooled": development.pooled,
        "grid": None if development.matching is None else development.matching.grid,
        "has_prompts": development.has_prompts,
        "members": [_about(member) for member in development.members],
    }


def _development(about: Mapping[str, Any], arrays: Mapping[str, Array], prefix: str) -> DevelopmentSet:
    """The inverse of `_arrays` and `_about`, without images."""
    matching = None
    if about["grid"] is not None:
        matching = Matching(grid=about["grid"], **{name: arrays[f"{prefix}matching.{name}"] for name in _MATCHING})
    own: dict[str, Any] = {name: arrays[f"{prefix}{name}"] for name in _ARRAYS}
    return DevelopmentSet(
        samples=NoSamples(len(own["points"])),
        groups=tuple(about["groups"]),
        class_names=tuple(about["class_names"]),
        identity=about["identity"],
        **own,
        matching=matching,
        pooled=about["pooled"],
        has_prompts=about["has_prompts"],
        members=tuple(
            _development(member, arrays, f"{prefix}{number}.") for number, member in enumerate(about["members"])
        ),
    )


def _fields(candidate: Candidate) -> tuple[str, str, int]:
    return candidate.backbone, candidate.activation, candidate.timestep


def _refuse(path: Path, why: str) -> NoReturn:
    raise BankError(f"{path} cannot be used ({why}): 'diffsift resume' writes it again.")
