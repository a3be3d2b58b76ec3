"""What a service may not take from others in its process, whatever its settings say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from cloister.errors import UsageError
from cloister.verifier.guest import Guest
from cloister.verifier.settings import PolicySettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://lend.example/t/acme/attest"


def guest(**changes: Any) -> Guest:
    given = {"issuer": ISSUER, "hidden": False, "verifications": 2, "request_timeout_s": 5, "waiting_bytes": 1 << 20}
    return Guest(**{**given, **changes})


def bounded(home: Path, place: Guest, file: str = "p.json", **settings: Any) -> Settings:
    policies = {"p": PolicySettings(file=file)}
    return place.bounded(home, Settings(**{"issuer": ISSUER, **settings}), policies)


def test_numbers_count_up_to_the_places_own(tmp_path: Path) -> None:
    most = bounded(tmp_path, guest(), verifications=200, request_timeout_s=3000)
    assert (most.verifications, most.request_timeout_s) == (2, 5)
    less = bounded(tmp_path, guest(), verifications=1, request_timeout_s=3)
    assert (less.verifications, less.request_timeout_s) == (1, 3)


@pytest.mark.parametrize(
    "issuer", [ISSUER + "/x", ISSUER.upper().replace("HTTPS", "https"), "https://lend.example/t/b"]
)
def test_it_is_the_issuer_of_its_place_to_the_letter(tmp_path: Path, issuer: str) -> None:
    with pytest.raises(UsageError, match=f"issuer: want {re.escape(ISSUER)}$"):
        bounded(tmp_path, guest(), issuer=issuer)


def test_who_hides_is_open_to_nobody(tmp_path: Path) -> None:
    assert bounded(tmp_path, guest(), open=True).open
    with pytest.raises(UsageError, match="open"):
        bounded(tmp_path, guest(hidden=True), open=True)


def test_files_are_below_the_home_links_followed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "in").mkdir(parents=True)
    (home / "out").symlink_to(tmp_path)
    assert bounded(home, guest(), file="in/../p.json", keys="in/keys.json").keys == "in/keys.json"
    for name in ("../p", "/etc/passwd", "out/p", "in/../../p"):
        for settings in ({"keys": name}, {"callers": name}, {"tpm_authorities": (name,)}, {"arm_anchors": (name,)}):
            with pytest.raises(UsageError, match="below the home"):
                bounded(home, guest(), **settings)
        with pytest.raises(UsageError, match="below the home"):
            bounded(home, guest(), file=name)
