"""Searches of different studies that are started together in a new workspace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient
from support import ROOT
from support.mlflow_store import stored_scores

from diffsift.tracking import Ledger, open_database

# One process that loads the libraries; its children start at the same moment.
SERVER = """
import gc, os, sys, time
sys.path.insert(0, sys.argv[1])
import mlflow.store.tracking.sqlalchemy_store
from mlflow import MlflowClient
from support import planted

folder, count = sys.argv[2], int(sys.argv[3])

def start(number):
    planted.STUDY = f"study{number}"
    study, log = planted.logged_store(folder)
    planted.search(study, planted.SyntheticProbe(), 5, logger=log)
    log.flush()

gc.freeze()  # no child looks through what the libraries made
children = []
begin = time.time() + 1
for number in range(count):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            time.sleep(max(0, begin - time.time()))
            start(number)
            code = 0
        finally:
            os._exit(code)
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_fifteen_first_starts_at_once_all_end_well(tmp_path: Path) -> None:
    count = 15
    arguments = [str(ROOT / "tests"), str(tmp_path), str(count)]
    served = subprocess.run(
        [sys.executable, "-c", SERVER, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert served.stdout.split() == ["0"] * count, served.stderr[-3000:]
    ledger = Ledger(open_database(f"sqlite:///{tmp_path / 'studies.db'}"))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert sorted(study.name for study in ledger.studies()) == sorted(f"study{number}" for number in range(count))
    for study in ledger.studies():
        assert ledger.evaluated(study.name) == 5
        assert len(stored_scores(uri, study.name)) == 5
    experiments = [entry.name for entry in MlflowClient(tracking_uri=uri).search_experiments()]
    assert sorted(experiments) == ["Default", "diffsift"]
    assert not list(tmp_path.glob("*.partial*"))
