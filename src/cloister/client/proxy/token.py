"""The secret between this machine's user and the proxy: whoever can read the file may ask through it.

It has nothing to do with the consumer's token, which stays in the proxy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import UsageError
from cloister.private_file import read_private, write_private
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["default_token_file", "open_token"]

_TOKEN_BYTES = 32
_MAX_FILE_BYTES = 256
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")


def default_token_file(environment: Mapping[str, str]) -> Path:
    """Return where a user's token is, unless another place is named."""
    state = environment.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path(environment.get("HOME", "")) / ".local" / "state"
    if not base.is_absolute():
        msg = "local token: no home folder to keep it in"
        raise UsageError(msg, hint="say --local-token-file FILE")
    return base / "cloister" / "proxy.token"


def open_token(path: Path, *, rng: Callable[[int], bytes] = os.urandom) -> str:
    """Return the token in ``path``; make it, of mode 0600, where it is not. Raises ``UsageError``, ``Unavailable``."""
    if not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"{path.parent}: {exc.strerror}"
            raise UsageError(msg) from exc
        write_private(path, dump_b64u(rng(_TOKEN_BYTES)).encode("ascii") + b"\n")
    text = read_private(path, cap=_MAX_FILE_BYTES, holds="a local token").decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):
        msg = f"{path}: no local token, want 32 to 128 characters of base64url in one line"
        raise UsageError(msg, hint="move the file away, and the proxy makes a new one")
    return text
