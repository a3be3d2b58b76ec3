"""``cloister model push`` and ``pull``: sealed models into stores and out of them, going on where it was broken off."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import UsageError
from cloister.sealed.directory import DirectorySource
from cloister.stores import ModelUrl, open_source, open_target, parse_place, pull, push, read_access

if TYPE_CHECKING:
    from cloister.stores import Access
    from cloister.wire import Json

__all__ = ["pull_model", "push_model"]

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _access(url: str, ca: Path | None, token_file: Path | None) -> Access:
    """Return what lets us in there. Raises ``UsageError`` for a token where none is shown."""
    place = parse_place(url)
    if token_file is not None and not (isinstance(place, ModelUrl) and place.takes_token):
        msg = f"{place}: takes no token"
        raise UsageError(msg, hint="credentials of buckets come from the environment: docs/reference/sources.md")
    return read_access(ca=ca, token_file=token_file, environment=os.environ)


@click.command("push", cls=Verb)
@click.argument("package", type=_folder)
@click.argument("url")
@click.option("--ca", type=_file, help="PEM file of the authority of the store's TLS certificate.")
@click.option("--token-file", type=_file, help="File with a bearer token for the store (mode 0600).")
@click.option("--replace-envelope", is_flag=True, help="Replace the envelope there, after a rotation of keys.")
@pass_terminal
def push_model(
    terminal: Terminal, /, *, package: Path, url: str, ca: Path | None, token_file: Path | None, replace_envelope: bool
) -> None:
    """Put a sealed model into a bucket or registry. Run it again where it was broken off.

    Nothing there is overwritten, and the manifest comes last: a model is there as a whole or not at all. Only
    ciphertext leaves, each segment held against its leaf hash on its way.
    """
    access = _access(url, ca, token_file)
    with open_target(url, access=access) as target, terminal.progress(f"pushing {package.name}") as report:
        pushed = push(DirectorySource(package), target, replace_envelope=replace_envelope, progress=report)
    result: Json = {
        "digest": pushed.digest,
        "kept": pushed.kept,
        "name": pushed.name,
        "url": url,
        "written": pushed.written,
        "written_bytes": pushed.written_bytes,
    }
    words = f"pushed {pushed.name}: {pushed.written} parts written, {pushed.kept} were there\ndigest {pushed.digest}"
    terminal.result(result, lambda out: out.print(words))


@click.command("pull", cls=Verb)
@click.argument("url")
@click.option("--out", type=_folder, required=True, help="Folder to make; it must not exist.")
@click.option("--digest", help="Digest of the model that is wanted, as the loan says it; another is refused.")
@click.option("--ca", type=_file, help="PEM file of the authority of the store's TLS certificate.")
@click.option("--token-file", type=_file, help="File with a bearer token for the store (mode 0600).")
@pass_terminal
def pull_model(
    terminal: Terminal, /, *, url: str, out: Path, digest: str | None, ca: Path | None, token_file: Path | None
) -> None:
    """Fetch a sealed model into a folder. Run it again where it was broken off.

    Each segment is held against its leaf hash before it counts, now and when going on. Nothing is decrypted. Who
    published it is proven when it is opened; --digest names the model that is wanted.
    """
    if digest is not None and not _DIGEST.fullmatch(digest):
        msg = "--digest: want 64 hex digits"
        raise UsageError(msg)
    access = _access(url, ca, token_file)
    with open_source(url, access=access) as source, terminal.progress(f"pulling {out.name}") as report:
        pulled = pull(source, out, digest=digest, progress=report)
    result: Json = {
        "digest": pulled.digest,
        "envelope": pulled.envelope,
        "fetched_bytes": pulled.fetched_bytes,
        "kept_bytes": pulled.kept_bytes,
        "name": pulled.name,
        "out": str(out),
    }
    words = f"pulled {pulled.name}: {pulled.fetched_bytes} bytes, {pulled.kept_bytes} were there"
    terminal.result(result, lambda console: console.print(f"{words}\ndigest {pulled.digest}"))
