"""``cloister custodian issuer``: whose word counts about callers, beside tokens of the custodian's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.errors import UsageError
from cloister.identity import Issuer
from cloister.identity.issuer import MAX_ISSUER_BYTES
from cloister.wire import Fields, Json, parse_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["issuer"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def issuer() -> None:
    """Let a site's own identities in: OpenID Connect, Kubernetes, SPIFFE, client certificates."""


@issuer.command()
@click.argument("document", type=_file)
@click.option(
    "--keys", type=_file, help="JWKS or SPIFFE trust bundle with the issuer's keys, for sites without a way to it."
)
@click.option("--authorities", type=_file, help="PEM file with the roots, for kind certificates.")
@remote_options
@pass_terminal
def add(
    terminal: Terminal,
    /,
    *,
    document: Path,
    keys: Path | None,
    authorities: Path | None,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    token_file: str | None,
) -> None:
    """Register an issuer by its DOCUMENT (JSON), in the place of the one of its name.

    The document says what its tokens must be and which of its subjects have which role. What it means is proven here
    before it is sent.
    """
    members = _object(document)
    if keys is not None:
        members["keys"] = _object(keys)
    if authorities is not None:
        members["authorities"] = _read(authorities).decode("ascii", "replace")
    checked = Issuer.take(Fields(members, what=str(document)))
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        answer = remote.post("/v1/issuers", checked.to_json())
    terminal.result(answer, lambda out: out.print(answer["id"]))
    if checked.keys is None:
        terminal.say("its keys are fetched now; see 'cloister custodian issuer list'", style="dim")


@issuer.command("list")
@remote_options
@pass_terminal
def list_issuers(
    terminal: Terminal, /, *, home: Path | None, url: str | None, ca: Path | None, token_file: str | None
) -> None:
    """List issuers, and how it stands with their keys."""
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        answer = remote.get("/v1/issuers")

    def show(out: Console) -> None:
        rows = [_row(item) for item in answer["issuers"]]
        out.print(terminal.table(("ID", "KIND", "ISSUER", "RULES", "KEYS"), rows))

    terminal.result(answer, show)


def _row(item: Any) -> tuple[str, ...]:
    keys = item["keys"]
    state = f"{keys['count']}, {keys['fetched_at'] or keys['source']}"
    if keys["problem"]:
        state += f"; {keys['problem']}"
    rules = "" if item["document"] is None else str(len(item["document"]["rules"]))
    return item["id"], item["kind"] or "", item["issuer"] or "", rules, state


@issuer.command()
@click.argument("issuer_id", metavar="ID")
@remote_options
@pass_terminal
def remove(
    terminal: Terminal,
    /,
    *,
    issuer_id: str,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    token_file: str | None,
) -> None:
    """Trust an issuer no longer: from now on nobody is proven by it."""
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        answer = remote.delete(f"/v1/issuers/{segment(issuer_id)}")
    terminal.result(answer, lambda out: out.print(f"{issuer_id} removed"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ISSUER_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def _object(path: Path) -> dict[str, Json]:
    value = parse_json(_read(path), what=str(path), cap=MAX_ISSUER_BYTES)
    if not isinstance(value, dict):
        msg = f"{path}: want a json object"
        raise UsageError(msg)
    return dict(value)
