"""Witnesses against a custodian that lies: shrunk, forked, split, replayed (T54, T92)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from log_kit import BORROWER, CUSTODIAN, LOG, NOW, WITNESSES, Face, entries

from cloister.client.witness import LogSource, Witness
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.tlog.advance import Advance
from cloister.lending.tlog.checkpoint import demand_quorum, sign_log_checkpoint, verify_log_checkpoint
from cloister.lending.tlog.cosignature import cosign
from cloister.lending.tlog.note import SignedNote
from cloister.lending.tlog.witness import WitnessState, cosign_advance, verify_advance
from mutations import mutated

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = LogSource(url="https://custodian.example", ca_pem=None)
NAME = WITNESSES[0].name


def remembered(face: Face, size: int) -> WitnessState:
    """Return what a witness remembers that saw ``face`` at ``size``."""
    advance = Advance.parse(face.advance(0, size))
    return cosign_advance(WitnessState(name=NAME, log=LOG), advance, BORROWER, NOW)[0]


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness.create(tmp_path / "w", name=NAME, log=LOG, source=SOURCE)


@pytest.mark.parametrize("old", range(12))
def test_a_log_that_grows_is_cosigned_at_each_size(old: int) -> None:
    face = Face(entries(12))
    for size in range(old, 13):
        kept, note = cosign_advance(remembered(face, old), Advance.parse(face.advance(old, size)), BORROWER, NOW)
        assert (kept.size, kept.root) == (size, face.tree.root_at(size))
        verified = verify_log_checkpoint(note.dump(), LOG, WITNESSES)
        assert verified.cosigned == {NAME: NOW}
        assert WitnessState.parse(kept.dump()) == kept


def test_a_log_that_shrank_is_not_cosigned() -> None:
    face = Face(entries(12))
    with pytest.raises(Rejected, match="log_shrunk"):
        verify_advance(remembered(face, 12), Advance.parse(face.advance(12, 11)))


def test_t92_two_faces_of_one_size_convict() -> None:
    honest, other = Face(entries(12)), Face([*entries(11), b"another"])
    with pytest.raises(Rejected, match="split_view"):
        verify_advance(remembered(honest, 12), Advance.parse(other.advance(12)))


@pytest.mark.parametrize("forked_at", range(12))
def test_t92_a_longer_log_with_another_past_is_refused_wherever_it_forked(forked_at: int) -> None:
    honest = Face(entries(12))
    other = Face([*entries(forked_at), *entries(20 - forked_at, "forged")])
    with pytest.raises(Rejected, match="not_consistent"):
        verify_advance(remembered(honest, 12), Advance.parse(other.advance(12)))


def test_a_proof_from_another_size_does_not_stand_in() -> None:
    face = Face(entries(12))
    for old in (0, 3, 7):
        with pytest.raises(Rejected, match="wrong_proof"):
            verify_advance(remembered(face, 8), Advance.parse(face.advance(old)))


def test_a_checkpoint_of_another_log_or_another_key_is_refused() -> None:
    face = Face(entries(5))
    stranger = SigningKey(b"s" * 32)
    theirs = sign_log_checkpoint(stranger, size=5, root=face.tree.root())
    with pytest.raises(Rejected, match="unknown_key"):
        verify_advance(WitnessState(name=NAME, log=LOG), Advance(old=0, proof=(), checkpoint=theirs.dump()))


def test_a_cosignature_is_no_vote_for_another_size_or_log() -> None:
    face = Face(entries(5))
    four, five = face.note(4), face.note(5)
    moved = five.signed_also((cosign(BORROWER, NAME, four.text, NOW),))
    with pytest.raises(Rejected, match="signature_invalid"):
        verify_log_checkpoint(moved.dump(), LOG, WITNESSES)


def test_one_witness_under_two_names_is_one_of_the_quorum() -> None:
    face = Face(entries(5))
    twin = type(WITNESSES[0])(name="twin.example", kind=WITNESSES[0].kind, key=WITNESSES[0].key)
    note = face.note()
    note = note.signed_also((cosign(BORROWER, NAME, note.text, NOW), cosign(BORROWER, twin.name, note.text, NOW)))
    verified = verify_log_checkpoint(note.dump(), LOG, (WITNESSES[0], twin))
    assert len(verified.cosigned) == 2
    demand_quorum(verified, (WITNESSES[0], twin), 1)
    with pytest.raises(Rejected, match="quorum_missed"):
        demand_quorum(verified, (WITNESSES[0], twin), 2)


def test_a_plain_key_is_no_witness() -> None:
    with pytest.raises(Rejected, match="unknown_key"):
        verify_log_checkpoint(Face(entries(3)).note().dump(), LOG, (LOG,))


def test_what_a_witness_remembers_must_be_what_its_checkpoint_says() -> None:
    state = remembered(Face(entries(9)), 9)
    for changed in (
        WitnessState(name=NAME, log=LOG, size=8, root=state.root, checkpoint=state.checkpoint),
        WitnessState(name=NAME, log=LOG, size=9, root=bytes(32), checkpoint=state.checkpoint),
        WitnessState(name=NAME, log=LOG, size=9, root=state.root, checkpoint=b""),
    ):
        with pytest.raises(Malformed):
            WitnessState.parse(changed.dump())


def test_ten_thousand_damaged_states_are_malformed() -> None:
    for data in mutated(remembered(Face(entries(9)), 9).dump(), count=3000):
        try:
            WitnessState.parse(data)
        except Malformed:
            continue


def test_a_witness_on_disk_goes_on_where_it_was(witness: Witness) -> None:
    face = Face(entries(20))
    asked = []

    def fetch(old: int) -> bytes:
        asked.append(old)
        return face.advance(old, 7 * (len(asked)))

    for _ in range(2):
        note = Witness(witness.folder).round(fetch, NOW)
        assert verify_log_checkpoint(note.dump(), LOG, [witness.key]).cosigned == {NAME: NOW}
    assert asked == [0, 7]
    assert Witness(witness.folder).state.size == 14
    assert (witness.folder / "cosigned.note").read_bytes() == note.dump()


def test_the_key_of_a_witness_is_its_owners_alone(witness: Witness) -> None:
    assert (witness.folder / "key").stat().st_mode & 0o777 == 0o600
    assert witness.folder.stat().st_mode & 0o777 == 0o700
    (witness.folder / "key").chmod(0o644)
    with pytest.raises(UsageError, match="0600"):
        Witness(witness.folder)


def test_no_second_witness_takes_a_folder(witness: Witness) -> None:
    with pytest.raises(UsageError):
        Witness.create(witness.folder, name=NAME, log=LOG, source=SOURCE)
    with pytest.raises(Malformed):
        Witness.create(witness.folder / "other", name="a name", log=LOG, source=SOURCE)
    assert not (witness.folder / "other").exists()


def test_two_rounds_at_once_are_one(witness: Witness) -> None:
    face = Face(entries(5))
    inside, done = threading.Event(), threading.Event()

    def slow(old: int) -> bytes:
        inside.set()
        assert done.wait(10)
        return face.advance(old)

    first = threading.Thread(target=lambda: witness.round(slow, NOW))
    first.start()
    assert inside.wait(10)
    with pytest.raises(Unavailable):
        Witness(witness.folder).round(face.advance, NOW)
    done.set()
    first.join()
    assert Witness(witness.folder).state.size == 5


def test_t92_evidence_of_two_faces_is_kept_and_nothing_is_cosigned(witness: Witness) -> None:
    honest, other = Face(entries(12)), Face([*entries(5), *entries(9, "forged")])
    witness.round(honest.advance, NOW)
    before = (witness.folder / "cosigned.note").read_bytes()
    with pytest.raises(Rejected, match="not_consistent") as caught:
        witness.round(other.advance, NOW)
    assert "evidence" in str(caught.value.hint)
    (place,) = (witness.folder / "evidence").iterdir()
    shown = [verify_log_checkpoint((place / name).read_bytes(), LOG) for name in ("remembered.note", "shown.note")]
    assert [(item.size, item.root) for item in shown] == [(12, honest.tree.root()), (14, other.tree.root())]
    assert Advance.parse((place / "answer.txt").read_bytes()).old == 12
    assert (witness.folder / "cosigned.note").read_bytes() == before
    assert Witness(witness.folder).state.size == 12
    with pytest.raises(Rejected):
        witness.round(other.advance, NOW)
    assert len(list((witness.folder / "evidence").iterdir())) == 1
    witness.round(honest.advance, NOW)  # and the honest log goes on


def test_t54_t92_a_custodian_with_a_face_for_each_reader_is_found_out_when_two_compare(tmp_path: Path) -> None:
    """Each reader alone sees a log that only grows. Their checkpoints together convict, whatever the sizes."""
    for sizes in ((9, 9), (9, 12), (12, 9)):
        faces = (Face([*entries(6), *entries(9, "for one")]), Face([*entries(6), *entries(9, "for the other")]))
        folder = tmp_path / f"{sizes}"
        folder.mkdir()
        readers = [Witness.create(folder / name, name=name, log=LOG, source=SOURCE) for name in ("one", "other")]
        for reader, face, last in zip(readers, faces, sizes, strict=True):
            for size in (2, 7, last):
                reader.round(lambda old, face=face, size=size: face.advance(old, size), NOW)  # type: ignore[misc]
        peer = (readers[1].folder / "cosigned.note").read_bytes()
        with pytest.raises(Rejected) as caught:
            readers[0].compare(peer, faces[0].advance)
        assert caught.value.code == ("split_view" if sizes[0] == sizes[1] else "not_consistent")
        (place,) = (readers[0].folder / "evidence").iterdir()
        assert verify_log_checkpoint((place / "shown.note").read_bytes(), LOG).root == faces[1].tree.root_at(sizes[1])


def test_two_readers_of_one_log_agree_whatever_their_sizes(tmp_path: Path) -> None:
    face = Face(entries(15))
    one = Witness.create(tmp_path / "one", name="one", log=LOG, source=SOURCE)
    with pytest.raises(UsageError):
        one.compare(face.note().dump(), face.advance)
    one.round(lambda old: face.advance(old, 8), NOW)
    for size in range(16):
        assert one.compare(face.note(size).dump(), face.advance).size == size
    assert not (tmp_path / "one" / "evidence").exists()


def test_a_peers_checkpoint_that_nobody_signed_convicts_nobody(witness: Witness) -> None:
    face = Face(entries(5))
    witness.round(face.advance, NOW)
    forged = SignedNote.parse(face.note().dump().replace(b"\n5\n", b"\n6\n"))
    with pytest.raises(Rejected, match="signature_invalid"):
        witness.compare(forged.dump(), face.advance)
    assert not (witness.folder / "evidence").exists()


def test_a_crash_before_the_state_is_durable_cosigns_nothing(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    face = Face(entries(5))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloister.client.witness.os.fsync", full)
    with pytest.raises(Unavailable):
        witness.round(face.advance, NOW)
    monkeypatch.undo()
    assert not (witness.folder / "cosigned.note").exists()
    assert Witness(witness.folder).state.size == 0
    assert {path.name for path in witness.folder.iterdir()} == {"key", "lock", "source.json", "state.json"}


def test_the_custodians_own_signature_is_never_a_statement() -> None:
    with pytest.raises(UsageError):
        CUSTODIAN.sign_text(b"DSSEv1 4 text 4 text")
    with pytest.raises(Rejected, match="signature_invalid"):
        CUSTODIAN.verify_key.verify_text(b"DSSEv1 4 text 4 text", CUSTODIAN._key.sign(b"DSSEv1 4 text 4 text"))
