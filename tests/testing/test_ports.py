"""Ports that are chosen before somebody listens: none that a connection may take meanwhile."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from cloister.testing.ports import free_port

FOR_CONNECTIONS = 32_768  # the lowest port that Linux gives to connections, unless it is told otherwise
ROOT = Path(__file__).parents[2]
CHOSEN = re.compile(r"def free_port|(?:create_server|bind)\(\(\"[^\"]*\", 0\)\)")


def test_a_port_is_free_and_outside_of_what_the_system_gives_to_connections() -> None:
    for _ in range(20):
        port = free_port()
        assert port < FOR_CONNECTIONS
        socket.create_server(("127.0.0.1", port)).close()


def test_whoever_starts_a_process_at_a_port_chooses_it_here() -> None:
    places = [path for name in ("benchmarks", "examples", "src") for path in (ROOT / name).rglob("*.py")]
    found = [path.relative_to(ROOT).as_posix() for path in places if CHOSEN.search(path.read_text())]
    assert found == ["src/cloister/testing/ports.py"]
