"""The tests trust no authority of this machine: what they speak to over TLS is their own, and names its authority.

It is quicker too: to read the hundred and fifty authorities of a system takes a fiftieth of a second, for every client
that is made.
"""

from __future__ import annotations

import os
from pathlib import Path

_NOBODYS = Path(__file__).with_name("no_authority.pem")  # its key is thrown away
_NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def keep_out() -> None:
    """Trust nobody from now on, in children too."""
    os.environ.update(zip(_NAMES, (str(_NOBODYS), os.devnull), strict=True))


def let_in() -> dict[str, str]:
    """Return the environment of a child that trusts whom the system trusts."""
    return {name: value for name, value in os.environ.items() if name not in _NAMES}
