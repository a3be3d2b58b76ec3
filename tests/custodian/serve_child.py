"""Serve the home named on the command line: the process that tests stop, kill and race."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from cloister.attest.verifier import Verifier
from cloister.custodian.serve import serve_custodian
from cloister.custodian.setup import open_custodian
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.errors import Unavailable
from cloister.testing.simulated import SimulatedScheme
from cloister.testing.simulated_root import SimulatedRoot

EXIT_UNAVAILABLE = 5


def _say(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def main() -> int:
    """Serve until stopped; print the URL once the port is bound."""
    home = Path(sys.argv[1])
    root = SimulatedRoot(hashlib.sha256(b"root").digest())
    try:
        service = open_custodian(
            home,
            KeyFile(home.parent / "vault.key"),
            make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]),
        )
    except Unavailable as exc:
        sys.stderr.write(f"{exc.message}\n")
        return EXIT_UNAVAILABLE
    serve_custodian(service, home=home, on_listening=_say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
