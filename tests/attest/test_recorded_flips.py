"""Genuine evidence with one bit flipped anywhere: refused, or it says exactly what it said before.

What changes and is still accepted lies where nothing is signed and nothing is read: padding behind a quote, line ends
of PEM. Runs on recorded evidence, where that is present; the synthetic vendors' tests flip every bit of theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.dossier import judge
from cloister.attest.dossier.table import dossier_for
from cloister.errors import Malformed, Rejected, Unavailable
from evidence_index import at, entries, files_of

if TYPE_CHECKING:
    from cloister.wire import Json

FLIPS = 96  # places in one file
KINDS = ("azure-vtpm", "cca", "nitro", "nvidia", "psa", "sgx", "snp", "tdx", "token", "tpm")
_ACCEPTED = [param for param in entries(*KINDS) if not param.values[0] or param.values[0]["expect"] == "ok"]


def _verdict(entry: dict[str, Any], files: dict[str, bytes]) -> tuple[bool, Json]:
    """Return whether the files are accepted, and what they say."""
    try:
        case = dossier_for(entry["tee"]).open(files, entry["policy"])
        found = judge(case, at(entry))
    except (Malformed, Rejected, Unavailable):
        return False, {}
    return not found.reasons, dict(found.claims)


@pytest.mark.parametrize("entry", _ACCEPTED)
def test_a_flipped_bit_is_refused_or_changes_nothing(entry: dict[str, Any]) -> None:
    files = files_of(entry)
    main = dossier_for(entry["tee"]).main
    role = main if main in files else "report_bin"
    accepted, said = _verdict(entry, files)
    assert accepted
    data = files[role]
    for step in range(FLIPS):
        place = step * len(data) // FLIPS
        flipped = data[:place] + bytes((data[place] ^ (1 << step % 8),)) + data[place + 1 :]
        still, now = _verdict(entry, {**files, role: flipped})
        assert not still or now == said, f"byte {place} of {role}"
