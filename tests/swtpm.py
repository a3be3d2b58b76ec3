"""The software TPM of the test kit for one test, which is skipped where swtpm is not installed.

with start_swtpm(tmp_path) as swtpm, SocketTransport(swtpm.socket) as transport:
...
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cloister.testing import swtpm as kit
from cloister.testing.swtpm import Swtpm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Swtpm", "needs_swtpm", "start_swtpm"]

_WHY = "swtpm and swtpm_setup are not installed (apt-get install swtpm swtpm-tools)"
needs_swtpm = pytest.mark.skipif(not kit.is_installed(), reason=_WHY)


@contextmanager
def start_swtpm(tmp_path: Path, *, name: str = "tpm", again: bool = False) -> Iterator[Swtpm]:
    """Run a software TPM under ``tmp_path``; ``again`` boots the one that was made there before."""
    if not kit.is_installed():
        pytest.skip(_WHY)
    with kit.start_swtpm(tmp_path, name=name, again=again) as running:
        yield running
