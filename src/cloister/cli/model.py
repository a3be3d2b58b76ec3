"""``cloister model``: seal on the owner's machine, publish to the custodian, list, withdraw."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.model_card_file import read_card
from cloister.cli.model_convert import conversion_options, convert
from cloister.cli.model_inspect import demand_model, inspect
from cloister.cli.model_leaves import leaf_hash_option
from cloister.cli.model_maker import made_json, maker_options, signed_source
from cloister.cli.model_old import open_old
from cloister.cli.model_second import second_publisher
from cloister.cli.model_stores import pull_model, push_model
from cloister.cli.model_variant import trace_model, variant
from cloister.cli.model_verify import verify_model
from cloister.cli.remote import custodian_home, from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, pass_terminal
from cloister.cli.unlock import unlock_options, unlock_with
from cloister.custodian.publication import publication
from cloister.custodian.setup import open_vault
from cloister.custodian.vaults import envelope_of
from cloister.errors import UsageError
from cloister.sealed.directory import read_envelope, read_package
from cloister.sealed.resume import Going, seal_resumably

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from cloister.sealed.leaves import LeafHash
    from cloister.wire import Json

__all__ = ["model"]

_folder = click.Path(path_type=Path, file_okay=False)


@click.group(cls=Group)
def model() -> None:
    """Seal and publish models."""


model.add_command(push_model)
model.add_command(pull_model)
model.add_command(inspect)
model.add_command(verify_model)
model.add_command(variant)
model.add_command(trace_model)
model.add_command(convert)


@model.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=_folder, required=True, help="Folder to make; it must not exist.")
@click.option("--name", required=True, help="Name of the model: lower case letters, digits, . _ -")
@click.option("--card", type=click.Path(path_type=Path, dir_okay=False), help="JSON file that describes the model.")
@click.option("--home", type=_folder, help="The custodian's home, whose vault wraps the key.")
@click.option("--reuse", type=_folder, help="Sealed older version, whose unchanged files are taken over.")
@maker_options
@click.option("--require-model-signature", is_flag=True, help="Refuse a model that its maker did not sign.")
@click.option("--unverified-maker", is_flag=True, help="Seal a maker's signature that is not verified, as a file.")
@click.option("--resume", is_flag=True, help="Go on with a sealing to --out that was interrupted, if there is one.")
@leaf_hash_option
@unlock_options
@click.option("--convert", "conversion", is_flag=True, help="Make ONNX of SOURCE first, as 'model convert' does.")
@conversion_options
@pass_terminal
def seal(
    terminal: Terminal,
    /,
    *,
    source: Path,
    conversion: bool,
    kind: str | None,
    trust_pickle: bool,
    inputs: tuple[str, ...],
    tolerance: float,
    **how: Any,
) -> None:
    """Encrypt a model file or folder with a new key, which the vault wraps, and sign its manifest.

    First every file is looked into: ONNX, safetensors and GGUF have to be sound, and pickles and archives are refused.
    """
    if not conversion:
        if kind or trust_pickle or inputs:
            msg = "--from, --trust-pickle and --input say how to convert, and nothing is converted"
            raise UsageError(msg, hint="pass --convert")
        _seal(terminal, source, {}, **how)
        return
    if how["makers"] or how["model_signature"] or how["require_model_signature"]:
        msg = "--convert: nobody signed what comes of it"
        raise UsageError(msg, hint="convert first, have the result signed, then seal it")
    from cloister.cli.converted import converted, described  # noqa: PLC0415 - see there

    with converted(terminal, source, kind=kind, trust_pickle=trust_pickle, inputs=inputs, tolerance=tolerance) as (
        found,
        agreement,
    ):
        terminal.err.print(f"{source.name}: from {found.library}; {described(agreement)}")
        _seal(terminal, found.model, {"agreement": agreement.to_json(), "library": found.library}, **how)


def _seal(
    terminal: Terminal,
    source: Path,
    conversion: Mapping[str, Json],
    *,
    out: Path,
    name: str,
    card: Path | None,
    home: Path | None,
    key_file: Path | None,
    passphrase_file: str | None,
    reuse: Path | None,
    resume: bool,
    leaf_hash: LeafHash,
    **maker: Any,
) -> None:
    demand_model(source)  # before hours of work; the enclave looks again, at what it loads
    now = datetime.now(UTC).replace(microsecond=0)
    signed = signed_source(terminal, source, now=now, **maker)
    place = custodian_home(home)
    vault = open_vault(place, unlock_with(place, key_file, passphrase_file))
    old = None if reuse is None else open_old(vault, reuse)
    found: list[int] = []

    def tell_found(done: int, total: int) -> None:
        found.append(done)
        terminal.say(f"found sealed and whole: {done} of {total} bytes")

    def tell_kept(place: Path) -> None:
        terminal.say(f"what is sealed so far is kept in {place}: go on with --resume, or remove it")

    with terminal.progress(f"sealing {name}") as report:
        sealed = seal_resumably(
            source, out, resume=resume, vault=vault, envelope=partial(envelope_of, vault), name=name,
            signer=vault.publisher_key, card=read_card(card), created=now,
            leaf_hash=leaf_hash, going=Going(progress=report, found=tell_found, kept=tell_kept), old=old, signed=signed,
            second=second_publisher(terminal, vault),
        )  # fmt: skip
    size = sealed.manifest.size
    result: dict[str, Json] = {
        **({"conversion": conversion} if conversion else {}),
        "digest": sealed.digest,
        "files": len(sealed.manifest.files),
        "name": name,
        "out": str(out),
        "size": size,
    }
    words = f"sealed {name}: {size} bytes\ndigest {sealed.digest}"
    if resume:
        result["found_bytes"] = sum(found)
    if old is not None:
        kept = sum(old.taken.values())
        result |= {"reused_bytes": kept, "reused_files": len(old.taken)}
        words += f"\ntaken over from {reuse}: {len(old.taken)} files, {kept} bytes"
    if signed is not None:
        result["maker"] = {**made_json(signed.made), "left_out": list(signed.left_out)}
        words += f"\nmade by {signed.made.signer}"
    terminal.result(result, lambda console: console.print(words))


@model.command()
@click.argument("package", type=_folder)
@remote_options
@pass_terminal
def publish(terminal: Terminal, /, *, package: Path, **where: Any) -> None:
    """Tell the custodian about a sealed model. The blobs stay where they are; no key leaves in clear."""
    body = publication(read_package(package), read_envelope(package))
    with from_options(**where) as remote:
        shown = remote.post("/v1/models", body)
    terminal.result(shown, lambda out: out.print(f"published {shown['name']}\ndigest {shown['digest']}"))


@model.command("list")
@remote_options
@pass_terminal
def list_models(terminal: Terminal, /, **where: Any) -> None:
    """List published models."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/models")
    rows = [
        (item["name"], item["digest"], item["published_at"], item["withdrawn_at"] or "") for item in shown["models"]
    ]
    terminal.result(shown, lambda out: out.print(terminal.table(("name", "digest", "published", "withdrawn"), rows)))


@model.command()
@click.argument("digest")
@remote_options
@pass_terminal
def show(terminal: Terminal, /, *, digest: str, **where: Any) -> None:
    """Show one model: its files, its card, the loans that lend it."""
    with from_options(**where) as remote:
        shown = remote.get(f"/v1/models/{segment(digest)}")

    def draw(out: Console) -> None:
        out.print(terminal.table(("", ""), [(key, str(shown[key])) for key in ("name", "digest", "published_at")]))
        out.print(terminal.table(("file", "bytes"), [(item["path"], str(item["size"])) for item in shown["files"]]))
        if shown["makers"]:
            out.print(terminal.table(("held to maker",), [(maker,) for maker in shown["makers"]]))
        out.print(terminal.table(("lent in",), [(loan,) for loan in shown["loans"]]))

    terminal.result(shown, draw)


@model.command()
@click.argument("digest")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote_options
@pass_terminal
def withdraw(terminal: Terminal, /, *, digest: str, yes: bool, **where: Any) -> None:
    """Take a model out of every loan, for good."""
    terminal.confirm("A withdrawn model stays withdrawn. Go on?", yes=yes)
    with from_options(**where) as remote:
        shown = remote.post(f"/v1/models/{segment(digest)}/withdraw", {})
    terminal.result(shown, lambda out: out.print(f"withdrawn {digest}; it was lent in {len(shown['loans'])} loans"))
