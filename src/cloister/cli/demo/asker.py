"""A consumer that keeps asking: a process of its own, through the public SDK.

    python -m cloister.cli.demo.asker URL TRUST TOKEN_FILE SECONDS IMAGE...

Asks every ``SECONDS``, one image after another, and prints one JSON line for each try: what came back and
when. It goes on after a refusal; the demo stops it.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.cli.demo.schemes import simulated_schemes
from cloister.client import Client, Retry, Trust
from cloister.errors import CloisterError, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def _say(**line: str | float | None) -> None:
    sys.stdout.write(json.dumps({"at": time.time(), **line}) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Verify once, then ask until ended."""
    url, trust_file, token_file, seconds, *images = arguments
    trust = Trust.load(trust_file)
    once, schemes = Retry.never(), simulated_schemes(trust)
    with Client.verify(url, trust, token_file=token_file, schemes=schemes, retry=once) as client:
        _say(kind="verified", text=datetime.now(UTC).isoformat())
        turn = 0
        while True:
            try:
                answer = client.infer("digits", image=Path(images[turn % len(images)]))
                _say(kind="answer", label=str(answer.label), remaining=answer.remaining, units=answer.units)
            except Rejected as exc:
                _say(kind="refused", code=exc.code, text=exc.message)
            except CloisterError as exc:
                _say(kind="unavailable", text=exc.message)
            turn += 1
            time.sleep(float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
