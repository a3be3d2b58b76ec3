"""``cloister model variant`` and ``trace``: a copy that names its borrower, and whose copy a leaked file is."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.model_card_file import read_card
from cloister.cli.model_drift import MAX_ACCURACY_LOSS, MAX_DRIFT, OutputDrift, demand_small, measure
from cloister.cli.model_inspect import demand_model
from cloister.cli.model_leaves import leaf_hash_option
from cloister.cli.model_second import second_publisher
from cloister.cli.remote import custodian_home
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.cli.unlock import unlock_options, unlock_with
from cloister.custodian.setup import open_vault
from cloister.custodian.variants import demand_recordable, keep_variant, open_variants
from cloister.custodian.vaults import envelope_of
from cloister.errors import Rejected, UsageError
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats.places import plain_files
from cloister.sealed.package_folder import DirectorySink
from cloister.sealed.seal import seal_files
from cloister.sealed.signed import SIGNATURE_PATH
from cloister.sealed.tracing.detect import THRESHOLD_LOG10, trace
from cloister.sealed.tracing.floats import float_tensors, sketch
from cloister.sealed.tracing.mark import KEY_BYTES, STRENGTHS
from cloister.sealed.tracing.marked import MarkedSource, parameter_drift
from cloister.sealed.tracing.record import MarkedTensor, Variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cloister.sealed.leaves import LeafHash
    from cloister.sealed.seal import SealedModel
    from cloister.sealed.tracing.detect import Finding
    from cloister.sealed.tracing.floats import FloatTensor
    from cloister.sealed.tracing.marked import Drift
    from cloister.wire import Json

__all__ = ["trace_model", "variant"]

_DEK_BYTES = 32
_SHOWN = 5  # candidates
_folder = click.Path(path_type=Path, file_okay=False)
_share = click.FloatRange(0, 1)


@click.command(cls=Verb)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--for", "holder", required=True, metavar="NAME", help="The loan or the borrower it is made for.")
@click.option("--out", type=_folder, required=True, help="Folder to make; it must not exist.")
@click.option("--name", required=True, help="Name of the model: lower case letters, digits, . _ -")
@click.option("--card", type=click.Path(path_type=Path, dir_okay=False), help="JSON file that describes the model.")
@click.option(
    "--trace-strength", type=click.Choice(sorted(STRENGTHS)), default="medium", show_default=True,
    help="How far weights are nudged at most: by 2^-14, 2^-10 or 2^-7 of their size.",
)  # fmt: skip
@click.option("--samples", type=click.Path(path_type=Path, dir_okay=False), help="npz file of inputs and labels.")
@click.option("--max-drift", type=_share, default=MAX_DRIFT, show_default=True, help="Refuse above: of the outputs.")
@click.option(
    "--max-accuracy-loss", type=_share, default=MAX_ACCURACY_LOSS, show_default=True, help="Refuse above: with samples."
)
@leaf_hash_option
@click.option("--home", type=_folder, help="The custodian's home, whose vault wraps the keys and keeps the record.")
@unlock_options
@pass_terminal
def variant(
    terminal: Terminal,
    /,
    *,
    source: Path,
    holder: str,
    out: Path,
    name: str,
    card: Path | None,
    trace_strength: str,
    samples: Path | None,
    max_drift: float,
    max_accuracy_loss: float,
    leaf_hash: LeafHash,
    home: Path | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Seal a model as 'model seal' does, with low-order bits that name one borrower, and say what that cost.

    Lend the variant to that borrower only. 'model trace' tells from a leaked copy whose it was.
    """
    demand_model(source)
    if (source / SIGNATURE_PATH).exists():
        terminal.say(f"{SIGNATURE_PATH}: a variant is not what the maker signed; the signature is sealed as any file")
    place = custodian_home(home)
    vault = open_vault(place, unlock_with(place, key_file, passphrase_file))
    tree, bits, key = PlainTree(source), STRENGTHS[trace_strength], os.urandom(KEY_BYTES)
    tensors = float_tensors(plain_files(tree))
    draft = _draft(name, holder, bits, tensors)
    demand_recordable(draft)
    marked = MarkedSource(tree, tensors, key, bits)
    with terminal.progress("measuring") as report:
        drift = parameter_drift(tensors, key, bits, report)
    answers = _answers(tree, marked, samples)
    if answers is not None:
        demand_small(answers, max_drift=max_drift, max_accuracy_loss=max_accuracy_loss)
    dek = bytearray(os.urandom(_DEK_BYTES))
    try:
        with DirectorySink(out) as sink, terminal.progress(f"sealing {name}") as report:
            sealed = seal_files(
                tree.files, marked, sink.parts, name=name, dek=dek, signer=vault.publisher_key, card=read_card(card),
                created=draft.created, progress=report, leaf_hash=leaf_hash, envelope=partial(envelope_of, vault, dek),
                second=second_publisher(terminal, vault),
            )  # fmt: skip
            # The record first: a copy that nobody could trace must not come to be.
            keep_variant(place, vault, _draft(name, holder, bits, tensors, sealed), key)
            sink.commit()
    finally:
        dek[:] = bytes(_DEK_BYTES)
    _tell(terminal, sealed, draft, drift=drift, answers=answers, out=out)


def _draft(
    name: str, holder: str, bits: int, tensors: Sequence[FloatTensor], sealed: SealedModel | None = None
) -> Variant:
    """Return the record, without its key; with a digest of nothing before the model is sealed."""
    marked = (
        MarkedTensor(path=item.file.path, name=item.name, kind=item.kind, count=item.count, sketch=sketch(item))
        for item in tensors
    )
    created = datetime.now(UTC).replace(microsecond=0) if sealed is None else sealed.manifest.created
    digest = "0" * 64 if sealed is None else sealed.digest
    return Variant(digest=digest, model=name, holder=holder, created=created, bits=bits, tensors=tuple(marked))


def _answers(tree: PlainTree, marked: MarkedSource, samples: Path | None) -> OutputDrift | None:
    """Return what the mark does to the answers, where the model is one ``.onnx`` file."""
    graphs = [entry for entry in tree.files if entry.path.endswith(".onnx")]
    if len(graphs) != 1 or len(tree.files) != 1:
        if samples is not None:
            msg = "samples: accuracy is measured for a model of one .onnx file"
            raise UsageError(msg)
        return None
    before, after = bytearray(graphs[0].size), bytearray(graphs[0].size)
    tree.read_into(graphs[0], 0, memoryview(before))
    marked.read_into(graphs[0], 0, memoryview(after))
    return measure(bytes(before), bytes(after), samples)


def _tell(
    terminal: Terminal, sealed: SealedModel, draft: Variant, *, drift: Drift, answers: OutputDrift | None, out: Path
) -> None:
    result: Json = {
        "digest": sealed.digest,
        "drift": {"elements": drift.elements, "max": drift.largest, "rms": drift.rms, "tensors": drift.tensors},
        "for": draft.holder,
        "name": draft.model,
        "out": str(out),
        "outputs": None if answers is None else answers.to_json(),
    }

    def draw(console: Console) -> None:
        console.print(f"sealed {draft.model} for {draft.holder}\ndigest {sealed.digest}")
        moved = f"at most {drift.largest:.2g}, root mean square {drift.rms:.2g} of their size"
        console.print(f"{drift.elements} weights in {drift.tensors} tensors moved: {moved}")
        if answers is None:
            console.print("outputs: not measured")
            return
        console.print(f"outputs moved: root mean square {answers.rms:.2g}, {answers.changed:.2%} another answer")
        if answers.accuracy_before is not None:
            console.print(f"accuracy {answers.accuracy_before:.4f} before, {answers.accuracy_after:.4f} after")

    terminal.result(result, draw)


@click.command("trace", cls=Verb)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--original", type=click.Path(path_type=Path), help="The plain model that variants were made from.")
@click.option("--home", type=_folder, help="The custodian's home, which has the records and the vault.")
@unlock_options
@pass_terminal
def trace_model(
    terminal: Terminal,
    /,
    *,
    file: Path,
    original: Path | None,
    home: Path | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Tell for whom a leaked copy was sealed, or that it cannot be told.

    A name means: an innocent file would show this once in a billion times at most. It proves whose copy it was,
    not who leaked it. With the original at hand far more damage to the copy is survived.
    """
    suspects = _floats(file)
    place = custodian_home(home)
    candidates = open_variants(place, open_vault(place, unlock_with(place, key_file, passphrase_file)))
    if not candidates:
        msg = f"{place}: no variants"
        raise UsageError(msg, hint="see 'cloister model variant --help'")
    originals = () if original is None else _floats(original)
    with terminal.progress("tracing", unit="weights") as report:
        found = trace(suspects, candidates, originals, report)
    mode = "blind" if original is None else "informed"
    result: Json = {
        "candidates": len(found),
        "findings": [_finding(item) for item in found],
        "mode": mode,
        "named": [item.variant.holder for item in found if item.is_named],
        "threshold_log10_p": THRESHOLD_LOG10,
    }
    terminal.result(result, partial(_draw, terminal, found, mode))


def _floats(path: Path) -> tuple[FloatTensor, ...]:
    tensors = float_tensors(plain_files(PlainTree(path)))
    if not tensors:
        hint = "tracing reads .safetensors and .onnx with weights of floats"
        raise Rejected.because("no_model", path.name, got="no tensor of 64 floats or more", hint=hint)
    return tensors


def _finding(item: Finding) -> Json:
    return {
        "created": item.variant.created.isoformat(),
        "digest": item.variant.digest,
        "elements": item.elements,
        "for": item.variant.holder,
        "log10_p": round(item.log10_p, 2),
        "model": item.variant.model,
        "named": item.is_named,
        "score": round(item.score, 3),
    }


def _draw(terminal: Terminal, found: Sequence[Finding], mode: str, console: Console) -> None:
    named = [item for item in found if item.is_named]
    for item in named:
        console.print(f"the copy of {item.variant.holder} ({item.variant.model}, digest {item.variant.digest})")
    if not named:
        console.print("none: no variant is named")
    console.print(f"{len(found)} candidates, {mode}, named below a chance of 1e{THRESHOLD_LOG10:.0f} over all of them")
    rows = [
        (item.variant.holder, item.variant.model, f"{item.score:.1f}", f"1e{item.log10_p:.1f}", str(item.elements))
        for item in found[: max(_SHOWN, len(named))]
    ]
    console.print(terminal.table(("for", "model", "score", "chance at most", "weights"), rows))
