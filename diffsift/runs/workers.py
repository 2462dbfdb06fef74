"""Several processes on one study: those that its leader starts, and those that join it by ``diffsift worker``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from threadpoolctl import threadpool_limits

from diffsift.bank import Bank, similarity
from diffsift.errors import SpecificationError, StudyError
from diffsift.objectives import make_objective
from diffsift.search import SearchSpace, SearchStudy
from diffsift.specification import Specification
from diffsift.stored_study import stored_specification
from diffsift.tracking import Ledger, open_database
from diffsift.workspace import Workspace

from .prepare import Say, search_space

_PATIENCE = 15.0
"""Seconds that a worker gets to give back what it evaluates, before it is killed; nothing is lost then either."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def join(
    study: str,
    *,
    workspace: str | Path | None = None,
    storage: str | None = None,
    leader: int | None = None,
    progress: bool = True,
    say: Say = print,
) -> None:
    """Evaluate selections of a study that was started by `select`, until as many as asked are finished.

    Neither model nor images are loaded: what the study's leader wrote to the workspace at its last start is enough. The
    test split stays closed, and MLflow is left to the leader or the next ``diffsift resume``.

    Args:
        study: its name.
        workspace: folder of the study's bank.
        storage: SQLAlchemy URL of the study database, where it is not in the workspace.
        leader: number of the process that started this one; when that has ended, this one ends too.
        progress: show a progress bar.
        say: where lines about the course of things go.

    Raises:
        StudyError: there is no such study.
        BankError: what the leader wrote cannot be used.
        SpecificationError: the study's data are in Python alone.
    """
    place = Workspace.at(workspace)
    specification = stored_specification(study, place, storage)
    if _only_here(specification):
        raise SpecificationError(_ONLY_HERE)
    objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
    bank = Bank.reopened(
        place.shared(study),
        place.bank,
        specification.bank,
        noise_seed=specification.model.noise_seed,
        batch_size=specification.model.batch_size,
    )
    url = storage or specification.study.storage or place.study_url
    with threadpool_limits(1), Ledger(open_database(url)) as ledger:
        space = _space(ledger, specification, bank)
        search = SearchStudy(
            url,
            specification.study,
            space,
            ledger,
            similarity=similarity(bank, space.pool),
            stream=uuid.uuid4().int % 2**31,
        )
        say(f"worker      process {os.getpid()} evaluates selections of {len(space.pool)} candidates in study {study}")
        search.run(
            objective.probe(bank),
            trials=specification.study.trials,
            timeout=specification.study.timeout,
            progress=progress,
            company=True,
            stop=lambda: leader is not None and os.getppid() != leader,
        )
        say(f"worker      study {study} has {ledger.evaluated(study)} of {specification.study.trials} selections")


@contextmanager
def helpers(specification: Specification, place: Workspace, say: Say) -> Iterator[None]:
    """Run `study.workers` - 1 other processes on a study inside the ``with`` block.

    One that fails or is killed is reported at the end and missed by nobody: what it was about to evaluate, others do.
    Each process, this one too, computes on one thread.
    """
    count = specification.study.workers - 1
    if not count:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        started = [_Helper.start(specification, place, stack) for _ in range(count)]
        say(f"workers     {count + 1} processes: this one and {', '.join(str(entry.process.pid) for entry in started)}")
        try:
            yield
        finally:
            failed = [entry for entry in started if entry.process.poll() not in (None, 0)]
            for entry in started:
                entry.end()
            for entry in failed:
                say(f"warning     {entry.failure()}")


def refuse_workers(specification: Specification) -> None:
    """Refuse several workers where only this process has the data.

    Raises:
        SpecificationError: `study.workers` is above 1 and the data are in Python.
    """
    if specification.study.workers > 1 and _only_here(specification):
        raise SpecificationError(
            f"study.workers must be 1 with data from Python, but got {specification.study.workers}: {_ONLY_HERE}"
        )


def _only_here(specification: Specification) -> bool:
    return any(data.kind == "python" for data in specification.data_sets.values())


_ONLY_HERE = (
    "other processes cannot open data that are in Python alone; data from files or a list (CSV, JSON) they can."
)


@dataclass(frozen=True)
class _Helper:
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @classmethod
    def start(cls, specification: Specification, place: Workspace, stack: ExitStack) -> _Helper:
        name, storage = specification.study.name, specification.study.storage
        output = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        command = [sys.executable, "-m", "diffsift", "worker", name, "--workspace", str(place.folder)]
        command += ["--leader", str(os.getpid()), *(["--storage", storage] if storage else [])]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # Ctrl-C comes to the leader, which hands it on once
        )
        return cls(process, output)

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE)
        self.process.kill()
        self.process.wait()

    def failure(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return f"worker {self.process.pid} ended early (status {self.process.returncode}){said}"


def _space(ledger: Ledger, specification: Specification, bank: Bank) -> SearchSpace:
    row = ledger.study(specification.study.name)
    pool, operations = ([], {}) if row is None else (row.candidates, row.operations)
    missing = [candidate for candidate in pool if candidate not in bank]
    if missing or not pool:
        raise StudyError(
            f"all {len(pool)} candidates of study {specification.study.name!r} must be in what its leader wrote down, "
            f"but {len(missing)} are not: 'diffsift resume' writes it anew."
        )
    return search_space(specification, bank, pool, operations)
