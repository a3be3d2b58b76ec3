"""``cloister model verify``: prove that a copy of a sealed model is whole, without any key that opens it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.model_maker import claim_json
from cloister.cli.model_second import read_second, second_option
from cloister.cli.store_options import demand_digest, digest_option, store_access, store_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.crypto.sign import VerifyKey
from cloister.errors import Malformed, Reason, Rejected, UsageError
from cloister.sealed.directory import strangers
from cloister.sealed.manifest import Manifest, model_digest
from cloister.sealed.mirror import check_mirror
from cloister.sealed.parts import read_parts
from cloister.sealed.publisher import ManifestSignature, verify_manifest
from cloister.stores import open_source, parse_place
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from cloister.crypto.mldsa import SecondKey
    from cloister.sealed.parts import Package
    from cloister.wire import Json

__all__ = ["verify_model"]

_KEY_BYTES = 32


@click.command("verify", cls=Verb)
@click.argument("package")
@click.option("--publisher", help="The publisher's public key (base64url), known from elsewhere than the package.")
@second_option
@digest_option
@store_options
@pass_terminal
def verify_model(
    terminal: Terminal,
    /,
    *,
    package: str,
    publisher: str | None,
    second_publisher: Path | None,
    digest: str | None,
    ca: Path | None,
    token_file: Path | None,
) -> None:
    """Prove that PACKAGE, a folder or a URL, is whole: what a mirror needs, and no key that opens anything.

    Holds every encrypted segment against the manifest and names all that differ. Who published it is proven by
    --publisher, which model it is by --digest; without both, only that the copy agrees with itself.
    """
    demand_digest(digest)
    second = read_second(second_publisher)
    if second is not None and publisher is None:
        msg = "--second-publisher: proves nothing alone"
        raise UsageError(msg, hint="pass --publisher too")
    access = store_access(package, ca, token_file)
    place = parse_place(package)
    with open_source(place, access=access, whole=True) as source:
        manifest, got = _manifest(read_parts(source), publisher, second, digest)
        if isinstance(place, Path):
            _refuse_strangers(place, manifest)
        with terminal.progress(f"verifying {manifest.name}") as report:
            checked = check_mirror(source, manifest, got, progress=report)
    if publisher is None:
        terminal.say("whole in itself; who published it was not proven: pass --publisher")
    claim = claim_json(manifest)
    result: Json = {
        "bytes": checked.bytes,
        "digest": got,
        "envelope": checked.envelope,
        "files": len(manifest.files),
        "makers": claim,
        "name": manifest.name,
        "publisher_proven": publisher is not None,
        "segments": checked.segments,
    }
    words = f"whole: {manifest.name}, {len(manifest.files)} files, {checked.segments} segments, {checked.bytes} bytes"
    if manifest.maker is not None:
        words += "\nsealed with a maker's signature, held to: " + ", ".join(one.shown for one in manifest.maker.trusted)
    terminal.result(result, lambda out: out.print(f"{words}\ndigest {got}"))


def _manifest(
    parts: Package, publisher: str | None, second: SecondKey | None, digest: str | None
) -> tuple[Manifest, str]:
    """Return the manifest and its digest, proven by what is known of it from elsewhere."""
    got = model_digest(parts.manifest_bytes)
    if digest is not None and got != digest:
        raise Rejected.because("wrong_model", "manifest", got=got, want=digest)
    if publisher is not None:
        keys = [_key(publisher)]
        return verify_manifest(parts.manifest_bytes, parts.signature_bytes, keys, second=second).manifest, got
    ManifestSignature.parse(parts.signature_bytes)
    return Manifest.parse(parts.manifest_bytes), got


def _key(text: str) -> VerifyKey:
    try:
        return VerifyKey(parse_b64u(text, what="--publisher", size=_KEY_BYTES))
    except Malformed as exc:
        raise UsageError(exc.message, hint="'cloister custodian show' prints the publisher's key") from exc


def _refuse_strangers(root: Path, manifest: Manifest) -> None:
    """Refuse a folder with more in it than its manifest says: nobody signed for the rest."""
    reasons = tuple(Reason(code="not_of_the_package", subject=name) for name in strangers(root, manifest))
    if reasons:
        shown = ", ".join(reason.subject for reason in reasons[:8])
        raise Rejected(f"{root}: no part of the model: {shown}", reasons=reasons, hint="remove it, or copy again")
