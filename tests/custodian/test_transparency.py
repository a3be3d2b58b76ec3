"""The public log over HTTP, and what a stranger does not see of it (T54, T83, T92)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from custodian_kit import Bench

from cloister.crypto.sign import SigningKey
from cloister.custodian.store.log import append_entries
from cloister.errors import Rejected
from cloister.lending.audit import MAX_ENTRY_BYTES, AuditEntry, MerkleTree, next_entry
from cloister.lending.events import Event, EventKind
from cloister.lending.merkle import verify_consistency
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import log_key, sign_log_checkpoint, verify_log_checkpoint
from cloister.lending.tlog.cosignature import cosign, cosigner_key
from cloister.lending.tlog.note import SignedNote
from cloister.lending.tlog.proof import LogProof, verify_log_proof
from cloister.lending.tlog.tiles import ENTRIES, parse_bundle, tile_hashes, tiles_of
from cloister.lending.tlog.witness import WitnessState, cosign_advance
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = {"content-type": "text/plain"}
WITNESS, SECOND, STRANGER = (SigningKey(letter * 32) for letter in (b"w", b"x", b"y"))
KEYS = tuple(cosigner_key(key, name) for key, name in ((WITNESS, "borrower.example"), (SECOND, "consumer.example")))
SETTINGS = {"witnesses": tuple(key.dump() for key in KEYS)}


@pytest.fixture
def watched(place: Path) -> Iterator[Bench]:
    """Yield a custodian whose settings name two witnesses."""
    with Bench(place, settings=SETTINGS) as opened:
        yield opened


def public(bench: Bench, path: str) -> Any:
    """GET as a stranger."""
    return bench.client.get(path)


def lines(bench: Bench) -> list[bytes]:
    return [dump_json(entry) for entry in bench.audit()]


def tree(bench: Bench, size: int | None = None) -> MerkleTree:
    grown = MerkleTree()
    for line in lines(bench)[:size]:
        grown.append(line)
    return grown


def cosigned(bench: Bench, key: SigningKey, name: str, **query: Any) -> bytes:
    """Return the checkpoint that is offered, cosigned."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    note = SignedNote.parse(public(bench, f"/log/checkpoint?{asked}").content)
    return note.signed_also((cosign(key, name, note.text, bench.clock()),)).dump()


def hand_in(bench: Bench, note: bytes) -> Any:
    return bench.client.post("/log/cosignatures", content=note, headers=TEXT)


def test_a_stranger_gets_a_checkpoint_that_only_this_custodian_can_have_signed(bench: Bench) -> None:
    answer = public(bench, "/log/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    verified = verify_log_checkpoint(answer.content, log_key(bench.init.key))
    assert (verified.size, verified.root) == (len(lines(bench)), tree(bench).root())
    with pytest.raises(Rejected, match="unknown_key"):
        verify_log_checkpoint(answer.content, log_key(STRANGER.verify_key))


def test_any_earlier_size_is_signed_again_and_no_later_one(bench: Bench) -> None:
    size = len(lines(bench))
    for earlier in range(size + 1):
        verified = verify_log_checkpoint(
            public(bench, f"/log/checkpoint?size={earlier}").content, log_key(bench.init.key)
        )
        assert verified.root == tree(bench, earlier).root()
    assert public(bench, f"/log/checkpoint?size={size + 1}").status_code == 404
    assert public(bench, "/log/checkpoint?size=-1").status_code == 400


def test_consistency_is_proven_from_every_size_to_every_later_one(bench: Bench) -> None:
    whole = tree(bench)
    for old in range(whole.size + 1):
        for size in range(old, whole.size + 1):
            advance = Advance.parse(public(bench, f"/log/consistency?old={old}&size={size}").content)
            fresh = verify_log_checkpoint(advance.checkpoint, log_key(bench.init.key))
            verify_consistency(
                old_size=old, old_root=whole.root_at(old), size=fresh.size, root=fresh.root, proof=advance.proof
            )
    assert public(bench, f"/log/consistency?old={whole.size + 1}").status_code == 404
    assert public(bench, "/log/consistency").status_code == 400
    assert public(bench, "/log/consistency?old=3&size=2").status_code == 404


def test_tiles_are_anybodys_and_entries_are_not(bench: Bench) -> None:
    whole = tree(bench)
    lent = bench.lend()
    auditor = bench.token("auditor")
    for tile in tiles_of(whole.size):
        answer = public(bench, f"/log/{tile.path()}")
        if tile.level == ENTRIES:
            assert answer.status_code == 401
            assert bench.get(f"/log/{tile.path()}", lent.token).status_code == 403
            bundle = bench.get(f"/log/{tile.path()}", auditor)
            assert bundle.headers["content-type"] == "application/octet-stream"
            entries = parse_bundle(bundle.content, width=tile.width, cap=MAX_ENTRY_BYTES)
            assert list(entries) == lines(bench)[tile.start : tile.start + tile.width]
        else:
            assert answer.content == tile_hashes(whole, tile)


@pytest.mark.parametrize(
    "path",
    ["0/000", "0/001.p/1", "0/000.p/200", "1/000", "1/000.p/1", "entries/000", "entries/000.p/200", "63/000.p/1"],
)
def test_a_tile_that_is_not_there_is_not_found(bench: Bench, path: str) -> None:
    assert bench.get(f"/log/tile/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["0/0", "0/x000/000", "00/000", "64/000", "0/000.p/0", "0/000.p/256", "entries", "entries/", "-1/000",
     "entries/1", "0/000/", "0/../0/000", "0/000.p/01", "0/000%0a", "0/x999/x999/x999/x999/x999/999"],
)  # fmt: skip
def test_a_path_that_is_none_of_the_layout_gets_no_tile(bench: Bench, path: str) -> None:
    assert bench.get(f"/log/tile/{path}").status_code in {400, 404}


def test_an_entry_is_proven_offline_with_nothing_but_the_file_and_the_key(bench: Bench) -> None:
    whole = lines(bench)
    for index, line in enumerate(whole):
        proof = LogProof.parse(bench.get(f"/v1/audit/{index}/proof").content)
        assert (proof.index, proof.extra) == (index, line)
        verify_log_proof(proof, line, log_key(bench.init.key), witnesses=(), quorum=0)
        with pytest.raises(Rejected, match="not_included"):
            verify_log_proof(proof, line + b" ", log_key(bench.init.key), witnesses=(), quorum=0)
    assert bench.get(f"/v1/audit/{len(whole) + 9}/proof").status_code == 404
    assert bench.get("/v1/audit/01/proof").status_code == 400
    assert bench.get("/v1/audit/x/proof").status_code == 400
    assert bench.get("/v1/audit/2/proof?size=2").status_code == 404
    assert bench.get("/v1/audit/2/proof?size=3").status_code == 200


def test_a_borrower_reads_and_proves_what_is_about_its_loan_and_sees_no_trace_of_others(bench: Bench) -> None:
    lent, other = bench.lend(), bench.lend()
    lent.boot().renew()
    page = bench.get(f"/v1/loans/{lent.id}/audit?limit=1000", lent.token).json()
    mine = page["entries"]
    assert {"loan_created", "key_released", "lease_granted"} <= {entry["kind"] for entry in mine}
    whole = bench.audit()
    assert mine == [e for e in whole if lent.id in (e["subject"], e["details"].get("loan"))]
    assert page["last"] + 1 == page["size"] == len(whole)
    theirs = {entry["index"] for entry in mine}
    for index in range(len(whole)):
        answer = bench.get(f"/v1/audit/{index}/proof", lent.token)
        assert answer.status_code == (200 if index in theirs else 404)
    beyond = bench.get(f"/v1/audit/{len(whole) + 100}/proof", lent.token)
    assert beyond.json() == bench.get("/v1/audit/0/proof", lent.token).json()
    assert bench.get(f"/v1/loans/{other.id}/audit", lent.token).status_code == 404
    assert public(bench, f"/v1/loans/{lent.id}/audit").status_code == 401
    assert public(bench, "/v1/audit/0/proof").status_code == 401


def test_witnesses_meet_at_one_size_and_their_cosignatures_are_served(watched: Bench) -> None:
    watched.clock.advance(60)
    for key, name in ((WITNESS, KEYS[0].name), (SECOND, KEYS[1].name)):
        watched.lend()  # the log grows between the two
        assert hand_in(watched, cosigned(watched, key, name)).json()["kept"] == [name]
    offered = verify_log_checkpoint(public(watched, "/log/checkpoint").content, log_key(watched.init.key), KEYS)
    assert set(offered.cosigned) == {key.name for key in KEYS}
    assert offered.size < len(lines(watched))
    found = public(watched, "/log/checkpoint?witnesses=2").content
    assert verify_log_checkpoint(found, log_key(watched.init.key), KEYS).size == offered.size
    proof = LogProof.parse(watched.get("/v1/audit/0/proof?witnesses=2").content)
    verify_log_proof(proof, lines(watched)[0], log_key(watched.init.key), witnesses=KEYS, quorum=2)
    with pytest.raises(Rejected, match="quorum_missed"):
        verify_log_proof(proof, lines(watched)[0], log_key(watched.init.key), witnesses=KEYS, quorum=3)
    watched.restart()
    assert public(watched, "/log/checkpoint?witnesses=2").content == found


def test_a_quorum_that_nobody_made_is_refused(watched: Bench) -> None:
    for ask in ("/log/checkpoint?witnesses=1", "/log/consistency?old=0&witnesses=1"):
        answer = public(watched, ask)
        assert (answer.status_code, answer.json()["code"]) == (409, "quorum_missed")
    assert public(watched, "/log/checkpoint?witnesses=1&size=1").status_code == 400
    assert public(watched, "/log/checkpoint?witnesses=99").status_code == 400
    watched.clock.advance(60)
    assert hand_in(watched, cosigned(watched, WITNESS, KEYS[0].name)).status_code == 200
    last = len(lines(watched)) - 1
    assert public(watched, "/log/checkpoint?witnesses=1").status_code == 200
    watched.lend()
    assert watched.get(f"/v1/audit/{last + 1}/proof?witnesses=1").json()["code"] == "quorum_missed"
    assert watched.get(f"/v1/audit/{last + 1}/proof").status_code == 200


def test_a_cosignature_of_a_stranger_or_over_another_log_is_not_kept(watched: Bench) -> None:
    assert hand_in(watched, cosigned(watched, STRANGER, "stranger.example")).json()["code"] == "unknown_key"
    assert hand_in(watched, cosigned(watched, STRANGER, KEYS[0].name)).json()["code"] == "unknown_key"
    plain = public(watched, "/log/checkpoint").content
    assert hand_in(watched, plain).json()["code"] == "unknown_key"
    assert hand_in(watched, b"nonsense").json()["code"] == "malformed"
    good = cosigned(watched, WITNESS, KEYS[0].name)
    assert hand_in(watched, good.replace(b"cloister/audit/", b"cloister/other/")).status_code == 403
    note = SignedNote.parse(good)
    broken = SignedNote(text=note.text, signatures=(note.signatures[0], _bent(note.signatures[1])))
    assert hand_in(watched, broken.dump()).json()["code"] == "signature_invalid"
    key = watched.service.context.vault.signing_key
    for size, root in ((3, bytes(32)), (10_000, bytes(32))):
        forged = sign_log_checkpoint(key, size=size, root=root)
        forged = forged.signed_also((cosign(WITNESS, KEYS[0].name, forged.text, watched.clock()),))
        assert hand_in(watched, forged.dump()).json()["code"] == "not_consistent"
    assert (
        watched.client.post("/log/cosignatures", content=good, headers={"content-type": "text/html"}).status_code == 415
    )
    assert public(watched, "/log/checkpoint?witnesses=1").status_code == 409


def _bent(signature: Any) -> Any:
    """Return a signature with its last bit turned."""
    bent = signature.signature[:-1] + bytes([signature.signature[-1] ^ 1])
    return type(signature)(name=signature.name, hash=signature.hash, signature=bent)


def test_the_same_cosignature_twice_is_kept_once_and_grows_nothing(watched: Bench) -> None:
    watched.clock.advance(60)
    note = cosigned(watched, WITNESS, KEYS[0].name)
    before = len(lines(watched))
    assert hand_in(watched, note).json()["kept"] == [KEYS[0].name]
    assert hand_in(watched, note).json()["kept"] == []
    watched.clock.advance(5)
    later = cosigned(watched, WITNESS, KEYS[0].name, size=SignedNote.parse(note).text.split("\n")[1])
    assert hand_in(watched, later).json()["kept"] == [KEYS[0].name]
    assert len(lines(watched)) == before
    served = verify_log_checkpoint(
        public(watched, "/log/checkpoint?witnesses=1").content, log_key(watched.init.key), KEYS
    )
    assert served.cosigned[KEYS[0].name] == watched.clock().replace(microsecond=0)


def test_a_witness_that_is_ahead_of_the_window_is_not_told_that_the_log_shrank(watched: Bench) -> None:
    watched.clock.advance(60)
    watched.lend()
    newest = len(lines(watched))
    state = WitnessState(name=KEYS[0].name, log=log_key(watched.init.key))
    ahead = Advance.parse(public(watched, f"/log/consistency?old=0&size={newest}").content)
    state, _ = cosign_advance(state, ahead, WITNESS, watched.clock())
    again = Advance.parse(public(watched, f"/log/consistency?old={newest}").content)
    state, note = cosign_advance(state, again, WITNESS, watched.clock())
    assert state.size == newest
    assert hand_in(watched, note.dump()).json() == {"kept": [KEYS[0].name], "size": newest}


def test_forgotten_cosignatures_are_the_oldest(watched: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.custodian.store.cosignatures.KEPT_PER_WITNESS", 2)
    for size in (1, 2, 3):
        assert hand_in(watched, cosigned(watched, WITNESS, KEYS[0].name, size=size)).json()["kept"]
    served = [
        len(SignedNote.parse(public(watched, f"/log/checkpoint?size={size}").content).signatures) for size in (1, 2, 3)
    ]
    assert served == [1, 2, 2]


def test_entries_that_another_process_wrote_are_in_the_log_at_once(bench: Bench) -> None:
    """A reader that is sent from one process of the custodian to another must never see the log shrink."""
    context = bench.service.context
    size = context.size
    event = Event(kind=EventKind.MODEL_WITHDRAWN, actor="lender", subject="model")
    entry = next_entry(event, index=size, at=bench.clock(), previous=context.tree.leaf(size - 1))
    with context.store.writing() as connection:
        append_entries(connection, [(size, entry.at, entry.dump())])
    verified = verify_log_checkpoint(public(bench, "/log/checkpoint").content, log_key(bench.init.key))
    assert (verified.size, context.size) == (size + 1, size)
    assert LogProof.parse(bench.get(f"/v1/audit/{size}/proof").content).extra == entry.dump()
    context._log.tree.append_hash(entry.leaf)  # as this process does once it learns of it
    context._log.previous = entry.leaf
    assert context.tree.root() == verified.root


def test_what_is_shown_was_durable_before(bench: Bench) -> None:
    """The checkpoint that a stranger gets is never ahead of the one outside the database."""
    bench.lend()
    outside = bench.service.context.checkpoint()
    shown = verify_log_checkpoint(public(bench, "/log/checkpoint").content, log_key(bench.init.key))
    assert (shown.size, shown.root) == (outside.size, outside.root)
    assert AuditEntry.parse(lines(bench)[-1]).index == shown.size - 1
