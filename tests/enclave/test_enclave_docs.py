"""The reference pages say what the code does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from cloister.enclave.config import EnclaveConfig, Limits
from cloister.enclave.engines.tensor import Datatype
from cloister.enclave.metrics import _CODES
from cloister.enclave.problems import STATUS_BY_CODE

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted({item.name for item in fields(EnclaveConfig)} - {"host", "port", "limits"}))
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in page("enclave-settings.md")


@pytest.mark.parametrize("name", [item.name for item in fields(Limits)])
def test_every_limit_is_documented_with_its_default(name: str) -> None:
    assert f"| `{name}` | {getattr(Limits(), name)} |" in page("enclave-settings.md")


@pytest.mark.parametrize(("code", "status"), sorted(STATUS_BY_CODE.items()))
def test_every_inner_error_is_documented_with_its_status(code: str, status: int) -> None:
    rows = [row for row in page("enclave-api.md").splitlines() if row.startswith(f"| {status} |")]
    assert any(f"`{code}`" in row for row in rows)
    assert code in _CODES


@pytest.mark.parametrize("kind", list(Datatype), ids=lambda kind: kind.value)
def test_every_tensor_type_is_documented(kind: Datatype) -> None:
    assert f"`{kind.value}`" in page("engines.md")
