"""A PostgreSQL server of the tests' own, on a socket in a folder of its own: started once, one database for each test.

Where the server's programs are not installed, tests that want it are skipped and say so.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from leash import hold

__all__ = ["PostgresServer", "find_postgres", "start_postgres"]

_PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql")
_USER = "postgres"
_NUMBERS = itertools.count(1)


def find_postgres() -> Path | None:
    """Return the folder with the newest server's programs."""
    found = sorted(path.parent for place in _PLACES for path in Path(place).glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path:
        return Path(on_path).resolve().parent
    return found[-1] if found else None


class PostgresServer:
    """A running server. As root it runs as the user that the package made: PostgreSQL refuses root."""

    def __init__(self, programs: Path, folder: Path, *, durable: bool = False) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._socket = folder
        self._as = ["runuser", "-u", _USER, "--"] if os.getuid() == 0 else []
        if self._as:
            shutil.chown(folder, _USER)
        settings = {
            "listen_addresses": "''",
            "unix_socket_directories": f"'{folder}'",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "fsync": "on" if durable else "off",  # tests of logic need no disk; drills do
            "full_page_writes": "on" if durable else "off",
            "log_min_messages": "fatal",
        }
        self._run("initdb", "--pgdata", str(self._data), "--username", _USER, "--auth", "trust", "--no-sync")
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(lines)
        self.start()

    def start(self) -> None:
        """Start, waiting until it answers."""
        log = str(self._data / "server.log")
        self._run("pg_ctl", "--pgdata", str(self._data), "--log", log, "--wait", "start")
        hold(int((self._data / "postmaster.pid").read_text().split()[0]))  # a daemon, no child of ours

    def stop(self, mode: str = "fast") -> None:
        """Stop; ``immediate`` is as a crash."""
        self._run("pg_ctl", "--pgdata", str(self._data), "--mode", mode, "--wait", "stop")

    def create(self, template: str | None = None) -> str:
        """Make a database, a copy of ``template``'s where one is named, and return its URL."""
        name = f"t{os.getpid()}_{next(_NUMBERS)}"
        source = "template1" if template is None else _name(template)
        self.sql(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY FILE_COPY")
        return f"postgresql://{_USER}@/{name}?host={self._socket}"

    def drop(self, url: str) -> None:
        """Drop a database; hundreds of them fill a disk."""
        self.sql(f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def sql(self, statement: str, database: str = _USER) -> str:
        """Run SQL as the server's keeper, past every rule of ours."""
        name = _name(database) if "?" in database else database
        arguments = ("--host", str(self._socket), "--username", _USER, "--no-psqlrc", "--quiet", "--tuples-only")
        return self._run("psql", *arguments, "--set", "ON_ERROR_STOP=1", "--command", statement, name)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - programs of a folder that we found
            [*self._as, str(self._programs / program), *arguments],
            check=False, capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout


def _name(url: str) -> str:
    """Return the name of the database in one of our URLs."""
    return url.partition("@/")[2].partition("?")[0]


def start_postgres(folder: Path, *, durable: bool = False) -> PostgresServer:
    """Start a server in an empty folder, or skip the test that wanted it."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    return PostgresServer(programs, folder, durable=durable)
