"""Opening the vault by shares: two persons at least bring them, and the log of the next start says so (T89)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from permit_kit import Ceremony

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.custodian.vaults.change import VaultChange, read_change, write_change
from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, open_by_shares, relock
from cloister.custodian.vaults.shares import Division
from cloister.custodian.vaults.unlock import Passphrase
from cloister.errors import Malformed, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.custodian.vaults.shares import Share

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "permit" / "changes.json").read_text())
NEW = Passphrase(b"what nobody has forgotten yet")


@pytest.fixture
def lost(place: Path) -> Iterator[Lost]:
    """Yield a custodian that is stopped, and shares of its vault with and without their holders."""
    with Ceremony(place, rule=("key_recovery",)) as ceremony:
        yield Lost(ceremony)


class Lost:
    """A vault that nobody can open but by shares."""

    def __init__(self, ceremony: Ceremony) -> None:
        self.ceremony = ceremony
        self.named = ceremony.split(None)
        self.silent = ceremony.split(None, Division(need=2, of=3))
        self.before = ceremony.bench.service.vault_file
        ceremony.stop()

    def changes(self) -> list[dict[str, Any]]:
        """Start, and return what the log says of the vault."""
        self.ceremony.start()
        return [entry["details"] for entry in self.ceremony.said("vault_changed")]


@pytest.mark.parametrize("case", VECTORS["payloads"], ids=lambda case: case["name"])
def test_a_note_is_read_as_its_vector_says(case: dict[str, str]) -> None:
    data = case["text"].encode()
    if case["expect"] == "valid":
        assert VaultChange.parse(data).dump() == data
        return
    with pytest.raises(Malformed):
        VaultChange.parse(data)


def test_the_next_start_logs_how_many_they_were_and_by_which_split(lost: Lost) -> None:
    lost.ceremony.combine(lost.named[1:], NEW)
    (told,) = lost.changes()
    assert told == {
        "before": lost.before, "holders": 2, "kind": "shares", "need": 2, "of": 3,
        "split": lost.named[0].split.hex(), "vault": lost.ceremony.bench.service.vault_file,
    }  # fmt: skip
    assert lost.ceremony.said("custodian_started")[-1]["details"]["vault"] == told["vault"] != lost.before
    lost.ceremony.stop()
    assert len(lost.changes()) == 1, "it is told once"


def test_shares_of_one_holder_do_not_open_the_vault(lost: Lost) -> None:
    """However many: a second name is wanted, also where all of them are of one forger's making."""
    own = tuple(replace(share, holder="alice") for share in lost.named)
    with pytest.raises(Rejected) as refused:
        lost.ceremony.combine(own, NEW)
    assert refused.value.code == "same_holder"
    with pytest.raises(Rejected) as refused:
        lost.ceremony.combine(lost.silent[:2], NEW, "alice", "alice")
    assert refused.value.code == "same_holder"


def test_shares_that_do_not_say_whose_they_are_want_names(lost: Lost) -> None:
    with pytest.raises(Rejected) as refused:
        lost.ceremony.combine(lost.silent[:2], NEW, "alice")
    assert [reason.code for reason in refused.value.reasons] == ["holders_wanted"]
    assert refused.value.reasons[0].subject == "share 2 of 3"
    for names in (("alice", "bob", "carol"), ("alice", "Bob")):
        with pytest.raises(UsageError):
            lost.ceremony.combine(lost.silent[:2], NEW, *names)
    with pytest.raises(UsageError):
        lost.ceremony.combine(lost.named[:2], NEW, "alice")
    lost.ceremony.combine(lost.silent[:2], NEW, "alice", "bob")
    assert lost.changes()[0]["holders"] == 2


def test_where_one_person_recovers_nobody_need_be_named_and_it_is_logged_all_the_same(place: Path) -> None:
    with Ceremony(place, rule=("unblock",)) as ceremony:
        case = Lost(ceremony)
        ceremony.combine(case.silent[:2], NEW)
        assert case.changes()[0]["holders"] == 0


def test_a_home_without_settings_wants_names(lost: Lost) -> None:
    """Who takes the settings away takes no rule away; the database may be gone too, and the vault still comes back."""
    home = lost.ceremony.bench.home
    away = [name for name in ("config.toml", "custodian.db") if (home / name).rename(home / f"{name}.away")]
    with pytest.raises(Rejected) as refused:
        lost.ceremony.combine(lost.silent[:2], NEW)
    assert refused.value.code == "holders_wanted"
    lost.ceremony.combine(lost.silent[:2], NEW, "alice", "bob")
    for name in away:
        (home / f"{name}.away").rename(home / name)
    assert len(lost.changes()) == 1


def test_two_recoveries_before_a_start_are_both_logged(lost: Lost) -> None:
    lost.ceremony.combine(lost.named[:2], NEW)
    between = EncryptedFileVault.open(lost.ceremony.bench.home / "vault.json", NEW).file_digest
    lost.ceremony.combine(_shares(lost, NEW), Passphrase(b"another one again"))
    first, second = lost.changes()
    assert (first["before"], first["vault"]) == (lost.before, between)
    assert (second["before"], second["vault"]) == (between, lost.ceremony.bench.service.vault_file)


def _shares(lost: Lost, unlock: Passphrase) -> tuple[Share, ...]:
    lost.ceremony.bench.unlock = unlock
    return lost.ceremony.split(None)


def test_a_vault_that_was_locked_anew_by_another_program_is_logged_as_unexplained(lost: Lost) -> None:
    """Leaving the note out leaves the entry in."""
    path = lost.ceremony.bench.home / "vault.json"
    relock(path, open_by_shares(path, lost.named[:2]), NEW)
    lost.ceremony.bench.unlock = NEW
    (told,) = lost.changes()
    assert told == {"kind": "unknown", "vault": lost.ceremony.bench.service.vault_file}


@pytest.mark.parametrize("damage", ["gone", "cut", "of another", "another key", "readable"])
def test_a_note_that_is_not_the_vault_s_own_word_explains_nothing(lost: Lost, damage: str) -> None:
    lost.ceremony.combine(lost.named[:2], NEW)
    (note,) = (lost.ceremony.bench.home / "vault-changes").iterdir()
    data = note.read_bytes()
    change = VaultChange.parse(Statement.parse(data, label=Label.VAULT_CHANGE).payload)
    vault = EncryptedFileVault.open(lost.ceremony.bench.home / "vault.json", NEW)
    key = vault.signing_key
    note.unlink()
    match damage:
        case "cut":
            note.touch(0o600)
            note.write_bytes(data[:-1])
        case "of another":
            write_change(lost.ceremony.bench.home, replace(change, after="00" * 32), key)
            (note.parent / f"{'00' * 32}.json").rename(note)
        case "another key":
            write_change(lost.ceremony.bench.home, change, SigningKey.generate())
        case "readable":
            write_change(lost.ceremony.bench.home, change, key)
            note.chmod(0o644)
    assert read_change(lost.ceremony.bench.home, change.after, key.verify_key) is None
    assert [told["kind"] for told in lost.changes()] == ["unknown"]


def test_a_crash_between_the_note_and_the_new_vault_file_is_no_change(lost: Lost) -> None:
    path = lost.ceremony.bench.home / "vault.json"
    (path.parent / "vault.json.new").touch()  # what a crash left lies in the way of the new one
    unlock = lost.ceremony.bench.unlock
    with pytest.raises((UsageError, Unavailable)):
        lost.ceremony.combine(lost.named[:2], NEW)
    assert len(list((path.parent / "vault-changes").iterdir())) == 1
    lost.ceremony.bench.unlock = unlock
    assert lost.changes() == []
    lost.ceremony.stop()
    (path.parent / "vault.json.new").unlink()
    lost.ceremony.combine(lost.named[:2], NEW)
    assert [told["kind"] for told in lost.changes()] == ["shares"]


def test_notes_in_a_ring_end(lost: Lost) -> None:
    lost.ceremony.combine(lost.named[:2], NEW)
    home = lost.ceremony.bench.home
    vault = EncryptedFileVault.open(home / "vault.json", NEW)
    (note,) = (home / "vault-changes").iterdir()
    change = VaultChange.parse(Statement.parse(note.read_bytes(), label=Label.VAULT_CHANGE).payload)
    note.unlink()
    other = "ab" * 32
    write_change(home, replace(change, before=other), vault.signing_key)
    write_change(home, replace(change, before=change.after, after=other), vault.signing_key)
    assert [told["kind"] for told in lost.changes()] == ["unknown", "shares", "shares"]


@pytest.mark.parametrize(
    "division",
    [
        Division(need=2, of=3, holders=("alice", "alice", "bob")),
        Division(need=2, of=3, holders=("alice", "bob")),
        Division(need=2, of=3, holders=("alice", "bob", "Carol")),
        Division(need=3, of=2),
        Division(need=1, of=2),
        Division(need=2, of=256),
    ],
    ids=repr,
)
def test_a_division_by_which_one_holder_has_the_key_is_refused(lost: Lost, division: Division) -> None:
    with pytest.raises(UsageError):
        lost.ceremony.split(None, division)


def test_somebody_may_hold_several_shares_and_not_enough(lost: Lost) -> None:
    shares = lost.ceremony.split(None, Division(need=3, of=4, holders=("alice", "alice", "bob", "carol")))
    lost.ceremony.combine(shares[:3], NEW)
    assert lost.changes()[0]["holders"] == 2
