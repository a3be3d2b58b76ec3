"""Logging in at a custodian that serves: a file that is worth nothing without the key in it, and ends by itself."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.cli.session_file import SessionFile
from cloister.errors import Malformed
from cloister.testing.ports import free_port
from cloister.wire import dump_time, parse_time
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli_kit import Shell


@pytest.fixture
def served(shell: Shell) -> Iterator[Shell]:
    """Yield a shell beside a custodian that wants nonces."""
    port = free_port()
    assert shell("custodian", "init", "--person", "alice", "--port", str(port)).code == 0
    with shell.start("custodian", "serve", CLOISTER_CUSTODIAN_DPOP_NONCE="true") as server:
        server.until_port(port)
        yield shell


def test_a_session_in_a_file_takes_the_place_of_the_token(served: Shell) -> None:
    made = served.ok("custodian", "login", "--out", "session.json")
    path = served.folder / "session.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "token" not in made
    kept = json.loads(path.read_text())
    token = served.folder / "home" / "admin.token"
    token.rename(served.folder / "locked-away")
    assert served.ok("loan", "list", "--token-file", "session.json") == {"loans": []}
    listed = served.ok("custodian", "sessions", "--token-file", "session.json")["sessions"]
    assert [(item["session"], item["token_type"], item["person"]) for item in listed] == [
        (kept["session"], "DPoP", "alice")
    ]
    stolen = served.folder / "stolen"
    stolen.write_text(kept["token"])
    stolen.chmod(0o600)
    said = served("loan", "list", "--token-file", "stolen", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "unauthenticated")
    other = served.ok("custodian", "login", "--out", "other.json", "--token-file", "locked-away")
    assert served.ok("custodian", "end-session", other["session"], "--token-file", "session.json")["ended"] is True
    assert served("loan", "list", "--token-file", "other.json").code == 4
    assert served("custodian", "login", "--out", "more.json", "--token-file", "session.json").code == 2
    assert served.ok("custodian", "logout", "session.json")
    assert not path.exists()


def test_a_session_that_wanes_is_renewed_and_one_that_is_over_says_so(served: Shell) -> None:
    served.ok("custodian", "login", "--out", "session.json", "--life", "2m")
    path = served.folder / "session.json"
    before = json.loads(path.read_text())
    assert served.ok("loan", "list", "--token-file", "session.json") == {"loans": []}
    after = json.loads(path.read_text())
    assert after["expires_at"] > before["expires_at"]
    assert {**after, "expires_at": ""} == {**before, "expires_at": ""}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(json.dumps({**after, "expires_at": dump_time(datetime.now(UTC) - timedelta(seconds=1))}))
    said = served("loan", "list", "--token-file", "session.json", "--json")
    assert (said.code, said.json["error"]["code"]) == (4, "session_over")


def test_a_damaged_session_file_is_malformed(served: Shell) -> None:
    served.ok("custodian", "login", "--out", "session.json")
    data = (served.folder / "session.json").read_bytes()
    assert "clss_" not in repr(SessionFile.parse(data))
    for damaged in mutated(data, count=2000, seed=9):
        try:
            SessionFile.parse(damaged)
        except Malformed:
            continue


def test_a_link_to_the_dashboard_is_a_session_of_a_minute_behind_the_number_sign(served: Shell) -> None:
    before = datetime.now(UTC)
    made = served.ok("custodian", "dashboard")
    address, _, token = made["link"].partition("#")
    assert address.endswith("/ui/sign-in")
    assert token.startswith("clss_")
    assert parse_time(made["expires_at"], what="link") < before + timedelta(seconds=90)
    plain = served("custodian", "dashboard")
    assert plain.code == 0
    served.ok("custodian", "login", "--out", "session.json")
    assert served("custodian", "dashboard", "--token-file", "session.json").code != 0
