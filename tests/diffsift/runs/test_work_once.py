"""A whole search decodes each image, hashes each file and loads each model once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from support import tiny

import diffsift
from diffsift.datasets import SeedSplit, SegmentationFiles, SegmentationFolder, _cache, _files, _image_files


class Work:
    """Decoded files, hashed files and loaded models, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded, self.hashed, self.loaded = Counter[str](), Counter[str](), Counter[str]()
        decode, digest, load = _image_files.decoded, hashlib.file_digest, DiffusionPipeline.from_pretrained.__func__

        @contextmanager
        def decoded(path: Path, role: str) -> Iterator[Any]:
            self.decoded[f"{role} {path.name}"] += 1
            with decode(path, role) as picture:
                yield picture

        def file_digest(file: Any, name: Any) -> Any:
            self.hashed[file.name] += 1
            return digest(file, name)

        def from_pretrained(cls: type, source: Any, **options: Any) -> Any:
            self.loaded[str(source)] += 1
            return load(cls, source, **options)

        monkeypatch.setattr(_image_files, "decoded", decoded)
        monkeypatch.setattr(hashlib, "file_digest", file_digest)
        monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(from_pretrained))

    def of_data(self, folder: Path) -> Counter[str]:
        """How often each file of the data was hashed."""
        return Counter({name: count for name, count in self.hashed.items() if str(folder) in name})


def search(pipeline: Path, data: Path, folder: Path) -> diffsift.Result:
    values = tiny.specification(
        pipeline, data, study={"trials": 3, "rerank": 1}, task={"kind": "segmentation", "folds": 2}
    )
    return diffsift.select(values, workspace=folder / "workspace", out=folder / "selection.json")


def test_a_search_decodes_and_hashes_each_file_once(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(monkeypatch)
    search(tiny_pipeline, tiny_data, tmp_path)
    assert set(work.decoded.values()) == {1}
    assert len(work.decoded) == 2 * tiny.IMAGES  # images and masks, those of the test split too
    assert set(work.of_data(tiny_data).values()) == {1}
    assert len(work.of_data(tiny_data)) == 2 * tiny.IMAGES
    assert work.loaded == {str(tiny_pipeline): 1}


def test_data_beyond_the_cache_are_decoded_once_per_pass(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes over development images: the check, the locations with their digests, and one for each network that the
    bank is filled with: the model, the two controls and the network with random weights; the first eight also for the
    room that the results need. Of test images: the check and the final test.
    """
    monkeypatch.setattr(_files, "SampleCache", partial(_cache.SampleCache, 0))
    work = Work(monkeypatch)
    search(tiny_pipeline, tiny_data, tmp_path)
    images = {name.removeprefix("image "): count for name, count in work.decoded.items() if name.startswith("image")}
    files = SegmentationFiles(tiny_data / "images", tiny_data / "labels")
    test = SegmentationFolder(files, tiny.CLASSES, SeedSplit((0.6, 0.0, 0.4))).split("test")
    assert {count for name, count in images.items() if Path(name).stem in test.names} == {2}
    assert {count for name, count in images.items() if Path(name).stem not in test.names} == {7}
    assert set(work.of_data(tiny_data).values()) == {1}


def test_an_objective_tells_its_protocol_without_reading(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SegmentationFiles(tiny_data / "images", tiny_data / "labels")
    data = SegmentationFolder(files, tiny.CLASSES, SeedSplit())
    work = Work(monkeypatch)
    data.check()
    assert [data.identity() for _ in range(3)] == [data.identity()] * 3
    assert set(work.hashed.values()) == {1}
    assert not data.has_prompts
    for sample in data.split("train"):
        assert not sample.image.flags.writeable, "an array that several passes share cannot be changed"
    assert set(work.decoded.values()) == {1}
