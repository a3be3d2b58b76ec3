"""The SDK's names are loaded when they are used: what reads a trust file or calls the custodian carries no arrays."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cloister.client


def loaded_by(program: str) -> set[str]:
    """Return the top-level modules that a process has loaded at the end of ``program``."""
    program += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - ours
    return set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    assert set(cloister.client.__all__) <= set(dir(cloister.client))
    for name in cloister.client.__all__:
        assert getattr(cloister.client, name).__name__ == name
    assert cloister.client.Trust is cloister.Trust


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Consumer'"):
        _ = cloister.client.Consumer


@pytest.mark.parametrize("noun", ["loan", "audit", "trust"])
def test_commands_that_only_call_the_custodian_load_no_database_and_no_arrays(noun: str) -> None:
    assert not {"numpy", "sqlalchemy", "onnxruntime"} & loaded_by(f"import cloister.cli.{noun}")


def test_the_sdk_itself_loads_its_arrays() -> None:
    assert "numpy" in loaded_by("from cloister.client import Client")
