"""``cloister attest token verify``: prove a result of an attestation service, as any Relying Party does."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.consumer import draw_checks
from cloister.cli.evidence_files import read_evidence
from cloister.cli.terminal import EXIT_REJECTED, Group, Terminal, Verb, pass_terminal
from cloister.errors import UsageError
from cloister.wire import dump_time

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.attest.ear import Ear
    from cloister.wire import Json

__all__ = ["token"]

_MAX_TOKEN_BYTES = 512 * 1024
_file = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.group(cls=Group)
def token() -> None:
    """Prove results of attestation services."""


@token.command(cls=Verb)
@click.argument("issuer", metavar="ISSUER")
@click.option("--token-file", "token_file", type=_file, default=Path("-"), help="File with the token [default: stdin].")
@click.option("--audience", help="Who you are: the token has to be for you. Without it any audience passes, loudly.")
@click.option("--nonce", help="Nonce that the token has to answer, base64url.")
@click.option("--jwks", type=_file, help="The issuer's keys from this file; nobody is asked.")
@click.option("--ca", type=_file, help="Authorities of the issuer's certificate, in PEM [default the system's].")
@pass_terminal
def verify(
    terminal: Terminal,
    /,
    *,
    issuer: str,
    token_file: Path,
    audience: str | None,
    nonce: str | None,
    jwks: Path | None,
    ca: Path | None,
) -> int:
    """Prove that the attestation service at ISSUER says this, to you, now; and show what it says.

    ISSUER is a URL, exactly as in the token: its keys are found by OpenID discovery below it, or read from --jwks.

    Exit code 0: proven, and the service accepted the evidence. 4: the token is not believed, or it says no. 3:
    malformed. 5: the keys were not to be had.
    """
    from cloister.attest.rats import TrustTier  # noqa: PLC0415 - of no other command
    from cloister.verifier.reader import Reader, fetch_keys, parse_keys  # noqa: PLC0415 - brings the client along

    data = _read(token_file)
    keys = parse_keys(read_evidence(jwks, what="keys")) if jwks is not None else fetch_keys(issuer, ca=ca)
    if audience is None:
        terminal.warn("no --audience: this token may be for somebody else")
    ear = Reader(issuer=issuer, keys=keys, audience=audience, nonce=nonce).verify(data, datetime.now(UTC))
    terminal.result(_json(ear), lambda out: _draw(terminal, ear, out))
    return EXIT_REJECTED if ear.tier is TrustTier.CONTRAINDICATED else 0


def _read(path: Path) -> str:
    if str(path) == "-":
        data = sys.stdin.buffer.read(_MAX_TOKEN_BYTES + 1)
    else:
        data = read_evidence(path, what="token", cap=_MAX_TOKEN_BYTES)
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError as exc:
        msg = "token: not ascii"
        raise UsageError(msg) from exc
    if not text:
        msg = "token: empty"
        raise UsageError(msg, hint="pass --token FILE, or the token on stdin")
    return text


def _json(ear: Ear) -> Json:
    return {
        "claims": {name: list(value) if isinstance(value, tuple) else value for name, value in ear.claims.items()},
        "expires_at": dump_time(ear.expires_at),
        "issuer": ear.issuer,
        "policy": ear.policy_digest,
        "status": ear.tier.value,
        "submodules": {name: item.tier.value for name, item in ear.submodules.items()},
        "tee": ear.tee,
    }


def _draw(terminal: Terminal, ear: Ear, out: Console) -> None:
    draw_checks(terminal, ear.checks, out)
    out.print(f"{ear.issuer} says {ear.tier.value} of {ear.tee}, until {dump_time(ear.expires_at)}")
