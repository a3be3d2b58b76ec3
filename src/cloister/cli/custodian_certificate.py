"""``cloister custodian certificate``: certificates of hours for people, borrowers, relays and proxies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.cli.certificate_file import beside, new_request
from cloister.cli.duration import parse_duration
from cloister.cli.pending import settled
from cloister.cli.remote import from_loan_file, from_options, remote_options, token_place
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.errors import Malformed, UsageError
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from cloister.cli.certificate_file import Certified
    from cloister.cli.remote import Remote
    from cloister.wire import Json

__all__ = ["certificate"]

_file = click.Path(path_type=Path, dir_okay=False)
_MAX_DAYS = 7
_MAX_CSR_BYTES = 16 * 1024


@click.group(cls=Group)
def certificate() -> None:
    """Ask for certificates, list them, end them all."""


@certificate.command()
@click.option(
    "--kind", type=click.Choice(["operator", "borrower", "relay", "proxy"]), default="operator", show_default=True,
    help="What it is for: by default whoever's token is shown.",
)  # fmt: skip
@click.option("--name", help="Of a relay or proxy; or another's, as ROLE/TOKEN or a loan's id.")
@click.option("--loan-file", type=_file, help="Ask as the borrower of this loan file, for itself.")
@click.option("--life", metavar="TIME", help="How long it is good for, such as 2h; as long as the custodian lets it.")
@click.option("--server", is_flag=True, help="Also for listeners; relays and proxies only.")
@click.option("--renewable", is_flag=True, help="Its holder renews it while your token is good; relays, proxies only.")
@click.option("--csr", type=_file, help="Certify the key of this PKCS #10 request, in PEM, and make none.")
@click.option("--out", type=_file, help="File for key and certificate, mode 0600 [default beside the token].")
@click.option("--authorities", type=_file, help="File for the authorities that peers believe, in PEM.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@remote_options
@pass_terminal
def issue(
    terminal: Terminal,
    /,
    *,
    kind: str,
    name: str | None,
    loan_file: Path | None,
    life: str | None,
    server: bool,
    renewable: bool,
    csr: Path | None,
    out: Path | None,
    authorities: Path | None,
    force: bool,
    **where: Any,
) -> None:
    """Have a key certified, for hours. Without --csr the key is made here and never leaves this machine.

    For your own token the certificate comes to lie beside it (TOKEN_FILE.pem, or LOAN_FILE.pem), where commands find
    it, show it, and renew it by themselves. A custodian with mtls_tokens = "require" takes no token without.
    """
    own = kind in {"operator", "borrower"} and name is None and csr is None
    if loan_file is not None:
        kind = "borrower"
    if out is None and not (own or loan_file is not None):
        msg = "certificate issue: want --out for what is not your own"
        raise UsageError(msg)
    place = out or beside(loan_file or token_place(**where))
    demand_writable([place, authorities], force=force or (own and out is None))
    body: dict[str, Json] = {"kind": kind, "name": name, "server": server or None, "renewable": renewable or None}
    if life is not None:
        body["life_s"] = int(parse_duration(life, days=_MAX_DAYS).total_seconds())
    made = None if csr is not None else new_request()
    body["csr"] = _request(csr) if made is None else made.csr
    with _remote(loan_file, where) as remote:
        shown = remote.send_json("/v1/certificates", {key: value for key, value in body.items() if value is not None})
    _write(place, shown, made)
    if authorities is not None:
        write_file(authorities, str(shown["authorities"]).encode("ascii"), force=force)
    told = {key: shown[key] for key in ("ends_at", "fingerprint", "name")}
    terminal.result({**told, "file": str(place)}, lambda console: console.print(f"{told['name']}\n{place}"))
    terminal.say(f"good until {told['ends_at']}", style="dim")


def _remote(loan_file: Path | None, where: dict[str, Any]) -> Remote:
    """Return a connection that shows no certificate: who has none yet, or none any more, asks here."""
    if loan_file is not None:
        return from_loan_file(loan_file, shows=False)[0]
    return from_options(**where, shows=False)


def _request(path: Path | None) -> str:
    """Return a request that somebody made elsewhere, as the API takes it."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CSR_BYTES)
        return dump_b64u(x509.load_pem_x509_csr(data).public_bytes(Encoding.DER))
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    except (ValueError, x509.InvalidVersion) as exc:
        msg = f"{path}: not a pkcs #10 request in pem"
        raise Malformed(msg) from exc


def _write(place: Path, shown: Any, made: Certified | None) -> None:
    text = str(shown["certificate"])
    data = text.encode("ascii") if made is None else made.joined(text)
    write_file(place, data, force=True, private=made is not None)


@certificate.command("list")
@remote_options
@pass_terminal
def list_(terminal: Terminal, /, **where: Any) -> None:
    """List certificates that have not ended, and the authorities that issued them."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/certificates")
    rows = [
        (item["name"], item["issued_at"], item["ends_at"], str(item["authority"]), item["fingerprint"][:16])
        for item in shown["certificates"]
    ]
    columns = ("name", "issued", "ends", "authority", "fingerprint")
    terminal.result(dict(shown), lambda out: out.print(terminal.table(columns, rows)))


@certificate.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote_options
@pass_terminal
def replace(terminal: Terminal, /, *, yes: bool, **where: Any) -> None:
    """Believe none of the authorities any more: every certificate ends at once, and another authority issues.

    For when a key of an authority may be known. Enclaves come back by themselves; people and hosts ask anew.
    """
    terminal.confirm("Every certificate ends now. Go on?", yes=yes)
    with from_options(**where) as remote:
        shown = settled(terminal, remote, remote.post("/v1/certificates/authorities", {}), wait=False)
    terminal.result(dict(shown), lambda out: out.print(f"{shown['retired']} authorities are believed no more"))
