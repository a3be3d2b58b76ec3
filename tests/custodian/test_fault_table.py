"""The table "Fault table" of docs/reliability.md, cell by cell: what it says happens is what happens.

A row without a proof here fails, and so does a proof without a row.
"""

from __future__ import annotations

import io
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_ground import Ground
from sealed_kit import CREATED, DEK, PUBLISHER

from cloister.cli.terminal import write_file
from cloister.client.receipts import VerifiedReceipt
from cloister.custodian.store.backup import back_up
from cloister.enclave.logs import Event, EventLog
from cloister.errors import CloisterError, Unavailable
from cloister.private_file import write_private
from cloister.sealed.directory import read_envelope, write_envelope
from cloister.sealed.envelope import Envelope, Recipient
from cloister.sealed.memfd import MemoryFile
from cloister.sealed.seal import seal_model
from cloister.testing.simulator import CrashPoint, Simulator
from fail_points import FailPoints, Fault, ProcessEnded

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
ALL = 10_000  # a point that no operation comes to


def rows() -> dict[str, tuple[str, str, str]]:
    """Return the table's effects, each with its three outcomes."""
    section = PAGE.read_text(encoding="utf-8").split("## Fault table")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section.splitlines() if "|" in line]
    found = {f"{party}: {effect}": (first, second, third) for party, effect, first, second, third in lines[2:]}
    assert len(found) == len(lines) - 2, "two rows about one effect"
    return found


def run(fault: Fault, point: str, which: int, work: Callable[[], Any], dry: Callable[[], Any]) -> str:
    """Run ``work`` with the fault at the ``which``-th of its points of this name; return what its caller heard."""
    looked = FailPoints(ALL, fault)
    with looked.standing():
        dry()
    at = [number for number, name in enumerate(looked.names, 1) if name == point][which]
    points, said = FailPoints(at, fault), "done"
    try:
        with points.standing():
            work()
    except Unavailable:
        said = "refused"
    except ProcessEnded:
        said = "ended"
    assert points.met == point
    return said


def outcome(said: str, *, happened: bool) -> str:
    return f"{said}, {'it happened' if happened else 'nothing happened'}"


# --- the custodian ---


def renewing(point: str, which: int) -> Callable[[Path, Fault], str]:
    """Prove a point of a renewal; every operation writes through the same ones."""

    def prove(place: Path, fault: Fault) -> str:
        (place / "dry").mkdir()
        (place / "true").mkdir()
        dry, ground = Ground(place / "dry"), Ground(place / "true")
        before = seq(ground)
        said = run(fault, point, which, ground.renew, dry.renew)
        dry.bench.close()
        ground.start_anew()
        happened = seq(ground) > before
        ground.demand_whole()
        ground.renew()
        assert seq(ground) == before + 1, "asked again, and counted twice"
        ground.bench.close()
        return outcome(said, happened=happened)

    return prove


def seq(ground: Ground) -> int:
    shown = ground.bench.get("/v1/instances").json()["instances"]
    return int(next(item["seq"] for item in shown if item["id"] == ground.toy.id))


def starting(point: str, which: int, made: str) -> Callable[[Path, Fault], str]:
    """Prove a point of a start on which the server's certificate is renewed."""

    def prove(place: Path, fault: Fault) -> str:
        (place / "dry").mkdir()
        (place / "true").mkdir()
        dry, ground = Ground(place / "dry"), Ground(place / "true")
        for each in (dry, ground):
            each.bench.close()
        target = ground.bench.home / made
        before = target.read_bytes() if target.exists() else b""
        if made == "lock":
            target.write_bytes(before := b"process 1\n")
        said = run(fault, point, which, ground.bench.open, dry.bench.open)
        dry.bench.close()
        happened = target.exists() and target.read_bytes() not in (b"", before)
        if said == "done":
            ground.bench.close()
        ground.bench.open()
        ground.demand_whole()
        ground.bench.close()
        return outcome(said, happened=happened)

    return prove


def secret_file(place: Path, fault: Fault) -> str:
    target = place / "secret"
    said = run(fault, "fsync", 0, lambda: write_private(target, b"x"), lambda: write_private(place / "dry", b"x"))
    happened = target.exists()
    assert not happened or target.read_bytes() == b"x"
    target.unlink(missing_ok=True)
    write_private(target, b"x")
    return outcome(said, happened=happened)


def backup_file(place: Path, fault: Fault) -> str:
    folder = place / "custodian"
    folder.mkdir()
    ground, out = Ground(folder), place / "copy.db"
    database = ground.bench.home / "custodian.db"
    said = run(fault, "open", 0, lambda: back_up(database, out), lambda: back_up(database, place / "dry.db"))
    happened = out.exists() and out.stat().st_size > 0
    out.unlink(missing_ok=True)
    assert back_up(database, out) > 0
    ground.bench.close()
    return outcome(said, happened=happened)


# --- who seals ---


def sealing(point: str, which: int) -> Callable[[Path, Fault], str]:
    def prove(place: Path, fault: Fault) -> str:
        plain, out = place / "plain", place / "out"
        plain.mkdir()
        (plain / "model").write_bytes(b"weights" * 1000)

        def seal(where: Path) -> None:
            seal_model(plain, where, name="m", dek=DEK, signer=PUBLISHER, card={}, created=CREATED)

        said = run(fault, point, which, lambda: seal(out), lambda: seal(place / "dry"))
        happened = out.exists()
        if happened:
            shutil.rmtree(out)
        seal(out)
        return outcome(said, happened=happened)

    return prove


def envelope_file(place: Path, fault: Fault) -> str:
    old, new = (
        Envelope(
            manifest_digest="a" * 64, recipients=(Recipient(kid=name * 32, key_version=1, kek_id="k", wrapped=b"w"),)
        )
        for name in "ab"
    )
    (place / "dry").mkdir()
    write_envelope(place, old)
    said = run(fault, "rename", 0, lambda: write_envelope(place, new), lambda: write_envelope(place / "dry", new))
    happened = read_envelope(place) == new
    assert happened or read_envelope(place) == old
    write_envelope(place, new)
    return outcome(said, happened=happened)


# --- the enclave ---


def memory_file(_place: Path, fault: Fault) -> str:
    kept: list[MemoryFile] = []
    dry = lambda: MemoryFile(10).close()  # noqa: E731 - one use
    said = run(fault, "memfd_create", 0, lambda: kept.append(MemoryFile(10)), dry)
    dry()
    return outcome(said, happened=bool(kept))


class BadStream(io.StringIO):
    """A log whose disk is full, or whose reader is gone."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault

    def write(self, text: str) -> int:
        if self.fault is not Fault.NOT_DONE:
            super().write(text)
        if self.fault is Fault.CRASH:
            raise ProcessEnded
        raise OSError


def log_line(_place: Path, fault: Fault) -> str:
    stream, said = BadStream(fault), "done"
    try:
        EventLog(lambda: CREATED, stream).write(next(iter(Event)))
    except ProcessEnded:
        said = "ended"
    return outcome(said, happened=bool(stream.getvalue()))


def lease_request(_place: Path, fault: Fault) -> str:
    with Simulator(seed=1) as sim:
        loan = sim.lend(allowance=50, max_ceiling=5)
        enclave = sim.launch(loan, renews=False)
        before = enclave.snapshot.seq
        (enclave.link.requests if fault is Fault.NOT_DONE else enclave.link.answers).drop()
        with pytest.raises(Unavailable):
            enclave.renew()
        happened = seen_seq(sim, enclave.id) > before
        if fault is Fault.CRASH:
            enclave.crash()
            sim.launch(loan)
            return outcome("ended", happened=happened)
        enclave.renew()
        assert enclave.snapshot.seq == before + 1
        return outcome("refused", happened=happened)


def lease_answer(_place: Path, fault: Fault) -> str:
    with Simulator(seed=1) as sim:
        enclave = sim.launch(sim.lend(), renews=False)
        before, said = enclave.snapshot.seq, "done"
        match fault:
            case Fault.NOT_DONE:
                enclave.link.answers.drop()
            case Fault.DONE:
                enclave.link.requests.duplicate()
            case _:
                sim.custodian.crash_at(CrashPoint.BEFORE_ANSWER)
        try:
            enclave.renew()
        except Unavailable:
            said = "refused"
        if fault is Fault.CRASH:
            said = "ended"
            sim.custodian.restart()
        happened = seen_seq(sim, enclave.id) > before
        with suppress(CloisterError):  # the double of the first answer may come first
            enclave.renew()
        enclave.renew()
        return outcome(said, happened=happened)


def seen_seq(sim: Simulator, instance: str) -> int:
    shown = sim.custodian.call("GET", "/v1/instances").demand()["instances"]
    return int(next(item["seq"] for item in shown if item["id"] == instance))


# --- consumer and borrower ---


def receipt_file(place: Path, fault: Fault) -> str:
    kept = VerifiedReceipt.__new__(VerifiedReceipt)
    said_dump = b"receipt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VerifiedReceipt, "dump", lambda _: said_dump)
        target = place / "receipt.json"
        said = run(fault, "fsync", 0, lambda: kept.save(target), lambda: kept.save(place / "dry.json"))
        happened = target.exists()
        assert not happened or target.read_bytes() == said_dump + b"\n"
        target.unlink(missing_ok=True)
        kept.save(target)
    return outcome(said, happened=happened)


def loan_file(place: Path, fault: Fault) -> str:
    target = place / "loan.json"
    said = run(fault, "replace", 0, lambda: write_file(target, b"x"), lambda: write_file(place / "dry", b"x"))
    happened = target.exists()
    assert not happened or target.read_bytes() == b"x"
    write_file(target, b"x", force=True)
    return outcome(said, happened=happened)


PROOFS: dict[str, Callable[[Path, Fault], str]] = {
    "custodian: database statement": renewing("insert into audit", 0),
    "custodian: database commit": renewing("commit", -1),
    "custodian: checkpoint written": renewing("write", 0),
    "custodian: checkpoint flushed": renewing("fsync", 0),
    "custodian: checkpoint renamed": renewing("replace", 0),
    "custodian: checkpoint's folder flushed": renewing("fsync", -1),
    "custodian: answer sent": lease_answer,
    "custodian: lock file written": starting("pwrite", 0, "lock"),
    "custodian: server certificate written": starting("write_bytes", 0, "tls/server.pem"),
    "custodian: server certificate renamed": starting("replace", 1, "tls/server.pem"),
    "custodian: vault or key file flushed": secret_file,
    "custodian: backup made": backup_file,
    "sealer: part written": sealing("pwrite", 0),
    "sealer: manifest written": sealing("pwrite", -1),
    "sealer: package renamed": sealing("rename", 0),
    "sealer: package's folder flushed": sealing("fsync", -1),
    "sealer: envelope renamed": envelope_file,
    "enclave: lease request sent": lease_request,
    "enclave: memory file made": memory_file,
    "enclave: log line written": log_line,
    "consumer: receipt file flushed": receipt_file,
    "borrower: loan file renamed": loan_file,
}
CELLS = [(name, number) for name in rows() for number in range(3)]


def test_every_row_has_a_proof_and_every_proof_a_row() -> None:
    assert set(rows()) == set(PROOFS)


@pytest.mark.parametrize(("name", "number"), CELLS, ids=lambda cell: re.sub(r"[^a-z0-9]+", "-", str(cell)))
def test_what_the_table_says_happens(place: Path, name: str, number: int) -> None:
    assert name in PROOFS, f"{name}: a row without a proof"
    assert PROOFS[name](place, list(Fault)[number]) == rows()[name][number]
