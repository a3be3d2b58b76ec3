"""What an enclave's process loads: no pages, no web framework, no database, nothing of the other parties."""

from __future__ import annotations

import json
import subprocess
import sys

CHILD = """
import importlib, json, pkgutil, sys
import cloister.enclave
from cloister.cli import enclave
names = [item.name for item in pkgutil.walk_packages(cloister.enclave.__path__, "cloister.enclave.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([len(names), sorted(sys.modules)]))
"""
FOREIGN = ("jinja2", "markupsafe", "starlette", "uvicorn", "sqlalchemy", "cloister.asking", "cloister.borrowing",
           "cloister.custodian.service", "cloister.custodian.store", "cloister.pages")  # fmt: skip


def test_an_enclave_loads_no_page_and_no_server_of_another_party() -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", CHILD], capture_output=True, check=True, text=True, timeout=60
    )
    count, loaded = json.loads(done.stdout)
    assert count > 50
    assert not [name for name in loaded if name in FOREIGN or name.startswith(tuple(f"{item}." for item in FOREIGN))]
