"""Several processes on one study: those that its leader starts, and those that join it by ``diffsift worker``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from threadpoolctl import threadpool_limits

from diffsift.bank import Bank, measured_similarity
from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.common.workspace import STORAGE_VARIABLE
from diffsift.errors import SpecificationError, StudyError
from diffsift.objectives import make_objective
from diffsift.search import SearchLoop, SearchSpace, TrialStore
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

from .prepare import search_space

_GRACE = 2.0
"""Seconds that workers get to give back what they evaluate, before they are killed; nothing is lost then either."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

_ONLY_HERE = (
    "other processes cannot open data that are in Python alone; data from files or a list (CSV, JSON) they can."
)


def join(
    study: str,
    *,
    workspace: str | Path | None = None,
    storage: str | None = None,
    leader: int | None = None,
    reporter: Reporter | None = None,
) -> None:
    """Evaluate selections of a study that was started by `select`, until as many as it asks for are finished.

    Neither model nor images are loaded: what the study's leader wrote to the workspace at its last start is enough. The
    test split stays closed, and loggers are left to the leader or the next ``diffsift resume``.

    Args:
        study: name.
        workspace: folder of the study's bank.
        storage: SQLAlchemy URL of the study database, where it is not in the workspace.
        leader: number of the process that started this one; when that has ended, this one ends too.
        reporter: told what is being done; default: see `select`.

    Raises:
        StudyError: there is no such study.
        BankError: what the leader wrote cannot be used.
        SpecificationError: the study's data are in Python alone.
    """
    reporter = reporter or LoggingReporter()
    with threadpool_limits(1), StudyStore.existing(workspace, storage, reporter, study=study) as store:
        specification = store.specification(study)
        if _only_here(specification):
            raise SpecificationError(_ONLY_HERE)
        context = specification.context(store.workspace, reporter)
        objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
        bank = store.shared_bank(specification, context)
        space = _space(store, specification, bank)
        context.reporter.info(
            "worker", f"process {os.getpid()} evaluates selections of {len(space.pool)} candidates in study {study}"
        )
        loop = SearchLoop(
            TrialStore(store.url, specification.study, space, store.ledger),
            objective.probe(bank),
            similarity=measured_similarity(bank, space.pool),
            seed_stream=uuid.uuid4().int % 2**31,
            reporter=context.reporter,
        )
        loop.run(
            specification.study.trials,
            timeout=specification.study.timeout,
            has_peers=True,
            stop=lambda: leader is not None and os.getppid() != leader,
        )
        done = store.ledger.evaluated(study)
        context.reporter.info("worker", f"study {study} has {done} of {specification.study.trials} selections")


@contextmanager
def spawned_workers(specification: Specification, store: StudyStore, reporter: Reporter) -> Iterator[None]:
    """Run `study.workers` - 1 other processes on a study inside the ``with`` block.

    A worker that fails or is killed is reported at the end; its pending selection is evaluated by another process.
    Each process, this one too, computes on one thread.

    Args:
        specification: the study's fields.
        store: the study's databases; the study exists already.
        reporter: gets the processes' numbers, and a warning for each that failed.

    Yields:
        Nothing, while the processes run; they are ended after the block.
    """
    count = specification.study.workers - 1
    if not count:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        started = [_Worker.start(specification, store, stack) for _ in range(count)]
        numbers = ", ".join(str(worker.process.pid) for worker in started)
        reporter.info("workers", f"{count + 1} processes: this one and {numbers}")
        try:
            yield
        finally:
            failed = [worker for worker in started if worker.process.poll() not in (None, 0)]
            _end(started)
            for worker in failed:
                reporter.warning(worker.failure())


def refuse_workers(specification: Specification) -> None:
    """Refuse several workers where only this process has the data.

    Args:
        specification: the study's fields.

    Raises:
        SpecificationError: `study.workers` is above 1 and the data are in Python.
    """
    if specification.study.workers > 1 and _only_here(specification):
        raise SpecificationError(
            f"study.workers must be 1 with data from Python, but got {specification.study.workers}: {_ONLY_HERE}"
        )


def _end(workers: Sequence[_Worker]) -> None:
    """End all of them, within the time that one gets."""
    for worker in workers:
        worker.process.terminate()
    ends = time.monotonic() + _GRACE
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, ends - time.monotonic()))
        worker.process.kill()
        worker.process.wait()


def _only_here(specification: Specification) -> bool:
    return any(data.kind == "python" for data in specification.data_sets.values())


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @classmethod
    def start(cls, specification: Specification, store: StudyStore, stack: ExitStack) -> _Worker:
        name = specification.study.name
        output = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        command = [sys.executable, "-m", "diffsift", "worker", name, "--workspace", str(store.workspace.folder)]
        command += ["--leader", str(os.getpid())]
        # The URL may hold a password, and arguments are seen by all users of a machine.
        storage = {} if store.storage is None else {STORAGE_VARIABLE: store.storage}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ONE_THREAD, **storage},
            start_new_session=True,  # Ctrl-C comes to the leader, which hands it on once
        )
        return cls(process, output)

    def failure(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return f"worker {self.process.pid} ended early (status {self.process.returncode}){said}"


def _space(store: StudyStore, specification: Specification, bank: Bank) -> SearchSpace:
    name = specification.study.name
    row = store.row(name)
    missing = [candidate for candidate in row.candidates if candidate not in bank]
    if missing or not row.candidates:
        raise StudyError(
            f"all {len(row.candidates)} candidates of study {name!r} must be in the file that its leader wrote, "
            f"but {len(missing)} are not: 'diffsift resume' writes it again."
        )
    return search_space(specification, bank, row.candidates, row.operations)
