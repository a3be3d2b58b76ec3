"""The examples do what they say: the three scripts run against each other, simulated TEE, real processes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from examples_kit import EXAMPLES, environment, frozen_package

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

SHELL = "/bin/sh"
WITHIN_S = 150  # on two busy cores; alone it takes twenty


def start(name: str, folder: Path, surroundings: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - a script of ours
            [SHELL, str(EXAMPLES / "three-terminals" / f"{name}.sh"), "run"],
            cwd=folder,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.drill  # what the tutorial plays in the suite, played once more with three terminals
@pytest.mark.timeout(240)
def test_the_three_scripts_play_the_story_against_each_other(tmp_path: Path) -> None:
    ports = {"CUSTODIAN_PORT": str(free_port()), "ENCLAVE_PORT": str(free_port())}
    surroundings = environment(frozen_package(tmp_path), **ports)
    parties = {name: start(name, tmp_path, surroundings) for name in ("custodian", "borrower", "consumer")}
    try:
        codes = {name: process.wait(WITHIN_S) for name, process in parties.items()}
    finally:
        for process in parties.values():
            if process.poll() is None:
                process.terminate()  # the script's trap ends its server
                process.wait(10)
    said = {name: (tmp_path / f"{name}.log").read_text() for name in parties}
    assert set(codes.values()) == {0}, said
    assert all(text.endswith(f"# The {name} is done.\n") for name, text in said.items()), said
    assert "blocked; stops within 6 s or 8 units, whichever comes first" in said["custodian"]
    assert "audit_broken" in said["custodian"]
    assert "ended: stopped" in said["borrower"]
    assert "remaining: 0" in said["consumer"]
    assert "allowance_exhausted" in said["consumer"]
    assert "scan-3.png: 7  [1 used, 9 remaining]" in said["consumer"]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("three-terminals/*.sh")), ids=lambda script: str(script.name))
def test_scripts_are_plain_sh(script: Path) -> None:
    done = subprocess.run([SHELL, "-n", str(script)], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
