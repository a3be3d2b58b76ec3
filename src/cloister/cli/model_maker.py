"""Who made a model: options of ``cloister model`` about the maker's signature, and what is said of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.errors import Rejected, UsageError
from cloister.sealed.oms import Bundle, parse_makers, verify_files
from cloister.sealed.oms.bundle import ByChain, ByKey
from cloister.sealed.oms.maker import MAX_MAKERS
from cloister.sealed.signed import SIGNATURE_PATH, read_model_signature, signed_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cloister.cli.terminal import Terminal
    from cloister.sealed.manifest import Manifest
    from cloister.sealed.oms import MadeBy, Maker
    from cloister.sealed.signed import SignedTree
    from cloister.wire import Json

__all__ = ["claim_json", "inspect_maker", "made_json", "maker_options", "signed_source"]

_MAX_PEM_BYTES = 64 * 1024
_STEP_BYTES = 1 << 20
_file = click.Path(path_type=Path, dir_okay=False)


def maker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a maker's signature, and whose it has to be."""
    for option in (
        click.option(
            "--maker", "makers", type=_file, multiple=True, metavar="PEM",
            help="Public key or root certificates of who has to have signed the model; repeatable.",
        ),
        click.option(
            "--model-signature", type=_file,
            help=f"The maker's signature (OpenSSF model signing) [default: {SIGNATURE_PATH} in SOURCE, with --maker].",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def signed_source(
    terminal: Terminal,
    source: Path,
    *,
    model_signature: Path | None,
    makers: Sequence[Path],
    require_model_signature: bool,
    unverified_maker: bool,
    now: datetime,
) -> SignedTree | None:
    """Return the model as its maker signed it, None where no signature is wanted. Never believes one unasked.

    Raises ``UsageError``, ``Rejected`` (``model_unsigned``), or as ``signed_tree``.
    """
    found = _found(source, model_signature)
    if makers:
        if unverified_maker:
            msg = "--maker and --unverified-maker: want one of them"
            raise UsageError(msg)
        if found is None:
            raise _unsigned(source)
        signed = signed_tree(source, found, read_makers(makers), now)
        if signed.left_out:
            terminal.say("left out, for the maker passed over them: " + ", ".join(signed.left_out))
        return signed
    if require_model_signature and (found is None or unverified_maker):
        raise _unsigned(source)
    if found is None:
        return None
    if model_signature is None and unverified_maker:
        terminal.say(f"{found.name}: not verified, and sealed as any other file")
        return None
    msg = f"{found}: a signature of the model's maker, and nothing says whose it has to be"
    raise UsageError(msg, hint="pass --maker with the maker's public key or root; or --unverified-maker")


def _found(source: Path, named: Path | None) -> Path | None:
    if named is not None:
        return named
    place = source / SIGNATURE_PATH
    return place if source.is_dir() and (place.exists() or place.is_symlink()) else None


def _unsigned(source: Path) -> Rejected:
    hint = f"put the maker's signature into the folder as {SIGNATURE_PATH}, or name it with --model-signature"
    return Rejected.because("model_unsigned", source.name, hint=hint)


def read_makers(paths: Sequence[Path]) -> tuple[Maker, ...]:
    """Return all makers in these files, each once. Raises ``UsageError`` or ``Malformed``."""
    found: dict[Maker, None] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_PEM_BYTES + 1)
        except OSError as exc:
            msg = f"{path}: cannot be read: {exc.strerror}"
            raise UsageError(msg) from exc
        found |= dict.fromkeys(parse_makers(data))
    if len(found) > MAX_MAKERS:
        msg = f"--maker: {len(found)} keys and roots, want at most {MAX_MAKERS}"
        raise UsageError(msg)
    return tuple(found)


def made_json(made: MadeBy) -> dict[str, Json]:
    """Return what is proven of a maker."""
    return {"fingerprint": made.maker.fingerprint, "kind": made.maker.kind.value, "signer": made.signer}


def claim_json(manifest: Manifest) -> Json:
    """Return whom a package's signature was held to when it was sealed, None where it carries none."""
    return None if manifest.maker is None else [maker.shown for maker in manifest.maker.trusted]


def inspect_maker(
    source: Path, *, model_signature: Path | None, makers: Sequence[Path], now: datetime
) -> dict[str, Json] | None:
    """Return who signed a plain model: proven over every byte where makers are given, else only what it says.

    Raises as ``signed_source`` and ``verify_files``.
    """
    found = _found(source, model_signature)
    if found is None:
        if makers:
            raise _unsigned(source)
        return None
    if not makers:
        _, data = read_model_signature(found)
        return {"signature": found.name, "verified": False, **_said(Bundle.parse(data))}
    signed = signed_tree(source, found, read_makers(makers), now)
    verify_files(signed.made.statement, _digests(signed))
    return {"signature": found.name, "verified": True, **made_json(signed.made)}


def _said(bundle: Bundle) -> dict[str, Json]:
    match bundle.signer:
        case ByKey(hint=hint):
            return {"kind": "key", "signer": ascii(hint)[1:-1]}
        case ByChain(leaf=leaf):
            return {"kind": "certificate", "signer": leaf.shown}
        case _:
            return {"kind": "keyless", "signer": ""}


def _digests(signed: SignedTree) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    step = memoryview(bytearray(_STEP_BYTES))
    for entry in signed.tree.files:
        if entry.path != signed.claim.signature:
            running = hashlib.sha256()
            for offset in range(0, entry.size, _STEP_BYTES):
                data = step[: min(_STEP_BYTES, entry.size - offset)]
                signed.tree.read_into(entry, offset, data)
                running.update(data)
            digests[entry.path] = running.digest()
    return digests
