"""Two persons at two terminals, over a custodian that serves: nothing happens before the second one's word."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cloister.cli.pending import demand_digest
from cloister.errors import Rejected
from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli_kit import Shell

PENDING = 6


class Two:
    """Alice and Bob at one custodian in production."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        made = shell.ok("custodian", "token", "make", "--out", "bob.token")
        assert stat.S_IMODE((shell.folder / "bob.token").stat().st_mode) == 0o600
        admitted = shell.ok(
            "custodian", "token", "create", "--role", "admin", "--name", "Bob", "--person", "bob",
            "--digest", made["sha256"],
        )  # fmt: skip
        assert "token" not in admitted

    def ask(self, *more: str) -> Any:
        """Ask, as Alice, for what destroys keys."""
        return self.shell("key", "rotate", "--incident", "a drill", *more)

    def bob(self, *words: str) -> Any:
        """Run a command as Bob."""
        return self.shell("custodian", *words, "--token-file", "bob.token", "--json")

    def waiting(self) -> str:
        """Return the proposal that waits, as soon as there is one."""
        end = time.monotonic() + 30
        while not (found := self.shell.ok("custodian", "proposals")["proposals"]):
            assert time.monotonic() < end
            time.sleep(0.1)
        return str(found[0]["proposal"])

    def key_epoch(self) -> int:
        """Return the newest key epoch."""
        return int(self.shell.ok("key", "status")["key_epoch"])


@pytest.fixture
def port(shell: Shell) -> int:
    """Make a custodian in production; return where it is to listen."""
    port = free_port()
    words = ("custodian", "init", "--person", "alice", "--profile", "production", "--port", str(port))
    assert shell(*words).code == 0
    return port


@pytest.fixture
def two(shell: Shell, port: int) -> Iterator[Two]:
    """Yield the two."""
    with shell.start("custodian", "serve") as server:
        server.until_port(port)
        yield Two(shell)


def test_what_needs_two_persons_is_not_done_by_one(two: Two) -> None:
    said = two.ask()
    assert said.code == PENDING
    assert "not done yet" in said.out
    assert "cloister custodian approve prop-" in said.err
    assert two.ask("--json").json["state"] == "open", "the same proposal once more"
    assert two.key_epoch() == 1
    identity = two.waiting()
    alone = two.shell("custodian", "approve", identity, "--yes", "--json")
    assert (alone.code, alone.json["error"]["code"]) == (4, "same_person")
    assert two.bob("approve", identity).code == 2, "there is no terminal to ask on"
    assert two.bob("approve", identity, "--yes").json["state"] == "executed"
    assert two.key_epoch() == 2
    listed = two.shell("custodian", "proposals", "--all").out
    assert "executed" in listed
    assert "person, policy, rotation, unblock" in listed


def test_who_waits_gets_the_answer_as_if_it_had_come_at_once(two: Two) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cloister", "key", "rotate", "--incident", "a drill", "--wait"],
        cwd=two.shell.folder, env=two.shell.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as asking:  # fmt: skip
        assert two.bob("approve", two.waiting(), "--yes").code == 0
        out, err = asking.communicate(timeout=30)
    assert asking.returncode == 0, err
    assert "key epoch 2" in out
    assert "approved by admin:tok-" in err


def test_who_waits_is_told_that_it_was_denied(two: Two) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cloister", "key", "rotate", "--incident", "a drill", "--wait"],
        cwd=two.shell.folder, env=two.shell.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as asking:  # fmt: skip
        assert two.bob("deny", two.waiting(), "--reason", "not today").code == 0
        _, err = asking.communicate(timeout=30)
    assert asking.returncode == 4
    assert "proposal_denied" in err
    assert "not today" in err
    assert two.key_epoch() == 1


def test_a_proposal_is_withdrawn_and_a_token_is_revoked(two: Two) -> None:
    assert two.ask().code == PENDING
    assert two.shell.ok("custodian", "withdraw", two.waiting())["state"] == "withdrawn"
    listed = two.shell.ok("custodian", "token", "list")["tokens"]
    identity = next(item["id"] for item in listed if item["person"] == "bob")
    assert two.shell.ok("custodian", "token", "revoke", identity)["revoked"] is True
    assert two.bob("proposals").code == 4
    viewer = two.shell.ok("custodian", "token", "create", "--role", "viewer", "--name", "screen", "--out", "v.token")
    assert viewer["role"] == "viewer"
    assert two.shell("loan", "list", "--token-file", "v.token").code == 0
    assert two.shell("audit", "list", "--token-file", "v.token").code == 4


DIVIDED = ("--of", "3", "--need", "2", "--holder", "alice", "--holder", "bob", "--holder", "carol")


def test_the_vault_is_split_once_two_persons_said_so(shell: Shell, port: int) -> None:
    split = ("custodian", "shares", "split", *DIVIDED, "--out", "shares")
    with shell.start("custodian", "serve") as server:
        server.until_port(port)
        two = Two(shell)
        alone = shell(*split, "--json")
        assert (alone.code, alone.json["error"]["code"]) == (4, "permit_wanted")
        assert "cloister custodian shares permit" in shell(*split).err
        ask = ("custodian", "shares", "permit", "--out", "a.permit")
        assert shell(*ask).code == 2
        said = shell(*ask, *DIVIDED)
        assert (said.code, "not done yet" in said.out) == (PENDING, True)
        identity = two.waiting()
        assert shell(*ask, "--proposal", identity).code == PENDING
        assert not (shell.folder / "a.permit").exists()
        assert two.bob("approve", identity, "--yes").json["state"] == "executed"
        shell.ok(*ask, "--proposal", identity)
        assert stat.S_IMODE((shell.folder / "a.permit").stat().st_mode) == 0o600
        busy = shell(*split, "--permit", "a.permit")
        assert busy.code == 5, "the custodian runs"
        assert server.stop() == 0
    other = shell("custodian", "shares", "split", *DIVIDED[:2], "--need", "3", *DIVIDED[4:], "--permit", "a.permit",
                  "--out", "other", "--json")  # fmt: skip
    assert (other.code, other.json["error"]["code"]) == (4, "permit_mismatch")
    made = shell.ok(*split, "--permit", "a.permit")
    assert len(made["files"]) == 3
    again = shell(*split[:-1], "more", "--permit", "a.permit", "--json")
    assert (again.code, again.json["error"]["code"]) == (4, "permit_used")
    (shell.folder / "vault.key").unlink()
    shell.ok("custodian", "shares", "combine", made["files"][0], made["files"][2])
    with shell.start("custodian", "serve") as server:
        server.until_port(port)
        entries = map(json.loads, shell("audit", "list", "--limit", "1000", "--json").out.splitlines())
        told = {entry["kind"]: entry for entry in entries}
        assert told["permit_used"]["details"]["split"] == told["vault_changed"]["details"]["split"] == made["split"]
        revoked = shell("custodian", "shares", "revoke", identity, "--json")
        assert (revoked.code, revoked.json["error"]["code"]) == (4, "already_decided")


def test_a_share_that_cannot_be_written_leaves_none_and_the_permit_is_spent(shell: Shell, port: int) -> None:
    """What is in the way is found only when the second share is written: a link to nowhere."""
    with shell.start("custodian", "serve") as server:
        server.until_port(port)
        two = Two(shell)
        ask = ("custodian", "shares", "permit", "--out", "a.permit")
        assert shell(*ask, *DIVIDED).code == PENDING
        identity = two.waiting()
        assert two.bob("approve", identity, "--yes").code == 0
        shell.ok(*ask, "--proposal", identity)
        assert server.stop() == 0
    (shell.folder / "shares").mkdir()
    (shell.folder / "shares" / "share-2-of-3.json").symlink_to("nowhere/at/all")
    split = ("custodian", "shares", "split", *DIVIDED, "--permit", "a.permit", "--json", "--out")
    assert shell(*split, "shares").code == 2
    assert [path.name for path in (shell.folder / "shares").iterdir()] == ["share-2-of-3.json"]
    again = shell(*split, "more")
    assert (again.code, again.json["error"]["code"]) == (4, "permit_used")


def test_a_custodian_that_shows_one_request_and_keeps_another_is_found_out() -> None:
    """What is approved is the digest of what was shown, computed at the approver's own terminal."""
    shown = {
        "basis": {"epoch": 1}, "body": "e30", "operation": "rotation", "proposal": "prop-0000000000000000",
        "request": {"parameters": {}, "query": {}, "route": "POST /v1/keys/rotate"}, "digest": "0" * 64,
    }  # fmt: skip
    with pytest.raises(Rejected) as refused:
        demand_digest(shown, bytes(32))
    assert refused.value.code == "proposal_changed"
    true = refused.value.reasons[0].want
    assert demand_digest({**shown, "digest": true}, bytes(32)).hex() == true
    for name, other in (("body", "e30g"), ("operation", "policy"), ("basis", {"epoch": 2}), ("proposal", "prop-1")):
        with pytest.raises(Rejected):
            demand_digest({**shown, "digest": true, name: other}, bytes(32))
