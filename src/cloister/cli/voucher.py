"""``cloister loan voucher``: units for a place without a network, by files that somebody carries.

On the enclave's machine: request. On the custodian's: sign, settle. On any machine that reaches the custodian with the
borrower's loan file: challenge, attest, with which an enclave boots that reaches nobody. Anywhere: show.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import from_loan_file, from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.crypto.sign import MAX_STATEMENT_BYTES, Label, Statement, VerifyKey
from cloister.enclave.media import ASK, CLOSE, CONSUMPTION, USAGE_FILES, VOUCHER_REQUEST
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.messages import Close, Consumption, UsageAck, UsageReport, Voucher, VoucherRequest
from cloister.lending.terms import LOAN_METER
from cloister.wire import Fields, Json, dump_b64u, dump_json, parse_b64u, parse_json

if TYPE_CHECKING:
    from cloister.lending.messages import Units

__all__ = ["voucher"]

_Settled = UsageReport | Consumption | Close
_ANSWER = "custodian's answer"
_KEY_BYTES = 32
_LOOK_EVERY_S = 0.2
_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_out = click.option("--out", type=_file, required=True, help="File to write.")
_force = click.option("--force", is_flag=True, help="Replace the file.")
_loan_file = click.option("--loan-file", type=_file, required=True, help="The loan file the custodian gave you.")


@click.group(cls=Group)
def voucher() -> None:
    """Bring units to an enclave without a network, and its count back."""


def _read(path: Path) -> bytes:
    """Return a file of at most one statement."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATEMENT_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > MAX_STATEMENT_BYTES:
        msg = f"{path}: more than {MAX_STATEMENT_BYTES} bytes"
        raise Malformed(msg)
    return data


@voucher.command()
@click.argument("folder", type=_folder)
@click.option("--wait", type=click.IntRange(1, 3600), default=30, show_default=True, help="Seconds to wait.")
@pass_terminal
def request(terminal: Terminal, /, *, folder: Path, wait: int) -> None:
    """Ask the enclave that serves here for a new voucher request; FOLDER is its setting 'media'.

    The voucher's time runs from now. A request that was made before is given up.
    """
    path = folder / VOUCHER_REQUEST
    before = path.read_bytes() if path.exists() else None
    try:
        (folder / ASK).touch()
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise UsageError(msg, hint="name the folder of the enclave's setting 'media'") from exc
    deadline = time.monotonic() + wait
    while not path.exists() or path.read_bytes() == before:
        if time.monotonic() > deadline:
            (folder / ASK).unlink(missing_ok=True)
            msg = f"{path}: no answer from an enclave within {wait} s"
            raise Unavailable(msg, hint="is it running with this folder as its setting 'media'?")
        time.sleep(_LOOK_EVERY_S)
    terminal.result({"request": str(path)}, lambda out: out.print(f"{path}\ncarry it to the custodian"))


@voucher.command()
@click.argument("request_file", metavar="REQUEST", type=_file)
@click.option("--units", type=click.IntRange(min=1), help="Let it carry at most this many.")
@_out
@_force
@remote_options
@pass_terminal
def sign(terminal: Terminal, /, *, request_file: Path, units: int | None, out: Path, force: bool, **where: Any) -> None:
    """Sign the voucher that a request file asks for, and debit the loan. The same request gets the same voucher."""
    data = _read(request_file)
    asked = VoucherRequest.parse(Statement.parse(data, label=VoucherRequest.LABEL).payload)
    demand_writable((out,), force=force)
    body: dict[str, Json] = {"request": dump_b64u(data)}
    with from_options(**where) as remote:
        path = f"/v1/loans/{segment(asked.loan)}/vouchers"
        made = remote.send(path, dump_json(body | ({"units": units} if units else {})), media_type="application/json")
    given = Voucher.parse(Statement.parse(made, label=Voucher.LABEL).payload)
    write_file(out, made, force=force)
    terminal.result({"out": str(out), **_voucher_json(given)}, lambda console: console.print("\n".join(_lines(given))))


@voucher.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--loan-file", type=_file, help="Bring them as the borrower, with this loan file.")
@remote_options
@pass_terminal
def settle(terminal: Terminal, /, *, files: tuple[Path, ...], loan_file: Path | None, **where: Any) -> None:
    """Give the custodian what an enclave wrote: usage reports, consumption statements, a last count.

    Give FILES in any order, or a folder that an enclave wrote to. One that was brought before changes nothing.
    """
    brought = _in_order([file for given in files for file in _within(given)])
    connection = from_options(**where) if loan_file is None else from_loan_file(loan_file)[0]
    told: list[Json] = []
    words: list[str] = []
    with connection as remote:
        for path, message, data in brought:
            answer = remote.send(_route(message), data)
            shown, line = _answered(message, answer)
            told.append({"file": str(path), **shown})
            words.append(f"{path.name}: {line}")
    terminal.result({"files": told}, lambda out: out.print("\n".join(words)))


def _within(given: Path) -> list[Path]:
    """Return a file, or those of a folder that an enclave writes for the custodian."""
    if not given.is_dir():
        return [given]
    found = [path for name in (USAGE_FILES, CONSUMPTION, CLOSE) for path in sorted(given.glob(name))]
    if not found:
        msg = f"{given}: nothing to settle in this folder"
        raise UsageError(msg, hint="give the folder of the enclave's setting 'media', or a copy of it")
    return found


def _in_order(files: list[Path]) -> list[tuple[Path, _Settled, bytes]]:
    """Return what is to be brought, reports before what names their heads. Raises ``UsageError`` for anything else."""
    read: list[tuple[Path, _Settled, bytes]] = []
    for path in files:
        data = _read(path)
        message = _parse(data)
        if not isinstance(message, UsageReport | Consumption | Close):
            msg = f"{path}: neither a consumption statement, a usage report nor a last count"
            raise UsageError(msg, hint="'cloister loan voucher show' says what a file is")
        read.append((path, message, data))
    return sorted(read, key=lambda item: _rank(item[1]))


def _rank(message: _Settled) -> tuple[int, int]:
    match message:
        case UsageReport():
            return 0, message.first
        case Consumption():
            return 1, message.number
        case _:
            return 2, message.seq


def _route(message: _Settled) -> str:
    match message:
        case UsageReport():
            return f"/v1/instances/{segment(message.instance)}/usage"
        case Consumption():
            return f"/v1/loans/{segment(message.loan)}/vouchers/settle"
        case _:
            return f"/v1/instances/{segment(message.instance)}/close"


def _answered(message: _Settled, answer: bytes) -> tuple[dict[str, Json], str]:
    """Return an answer for programs and in words."""
    match message:
        case UsageReport():
            last = UsageAck.parse(Statement.parse(answer, label=UsageAck.LABEL).payload).last
            return {"first": message.first, "last": last}, f"records {message.first} to {last} are with the custodian"
        case Consumption():
            fields = Fields(parse_json(answer, what=_ANSWER), what=_ANSWER)
            shown = {name: dict(fields.members(name, cap=2000)) for name in ("settled", "used", "owed")}
            return {**shown}, _settled(shown)
        case _:
            return {"closed": True}, "closed"


def _settled(answer: dict[str, dict[str, Json]]) -> str:
    settled, used, owed = (answer[name].get(LOAN_METER, 0) for name in ("settled", "used", "owed"))
    return f"settled {settled}, used {used} in all" + (f", owed {owed}: the next top-up pays it first" if owed else "")


@voucher.command()
@click.argument("file", type=_file)
@click.option(
    "--key", help="Public key to verify with (base64url): the custodian's for a voucher, else the instance's."
)
@pass_terminal
def show(terminal: Terminal, /, *, file: Path, key: str | None) -> None:
    """Say what a file is and what it promises; with --key prove who signed it. Asks nobody."""
    data = _read(file)
    message = _parse(data)
    proven = key is not None
    if key is not None:
        public = VerifyKey(parse_b64u(key, what="--key", size=_KEY_BYTES))
        Statement.parse(data, label=message.LABEL).verify([public])
    note = "the signature was proven" if proven else "NOT PROVEN: pass --key to prove who signed it"
    members = _voucher_json(message) if isinstance(message, Voucher) else _other_json(message)
    result: Json = {**members, "proven": proven}
    terminal.result(result, lambda out: out.print("\n".join([*_lines(message), note])))


def _parse(data: bytes) -> VoucherRequest | Voucher | Consumption | UsageReport | Close:
    """Return what a file says, unverified. Raises ``Malformed`` for what is none of ours."""
    for kind in (VoucherRequest, Voucher, Consumption, UsageReport, Close):
        try:
            payload = Statement.parse(data, label=kind.LABEL).payload
        except Rejected:
            continue
        parsed: VoucherRequest | Voucher | Consumption | UsageReport | Close = kind.parse(payload)
        return parsed
    msg = "file: want a voucher request, a voucher, a consumption statement, a usage report or a last count"
    raise Malformed(msg)


def _units(units: Units) -> Json:
    return {str(meter): count for meter, count in units.items()}


def _voucher_json(message: Voucher) -> dict[str, Json]:
    return {
        "instance": message.instance,
        "kind": "voucher",
        "lasts_s": int(message.lasts.total_seconds()),
        "limits": _units(message.limits),
        "loan": message.loan,
        "overdraft": message.overdraft,
        "seq": message.seq,
    }


def _other_json(message: VoucherRequest | Consumption | UsageReport | Close) -> dict[str, Json]:
    if isinstance(message, UsageReport):
        return {"first": message.first, "instance": message.instance, "kind": "usage report", "last": message.last}
    kind = {Label.VOUCHER_REQUEST: "voucher request", Label.CONSUMPTION: "consumption statement", Label.CLOSE: "close"}
    number = message.number if isinstance(message, Consumption) else message.seq
    return {"instance": message.instance, "kind": kind[message.LABEL], "number": number, "used": _units(message.used)}


def _lines(message: VoucherRequest | Voucher | Consumption | UsageReport | Close) -> list[str]:
    """Return a message in plain words."""
    who = f"instance {message.instance[:16]}"
    if isinstance(message, Voucher):
        limit = message.limits.get(LOAN_METER, 0)
        days = message.lasts / timedelta(days=1)
        beyond = f" and {message.overdraft} beyond, to be settled later" if message.overdraft else ""
        return [
            f"voucher {message.seq} for {who}, {message.loan}",
            f"it may have served {limit} units in all{beyond}, counted since it was started",
            f"for {days:g} days from when it asked; a block does not reach it before",
        ]
    if isinstance(message, UsageReport):
        return [f"usage report of {who}, {message.loan}: records {message.first} to {message.last}"]
    used = message.used.get(LOAN_METER, 0)
    if isinstance(message, VoucherRequest):
        room = message.want.get(LOAN_METER, 0) - used
        return [f"voucher request {message.seq} of {who}, {message.loan}", f"served {used}, asks for {room} more"]
    if isinstance(message, Consumption):
        spoken = f"statement {message.number} of {who}, {message.loan}, {message.at:%Y-%m-%d %H:%M} by its clock"
        return [spoken, f"served {used} in all; receipts {message.first} to {message.last} under this voucher"]
    return [f"last count of {who}: served {used}; its keys are erased"]


@voucher.command()
@_loan_file
@_out
@_force
@pass_terminal
def challenge(terminal: Terminal, /, *, loan_file: Path, out: Path, force: bool) -> None:
    """Fetch a challenge for an enclave that reaches nobody; put it into its folder as challenge.json."""
    _fetch(terminal, loan_file, "challenge", b"", out=out, force=force)


@voucher.command()
@click.argument("statement", type=_file)
@_loan_file
@_out
@_force
@pass_terminal
def attest(terminal: Terminal, /, *, statement: Path, loan_file: Path, out: Path, force: bool) -> None:
    """Bring an enclave's attest.json to the custodian and fetch the keys, encrypted to it, as grant.json."""
    _fetch(terminal, loan_file, "attest", _read(statement), out=out, force=force)


def _fetch(terminal: Terminal, loan_file: Path, verb: str, body: bytes, *, out: Path, force: bool) -> None:
    demand_writable((out,), force=force)
    remote, loan = from_loan_file(loan_file)
    with remote:
        answer = remote.send(f"/v1/loans/{segment(loan)}/{verb}", body)
    write_file(out, answer, force=force)
    terminal.result({"out": str(out)}, lambda console: console.print(f"{out}\ncarry it to the enclave"))
