"""The bank among processes: locks, kills, and what is told of a bank's folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import SoftFileLock
from support import ROOT, tiny
from support.reporters import Recorder

from diffsift.backbones import Activation, PipelineBackbone
from diffsift.bank import Bank, BankSpecification, DevelopmentSet, clean, inventory, removals
from diffsift.bank import _bank as bank_module
from diffsift.bank._lock import EntryLock
from diffsift.common.context import RunContext
from diffsift.common.reporting import NullReporter, Reporter
from diffsift.datasets import FolderSpecification
from diffsift.errors import BankError
from diffsift.objectives import ProbeSpecification, SegmentationObjective, TaskSpecification
from diffsift.spaces import Candidate

SPECIFICATION = BankSpecification(pixels_per_image=16, max_channels=12, fit_images=3)
TIMESTEPS = (50, 300)


def development_of(data: Path) -> DevelopmentSet:
    specification = FolderSpecification(
        kind="folder", images=data / "images", labels=data / "labels", classes=tiny.CLASSES
    )
    return SegmentationObjective(specification, TaskSpecification(), SPECIFICATION, ProbeSpecification()).load()


def bank_of(folder: Path, data: Path, study: str | None = None, reporter: Reporter | None = None) -> Bank:
    context = RunContext(batch_size=1, reporter=reporter or NullReporter())
    return Bank(folder, development_of(data), SPECIFICATION, context, study=study)


def some_of(backbone: PipelineBackbone) -> dict[int, list[Activation]]:
    return {timestep: [entry for entry in backbone.activations() if entry.kind == "cross-q"] for timestep in TIMESTEPS}


def slowed(backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch, on_pass: Callable[[], object]) -> None:
    capture = backbone.capture

    def slow(*arguments: Any, **options: Any) -> Any:
        for found in capture(*arguments, **options):
            on_pass()
            yield found

    monkeypatch.setattr(backbone, "capture", slow)


# Fills a bank, slowly, and says after each pass how many there were.
DRIVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_lock as shared
from diffsift.backbones import ModelSpecification, load
backbone = load(ModelSpecification(id=sys.argv[2], device="cpu"))
capture, passes = backbone.capture, 0
def slow(*arguments, **options):
    global passes
    for found in capture(*arguments, **options):
        yield found
        passes += 1
        print(passes, flush=True)
        time.sleep(float(sys.argv[5]))
backbone.capture = slow
bank = shared.bank_of(Path(sys.argv[4]), Path(sys.argv[3]))
print("filled", bank.fill(backbone, shared.some_of(backbone)), passes, flush=True)
"""


def started(tiny_pipeline: Path, tiny_data: Path, bank: Path, pause: float) -> subprocess.Popen[str]:
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, folder, str(tiny_pipeline), str(tiny_data), str(bank), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.read().splitlines()


def test_a_killed_fill_goes_on_at_the_image_it_stopped_at(
    tiny_pipeline: Path,
    tiny_data: Path,
    tiny_backbone: PipelineBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = 8  # two of them behind those that statistics are fit on
    # Encoded anew, in the batches of this test: another size of batch rounds differently.
    monkeypatch.setattr(tiny_backbone, "latents", None)
    wanted = some_of(tiny_backbone)
    whole = bank_of(tmp_path / "whole", tiny_data)
    whole.fill(tiny_backbone, wanted)
    with started(tiny_pipeline, tiny_data, tmp_path / "bank", 0.2) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < passes:
            pass
        process.send_signal(signal.SIGKILL)
    assert list((tmp_path / "bank").glob("*.lock"))  # the kill left them
    bank, counts = bank_of(tmp_path / "bank", tiny_data), []
    slowed(tiny_backbone, monkeypatch, lambda: counts.append(1))
    entries = sum(map(len, wanted.values()))
    assert bank.fill(tiny_backbone, wanted) == entries
    # The pass that was said last may have been written, or not; none before it runs again.
    assert 2 * len(bank.development.samples) - len(counts) in (passes - 1, passes)
    for timestep, activations in wanted.items():
        for activation in activations:
            candidate = Candidate("main", activation.name, timestep)
            assert np.array_equal(bank[candidate].features, whole[candidate].features)
    assert not list((tmp_path / "bank").glob("*.lock"))


def test_two_processes_extract_every_entry_once(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    images, entries = len(development_of(tiny_data).samples), sum(map(len, some_of(tiny_backbone).values()))
    with (
        started(tiny_pipeline, tiny_data, tmp_path / "bank", 0.05) as first,
        started(tiny_pipeline, tiny_data, tmp_path / "bank", 0.05) as second,
    ):
        ends = [said(process)[-1].split() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum(int(end[1]) for end in ends) == entries
    assert sum(int(end[2]) for end in ends) == 2 * images  # no pass was made twice
    assert len(inventory(tmp_path / "bank")) == entries


def test_an_entry_that_another_process_writes_is_waited_for(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "_POLL", 0.05)
    wanted = {50: some_of(tiny_backbone)[50][:1]}
    bank_of(tmp_path / "elsewhere", tiny_data).fill(tiny_backbone, wanted)
    (entry,) = inventory(tmp_path / "elsewhere")
    lock = EntryLock(tmp_path / "bank" / f"{entry.path.name}.lock")
    recorder = Recorder()
    bank = bank_of(tmp_path / "bank", tiny_data, reporter=recorder)
    assert lock.acquire()
    ended = threading.Timer(0.3, lambda: (entry.path.rename(tmp_path / "bank" / entry.path.name), lock.release()))
    ended.start()
    slowed(tiny_backbone, monkeypatch, lambda: pytest.fail("it was extracted"))
    assert bank.fill(tiny_backbone, wanted) == 0
    assert re.search(rf"process {os.getpid()} on host \S+ is writing entries", " ".join(recorder.lines))
    ended.join()
    assert Candidate("main", wanted[50][0].name, 50) in bank


def held_by(path: Path, **changes: Any) -> None:
    """A lock file as filelock writes it: the number of a process, its host and what tells its start."""
    lock = SoftFileLock(path.with_name("own"))
    with lock:
        pid, host, start = path.with_name("own").read_text().split()
    holder = {"pid": pid, "host": host, "start": start, **changes}
    path.write_text("".join(f"{value}\n" for value in holder.values()))


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    first, second = EntryLock(tmp_path / "a.lock"), EntryLock(tmp_path / "a.lock")
    assert first.acquire()
    assert not second.acquire()
    second.release()  # it is not ours to give back
    assert first.held()
    first.release()
    assert not first.held()
    assert second.acquire()


LIVING = {"another host": {"host": "elsewhere", "pid": 1}, "this process": {}}
DEAD = {"another process of that number": {"start": 1}, "no process": {"pid": 2**22 + 1}}


@pytest.mark.parametrize("holder", LIVING)
def test_the_lock_of_a_process_that_may_live_is_left_alone(tmp_path: Path, holder: str) -> None:
    held_by(tmp_path / "a.lock", **LIVING[holder])
    assert not EntryLock(tmp_path / "a.lock").acquire()


@pytest.mark.parametrize("holder", DEAD)
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path, holder: str) -> None:
    held_by(tmp_path / "a.lock", **DEAD[holder])
    first, second = EntryLock(tmp_path / "a.lock"), EntryLock(tmp_path / "a.lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_without_content_is_taken_over_once_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "a.lock").touch()
    assert not EntryLock(tmp_path / "a.lock").acquire()
    long_ago = time.time() - 60
    os.utime(tmp_path / "a.lock", (long_ago, long_ago))
    assert EntryLock(tmp_path / "a.lock").acquire()


def test_of_many_that_take_over_one_wins(tmp_path: Path) -> None:
    for _ in range(20):
        held_by(tmp_path / "a.lock", start=1)
        locks = [EntryLock(tmp_path / "a.lock") for _ in range(8)]
        ready, won = threading.Barrier(len(locks)), []

        def take(lock: EntryLock, ready: threading.Barrier = ready, won: list[EntryLock] = won) -> None:
            ready.wait()
            if lock.acquire():
                won.append(lock)

        threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1  # none, where each found another about to take over
        for lock in won:
            lock.release()
        (tmp_path / "a.lock").unlink(missing_ok=True)


def test_the_inventory_tells_states_and_studies(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    folder, wanted = tmp_path / "bank", {50: some_of(tiny_backbone)[50][:3]}
    images = len(development_of(tiny_data).samples)
    for study in ("one", "two"):
        bank_of(folder, tiny_data, study=study).fill(tiny_backbone, {50: wanted[50][: 1 if study == "two" else 3]})
    bank_of(folder, tiny_data).fill(tiny_backbone, {300: wanted[50][:1]})
    found = inventory(folder)
    assert {entry.state for entry in found} == {"sound"}
    assert {entry.images for entry in found} == {images}
    assert sorted((entry.timestep, entry.studies) for entry in found) == [
        (50, ("one",)),
        (50, ("one",)),
        (50, ("one", "two")),
        (300, ()),
    ]
    assert sum(entry.size for entry in found) == sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    own, *_ = [entry for entry in found if entry.studies == ("one",)]
    content = bytearray((own.path / "features.bin").read_bytes())
    content[0] ^= 1
    (own.path / "features.bin").write_bytes(content)
    assert {entry.state for entry in inventory(folder)} == {"sound"}
    assert [entry.path for entry in inventory(folder, check=True) if entry.state == "damaged"] == [own.path]


def test_cleaning_removes_what_was_asked_for_and_nothing_else(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    folder, wanted = tmp_path / "bank", {50: some_of(tiny_backbone)[50][:3]}
    bank_of(folder, tiny_data, study="one").fill(tiny_backbone, wanted)
    bank_of(folder, tiny_data, study="two").fill(tiny_backbone, {50: wanted[50][:1]})
    bank_of(folder, tiny_data).fill(tiny_backbone, {300: wanted[50][:2]})
    (folder / "0123456789abcdef").mkdir()  # of an older diffsift
    (folder / "0123456789abcdef" / "features.npy").touch()
    unused = [entry for entry in inventory(folder) if not entry.studies]
    busy = next(entry for entry in unused if entry.timestep == 300)
    lock = EntryLock(folder / f"{busy.path.name}.lock")
    assert lock.acquire()
    clean(removals(inventory(folder), unused=True))
    assert [entry.path for entry in inventory(folder) if not entry.studies] == [busy.path]
    lock.release()
    clean(removals(inventory(folder), study="one"), study="one")
    assert sorted(entry.studies for entry in inventory(folder)) == [(), ("two",)]
    (kept,) = [entry for entry in inventory(folder) if entry.studies]
    content = bytearray((kept.path / "features.bin").read_bytes())
    content[0] ^= 1
    (kept.path / "features.bin").write_bytes(content)
    (busy.path / "entry.json").write_text("{")
    images = kept.images
    steps = removals(inventory(folder, check=True), damaged=True)
    assert sorted(step.part for step in steps) == ["damaged records", "entry"]
    assert clean(steps) == []
    (left,) = inventory(folder, check=True)
    assert (left.path, left.images, left.state) == (kept.path, images - 1, "sound")


@pytest.mark.unchecked
def test_a_budget_is_respected_and_its_advice_fits(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    pool, baselines = some_of(tiny_backbone)[50] * 20, some_of(tiny_backbone)[50][:2]
    development = development_of(tiny_data)
    needed = bank_of(tmp_path / "bank", tiny_data).estimate({50: [*pool, *baselines]})

    def check(budget: float, pixels: int, pool: list[Activation]) -> None:
        specification = SPECIFICATION.model_copy(update={"budget_gb": budget / 1e9, "pixels_per_image": pixels})
        points = np.zeros((len(development.samples), pixels, 2), np.float32)
        changed = DevelopmentSet(**{**vars(development), "points": points})
        bank = Bank(tmp_path / "bank", changed, specification, RunContext(batch_size=1))
        bank.check_budget(pool, baselines)

    check(needed, 16, pool)
    with pytest.raises(BankError, match=r"the bank needs 0\.\d+ GB, budget 0\.\d+ GB: lower bank") as error:
        check(0.8 * needed, 16, pool)
    words = str(error.value).split()
    pixels = int(words[words.index("bank.pixels_per_image") + 2])
    fitting = int(words[words.index("pool") + 2])
    assert 1 <= pixels < 16
    assert 1 <= fitting < len(pool)
    check(0.8 * needed, pixels, pool)
    widest = sorted(pool, key=lambda entry: -entry.channels)
    check(0.8 * needed, 16, widest[:fitting])
    with pytest.raises(BankError):
        check(0.8 * needed, pixels + 1, pool)
    with pytest.raises(BankError):
        check(0.8 * needed, 16, widest[: fitting + 1])
    with pytest.raises(BankError, match=r"or raise bank\.budget_gb"):
        check(1, 16, pool)


@pytest.mark.skipif(sys.platform != "linux", reason="zombies are looked up in /proc")
def test_a_lock_of_a_process_that_its_parent_has_not_collected_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "entry.lock"
    program = "import sys; from filelock import SoftFileLock as L; l = L(sys.argv[1]); l.acquire(); print(); input()"
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    lock = EntryLock(file)
    assert not lock.acquire()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert lock.acquire()
    lock.release()
    child.communicate()
