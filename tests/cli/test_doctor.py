"""``cloister doctor`` on hosts that lack one thing each: what is said, and what to do about it."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloister.cli.doctor import ROLES, examine
from cloister.cli.doctor.finding import Finding, State
from cloister.cli.doctor.ground import look_at_home, look_at_port
from cloister.cli.doctor.host import Host
from cloister.cli.doctor.system import adjtimex
from cloister.enclave.attesters.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli_kit import Shell

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "doctor.md"
GOOD_HOST = {
    "proc/cpuinfo": "model name\t: Some CPU\nflags\t\t: fpu aes vaes sha_ni\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n",
    "proc/sys/kernel/core_pattern": "core\n",
    "proc/sys/fs/suid_dumpable": "0\n",
    "proc/sys/vm/overcommit_memory": "0\n",
    "proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n",
    "proc/self/mounts": "/dev/sda1 / ext4 rw 0 0\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "sys/kernel/mm/transparent_hugepage/shmem_enabled": "always [advise] never\n",
    "dev/sev-guest": "",
}
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def host(root: Path, changes: Mapping[str, str | None] | None = None, **more: object) -> Host:
    for name, text in (GOOD_HOST | dict(changes or {})).items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return Host(root=root, limit=lambda _: NO_LIMIT, **more)  # type: ignore[arg-type]


def found(there: Host, home: Path, roles: tuple[str, ...] = ROLES) -> dict[str, Finding]:
    items = list(examine(roles, there, home=home, machine=Machine(root=there.root)))
    assert len({item.name for item in items}) == len(items)
    return {item.name: item for item in items}


def test_good_host_has_nothing_to_do_but_what_the_machine_of_the_test_lacks(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    items = found(host(tmp_path / "root"), home)
    assert items["tee"].found.startswith("snp by")
    wrong = {name for name, item in items.items() if item.state in (State.WARNING, State.FAILED)}
    assert wrong <= {"clock synchronised", "kernel", "file system", "disk space", "durable writes"}


LACKS: dict[str, tuple[dict[str, str | None], str, State]] = {
    "a tee": ({"dev/sev-guest": None}, "tee", State.FAILED),
    "aes": ({"proc/cpuinfo": "model name: Old\nflags: fpu\n"}, "processor", State.WARNING),
    "no swap": ({"proc/swaps": "Filename Type\n/dev/sda2 partition\n"}, "swap", State.WARNING),
    "a clock of its own": (
        {"sys/devices/system/clocksource/clocksource0/current_clocksource": "jiffies\n"},
        "clock source",
        State.WARNING,
    ),
    "closed dumps": ({"proc/sys/fs/suid_dumpable": "1\n"}, "core dumps", State.WARNING),
    "memory": ({"proc/meminfo": "MemAvailable: 1000 kB\n"}, "memory", State.WARNING),
    "huge pages": ({"sys/kernel/mm/transparent_hugepage/shmem_enabled": "always [never]\n"}, "huge pages", State.NOTE),
    "a disk of its own": ({"proc/self/mounts": "server:/x / nfs4 rw 0 0\n"}, "file system", State.FAILED),
}


@pytest.mark.parametrize(("changes", "name", "state"), LACKS.values(), ids=LACKS.keys())
def test_host_that_lacks_one_thing_is_told_what_to_do(
    tmp_path: Path, changes: dict[str, str | None], name: str, state: State
) -> None:
    item = found(host(tmp_path / "root", changes), tmp_path)[name]
    assert item.state is state
    assert item.fix


def test_clock_before_the_program_was_written_fails(tmp_path: Path) -> None:
    item = found(host(tmp_path / "root", now=lambda: 0.0), tmp_path)["clock"]
    assert (item.state, item.found[:4]) == (State.FAILED, "1970")


def test_limits_of_the_process_are_told(tmp_path: Path) -> None:
    there = Host(root=host(tmp_path / "root").root, limit=lambda _: (1024, 4096))
    items = found(there, tmp_path)
    assert items["open files"].state is items["locked memory"].state is State.WARNING


def test_home_that_others_may_read_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    items = {item.name: item for item in look_at_home(home, host(tmp_path / "root"))}
    assert (items["home"].state, items["home"].fix) == (State.WARNING, f"chmod 700 {home}")
    if os.geteuid():
        home.chmod(0o500)
        assert {item.name: item for item in look_at_home(home, Host())}["durable writes"].state is State.FAILED
    assert not list(home.iterdir())  # nothing is left behind


def test_home_that_is_not_there_is_looked_at_where_it_would_be(tmp_path: Path) -> None:
    items = {item.name: item for item in look_at_home(tmp_path / "a" / "b", host(tmp_path / "root"))}
    assert items["home"].state is State.NOTE
    assert items["durable writes"].state in (State.GOOD, State.WARNING)
    assert not (tmp_path / "a").exists()


def test_port_in_use_and_port_of_another_host() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert look_at_port("127.0.0.1", taken.getsockname()[1]).found.endswith("in use")
    assert look_at_port("192.0.2.1", 8443).state is State.FAILED  # RFC 5737: nobody's address


def test_kernel_says_something_of_its_clock() -> None:
    assert adjtimex() in range(-1, 6)


def test_command_prints_one_document_and_leaves_with_what_it_found(shell: Shell, tmp_path: Path) -> None:
    said = shell("doctor", "--home", str(tmp_path / "home"), "--json")
    items = json.loads(said.out)
    assert {"name", "state", "found", "fix"} == set(items[0])
    assert said.code == (4 if any(item["state"] == "failed" for item in items) else 0)
    assert shell("doctor", "--role", "consumer", "--all").out.splitlines()[-1].split()[1] == "things:"


def test_every_finding_is_explained(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in found(host(tmp_path / "root"), tmp_path):
        stem = name if not name.startswith(("interface", "library", "port")) else name.split()[0]
        assert f"| `{stem}" in page, name
