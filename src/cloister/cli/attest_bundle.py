"""``cloister attest bundle``: vendors' endorsements in one signed file, for a site without a network."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.binding import NO_DEVICES
from cloister.attest.endorse.bundle import MAX_BUNDLE_BYTES, Bundle, BundleFile, Entry, verify_bundle
from cloister.attest.endorse.fetch import FolderEndorsements, OnlineEndorsements, https_client
from cloister.attest.endorse.gather import gather
from cloister.attest.endorse.names import parse_name
from cloister.attest.endorse.sources import Sources
from cloister.attest.endorse.vouch import production_vouch
from cloister.attest.endorse.window import ALWAYS, Window, window_of
from cloister.attest.parts import dump_parts, is_parts
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.schemes import production_schemes
from cloister.attest.verifier import Verifier
from cloister.cli.evidence_files import read_evidence
from cloister.cli.remote import custodian_home, home_option
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.cli.unlock import unlock_options, unlock_with
from cloister.crypto.sign import VerifyKey
from cloister.custodian.setup import bundle_place, open_vault, verify_home_bundle
from cloister.errors import UsageError
from cloister.wire import dump_time, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

    from cloister.attest.endorse import Endorsements
    from cloister.wire import Json

__all__ = ["bundle"]

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_MAX_DAYS = 90
_KEY_BYTES = 32
_keys = click.option("--key", "keys", multiple=True, help="Public key that may sign it (base64url); repeat for more.")
_force = click.option("--force", is_flag=True, help="Replace the file.")


@click.group(cls=Group)
def bundle() -> None:
    """Carry vendors' endorsements to where there is no network: export, sign, verify, import."""


@bundle.command()
@click.option(
    "--for", "evidence", multiple=True, metavar="TEE=FILE", help="Evidence whose endorsements are wanted; repeat."
)
@click.option("--name", "names", multiple=True, help="An endorsement by its name; repeat for more.")
@click.option("--from", "folder", type=_folder, help="Take them from this folder, not from the vendors' services.")
@click.option(
    "--jwks-host", "jwks_hosts", multiple=True, metavar="HOST[/PATH]", help="Token service that may be asked."
)
@click.option("--environment-proxies", is_flag=True, help="Take a proxy from the environment.")
@click.option("--days", type=click.IntRange(1, _MAX_DAYS), default=30, show_default=True, help="How long it is good.")
@click.option(
    "--version", type=click.IntRange(min=1), help="Its version; more than any before [default seconds of now]."
)
@click.option("--out", type=_file, required=True, help="File to write: a draft, to be signed.")
@_force
@pass_terminal
def export(
    terminal: Terminal,
    /,
    *,
    evidence: tuple[str, ...],
    names: tuple[str, ...],
    folder: Path | None,
    jwks_hosts: tuple[str, ...],
    environment_proxies: bool,
    days: int,
    version: int | None,
    out: Path,
    force: bool,
) -> None:
    """Collect what the given evidence needs, from the vendors or from a folder, into a draft.

    Each object is checked as it arrives; nobody accepts the draft before it is signed.
    """
    demand_writable([out], force=force)
    now = datetime.now(UTC).replace(microsecond=0)
    window = Window(now, now + timedelta(days=days))
    with tempfile.TemporaryDirectory(prefix="cloister-") as cache:
        source = _source(folder, jwks_hosts, Path(cache), environment_proxies=environment_proxies)
        found = _collect(source, evidence, names, now)
    entries = [_entry(name, data, window, whence=folder) for name, data in sorted(found.items())]
    made = Bundle(version=version or int(now.timestamp()), window=window, entries=tuple(entries))
    write_file(out, made.dump(), force=force)
    terminal.result(_json(made, signed_by=None), lambda console: _draw(terminal, made, console))
    terminal.say(f"{out}: a draft; sign it with 'cloister attest bundle sign'", style="dim")


def _source(folder: Path | None, hosts: tuple[str, ...], cache: Path, *, environment_proxies: bool) -> Endorsements:
    """Return where the objects come from: a folder, or the vendors, through a cache that lives as long as this."""
    if folder is not None:
        return FolderEndorsements(folder)
    client = https_client(environment_proxies=environment_proxies)
    return OnlineEndorsements(client, vouch=production_vouch(), sources=Sources(hosts), cache=FolderEndorsements(cache))


def _collect(
    source: Endorsements, evidence: Iterable[str], names: tuple[str, ...], now: datetime
) -> Mapping[str, bytes]:
    """Return the named endorsements and those that the evidence needs. Raises ``UsageError`` for none at all."""
    found = dict(source.fetch(names, now)) if names else {}
    for item in map(_evidence, evidence):
        verifier = Verifier(production_schemes(kinds={item.tee}))
        found |= gather(verifier, source, item, NO_DEVICES, now)
    if not found:
        msg = "bundle: nothing to put into it"
        raise UsageError(msg, hint="pass --for TEE=FILE with evidence that needs endorsements, or --name")
    return found


def _evidence(text: str) -> Evidence:
    """Return the evidence in a file: a payload as 'attest collect' writes it, or its main part alone."""
    from cloister.attest.dossier.table import DOSSIERS  # noqa: PLC0415 - imports every verifier

    tee, equals, path = text.partition("=")
    if not tee or not equals or not path:
        msg = f"--for {text}: want TEE=FILE"
        raise UsageError(msg)
    data = read_evidence(Path(path))
    bare = tee in DOSSIERS and not is_parts(data)
    return Evidence(tee=TeeKind(tee), payload=dump_parts({DOSSIERS[tee].main: data}) if bare else data)


def _entry(text: str, data: bytes, window: Window, *, whence: Path | None) -> Entry:
    """Return an entry with the object's own window, or the bundle's for an object that says nothing of its own."""
    name = parse_name(text)
    own = window_of(name, data)
    origin = Sources().origin(name) if whence is None else f"file {text}"
    return Entry(name=name, data=data, source=origin, window=window if own == ALWAYS else own)


@bundle.command()
@click.argument("file", type=_file)
@click.option("--out", type=_file, required=True, help="File to write: the signed bundle.")
@_force
@home_option
@unlock_options
@pass_terminal
def sign(
    terminal: Terminal,
    /,
    *,
    file: Path,
    out: Path,
    force: bool,
    home: Path | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Sign FILE with the signing key of a custodian's vault.

    Whoever pins that key ('cloister custodian show') accepts the bundle until it expires.
    """
    demand_writable([out], force=force)
    content = BundleFile.parse(_read(file)).read()
    place = custodian_home(home)
    key = open_vault(place, unlock_with(place, key_file, passphrase_file)).signing_key
    write_file(out, content.sign(key), force=force)
    terminal.result(_json(content, signed_by=key.key_id), lambda console: _draw(terminal, content, console))
    terminal.say(f"{out}: signed by {key.verify_key.dump()}", style="dim")


@bundle.command()
@click.argument("file", type=_file)
@_keys
@pass_terminal
def verify(terminal: Terminal, /, *, file: Path, keys: tuple[str, ...]) -> None:
    """Prove that one of the keys signed FILE for today, and that everything in it is what its index says.

    Vendors' signatures inside are proven by whoever uses it. Exit code 4: refused.
    """
    if not keys:
        msg = "bundle verify: no key to trust"
        raise UsageError(msg, hint="pass --key; 'cloister custodian show' prints a custodian's")
    found = verify_bundle(_read(file), _parse_keys(keys), datetime.now(UTC), last=None)
    content = found.bundle
    terminal.result(_json(content, signed_by=found.key_id), lambda console: _draw(terminal, content, console))
    terminal.say(f"signed by {found.key_id}, good until {dump_time(content.window.not_after)}", style="dim")


@bundle.command()
@click.argument("file", type=_file)
@pass_terminal
def inspect(terminal: Terminal, /, *, file: Path) -> None:
    """List what FILE holds, with windows, what ends first on top. Proves nothing."""
    found = BundleFile.parse(_read(file))
    content = found.read()
    signer = None if found.statement is None else found.statement.key_id
    terminal.result(_json(content, signed_by=signer), lambda console: _draw(terminal, content, console))
    said = "a draft, signed by nobody" if signer is None else f"says it is signed by {signer}; nothing is proven here"
    terminal.say(said, style="dim")


@bundle.command("import")
@click.argument("file", type=_file)
@_keys
@home_option
@pass_terminal
def import_(terminal: Terminal, /, *, file: Path, keys: tuple[str, ...], home: Path | None) -> None:
    """Put FILE into a custodian's home once it is proven; a running custodian takes it up at its next need.

    The custodian itself accepts its own key and those of its setting endorsement_keys. A bundle older than the
    last one it accepted is refused.
    """
    place = custodian_home(home)
    data = _read(file)
    found = verify_home_bundle(place, data, keys=_parse_keys(keys), environment=os.environ)
    target = bundle_place(place, environment=os.environ)
    write_file(target, data, force=True)
    content = found.bundle
    terminal.result(_json(content, signed_by=found.key_id), lambda console: _draw(terminal, content, console))
    terminal.say(f"{target}: version {content.version}", style="dim")


def _parse_keys(keys: tuple[str, ...]) -> list[VerifyKey]:
    return [VerifyKey(parse_b64u(item, what="--key", size=_KEY_BYTES)) for item in keys]


def _read(path: Path) -> bytes:
    """Return a bundle's bytes. Raises ``UsageError`` for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def _json(content: Bundle, *, signed_by: str | None) -> Json:
    return {
        "entries": [entry.to_json() for entry in content.entries],
        "not_after": dump_time(content.window.not_after),
        "not_before": dump_time(content.window.not_before),
        "signed_by": signed_by,
        "version": content.version,
    }


def _draw(terminal: Terminal, content: Bundle, out: Console) -> None:
    rows = [
        (f"{item.window.not_after:%Y-%m-%d %H:%M}", f"{item.window.not_before:%Y-%m-%d %H:%M}", f"{len(item.data):,}",
         item.name.text, item.source)
        for item in sorted(content.entries, key=lambda item: item.window.not_after)
    ]  # fmt: skip
    window = content.window
    out.print(f"version {content.version}, good from {dump_time(window.not_before)} to {dump_time(window.not_after)}")
    out.print(terminal.table(("until", "from", "bytes", "name", "source"), rows))
