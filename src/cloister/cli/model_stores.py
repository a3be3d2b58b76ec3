"""``cloister model push`` and ``pull``: sealed models into stores and out of them, going on where it was broken off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.store_options import demand_digest, digest_option, store_access, store_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.sealed.directory import DirectorySource
from cloister.stores import open_source, open_target, pull, push

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["pull_model", "push_model"]

_folder = click.Path(path_type=Path, file_okay=False)


@click.command("push", cls=Verb)
@click.argument("package", type=_folder)
@click.argument("url")
@store_options
@click.option("--replace-envelope", is_flag=True, help="Replace the envelope there, after a rotation of keys.")
@pass_terminal
def push_model(
    terminal: Terminal, /, *, package: Path, url: str, ca: Path | None, token_file: Path | None, replace_envelope: bool
) -> None:
    """Put a sealed model into a bucket or registry. Run it again where it was broken off.

    Nothing there is overwritten, and the manifest comes last: a model is there as a whole or not at all. Only
    ciphertext leaves, each segment held against its leaf hash on its way.
    """
    access = store_access(url, ca, token_file)
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
@digest_option
@store_options
@pass_terminal
def pull_model(
    terminal: Terminal, /, *, url: str, out: Path, digest: str | None, ca: Path | None, token_file: Path | None
) -> None:
    """Fetch a sealed model into a folder. Run it again where it was broken off.

    Each segment is held against its leaf hash before it counts, now and when going on. Nothing is decrypted. Who
    published it is proven when it is opened; --digest names the model that is wanted.
    """
    demand_digest(digest)
    access = store_access(url, ca, token_file)
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
