"""The MLflow user interface, served to this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from diffsift.errors import StudyError

from ._mlflow_store import database_url, relocate

_HOST = "127.0.0.1"
_GRACE_SECONDS = 5.0


def serve(store_uri: str, artifacts: Path, port: int) -> None:
    """Show the store in the browser at ``http://127.0.0.1:PORT`` until Ctrl-C.

    Args:
        store_uri: as `MlflowLogger` got it.
        artifacts: folder of the artifacts.
        port: of this machine, 1 to 65535.

    Raises:
        StudyError: the port is taken or not allowed, or the server ended with an error.
    """
    _require_free(port)
    if (url := database_url(store_uri)) is not None:
        relocate(url, artifacts)
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store_uri, "--default-artifact-root", artifacts.resolve().as_uri()]
    # One plain process is enough for one reader; background jobs would start more of them.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # A session of its own keeps Ctrl-C from reaching the server's processes in any order: we end them below.
    server = subprocess.Popen(command, env={**quiet, **os.environ}, start_new_session=True)
    before = signal.signal(signal.SIGTERM, _as_interrupt)  # a polite kill must not leave the server behind
    try:
        status = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)
    if status:
        raise StudyError(
            f"the MLflow server must run until it is stopped, but it ended with status {status}; see above."
        )


def _as_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _require_free(port: int) -> None:
    if not 0 < port < 65536:
        raise StudyError(f"the port must be from 1 to 65535, but got {port}.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise StudyError(
                f"port {port} of {_HOST} must be free, but it cannot be used ({error.strerror}); give another (--port)."
            ) from error


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server with all processes it started, kindly first."""
    try:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
    for process in alive:
        _signal(process, kill=True)
    server.wait()


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return  # it ended by itself
