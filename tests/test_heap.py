"""A server's heap is set aside once: what the start left is freed, what comes later is still collected.

In a process of its own, for the heap of one that runs tests is large.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cloister

RING = """
import gc, weakref
from cloister.heap import settle_heap

class Ring:
    def __init__(self):
        self.me = self

"""


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(
            "left = weakref.ref(Ring()); settle_heap(); assert left() is None and gc.get_freeze_count() > 1000",
            id="what the start left behind is freed before the rest is set aside",
        ),
        pytest.param(
            "settle_heap(); later = weakref.ref(Ring()); gc.collect(); assert later() is None",
            id="what comes later is still collected",
        ),
        pytest.param(
            "kept = Ring(); seen = weakref.ref(kept); settle_heap(); kept.me = None; del kept; assert seen() is None",
            id="what was set aside is freed when nothing refers to it",
        ),
    ],
)
def test_a_settled_heap(story: str) -> None:
    subprocess.run([sys.executable, "-c", RING + story], check=True, timeout=60)  # noqa: S603 - our own words


@pytest.mark.parametrize(
    "server", ["cli/attest_serve.py", "cli/proxy.py", "cli/relay.py", "custodian/serve.py", "enclave/serve.py"]
)
def test_every_server_that_many_ask_sets_its_heap_aside(server: str) -> None:
    tree = ast.parse((Path(cloister.__file__).parent / server).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert any(isinstance(call.func, ast.Name) and call.func.id == "settle_heap" for call in calls)
