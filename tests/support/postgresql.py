"""A PostgreSQL server of a test's own, which may be restarted and whose connections may be cut."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
_USER = "sift"


def missing() -> str | None:
    """Why no server can be started; None where one can."""
    if find_spec("psycopg") is None:
        return "psycopg must be installed: pip install 'psycopg[binary]'"
    if _programs() is None:
        return "PostgreSQL's programs must be installed: apt-get install postgresql"
    return None


class Server:
    """A server in a folder of its own, reached through a free port of this machine.

    PostgreSQL refuses to run as the superuser, so it then runs as ``nobody``.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="diffsift-postgresql-"))
        self._data = self._folder / "data"
        self._run_as = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._run_as is not None:
            os.chown(self._folder, self._run_as.pw_uid, self._run_as.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._do("initdb", "--auth=trust", f"--username={_USER}", "--no-sync", f"--pgdata={self._data}")
        self.start()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of its database."""
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200"
        log = self._folder / "log"
        self._do("pg_ctl", "start", "-w", f"--pgdata={self._data}", f"--log={log}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends connections properly, ``immediate`` as a crash does."""
        self._do("pg_ctl", "stop", "-w", f"--mode={mode}", f"--pgdata={self._data}")

    def cut(self) -> int:
        """End all connections to it; returns how many there were."""
        import psycopg

        query = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
        """
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            return len(connection.execute(query).fetchall())

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def _do(self, program: str, *arguments: str) -> None:
        programs = _programs()
        assert programs is not None
        options: dict[str, Any] = {}
        if self._run_as is not None:
            options = {"user": self._run_as.pw_uid, "group": self._run_as.pw_gid, "extra_groups": []}
        with (self._folder / "output").open("ab") as output:
            done = subprocess.run(
                [programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                check=False,
                timeout=60,
                **options,
            )
        if done.returncode:
            raise RuntimeError((self._folder / "output").read_text(errors="replace")[-2000:])


def _programs() -> Path | None:
    found = shutil.which("pg_ctl")
    return Path(found).resolve().parent if found else next(iter(reversed(_INSTALLED)), None)
