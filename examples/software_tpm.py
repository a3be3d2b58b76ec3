"""Run a software TPM until interrupted: python examples/software_tpm.py FOLDER.

Writes what the tutorial needs into the folder: ``root.pem`` (the made-up maker's root, for the custodian),
``maker.pem`` (the maker's certificate below it, for the borrower) and ``socket`` (where the TPM listens).
Needs swtpm: apt-get install swtpm swtpm-tools. A software TPM proves nothing to anybody.
"""

import contextlib
import signal
import sys
from pathlib import Path

from cloister.testing.swtpm import start_swtpm

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the TPM is ended too
with contextlib.suppress(KeyboardInterrupt), start_swtpm(folder) as tpm:
    (folder / "root.pem").write_bytes(b"".join(tpm.ek_roots))
    (folder / "maker.pem").write_bytes(b"".join(tpm.ek_intermediates))
    (folder / "socket").write_text(f"unix:{tpm.socket}\n")
    print(f"software TPM at unix:{tpm.socket}", flush=True)
    signal.pause()
