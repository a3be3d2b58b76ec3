"""``cloister attest inspect``: what is this file? Every field explained; nothing is verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.evidence_files import read_evidence
from cloister.cli.evidence_options import Near
from cloister.cli.terminal import Terminal, Verb, pass_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.attest.describe import Description

__all__ = ["FILE_KINDS", "inspect"]

FILE_KINDS = (
    "arm-anchors",
    "azure-hcl",
    "azure-vtpm",
    "cca",
    "certificate",
    "crl",
    "intel-collateral",
    "keys",
    "nitro",
    "nvidia",
    "nvidia-rim",
    "psa",
    "sgx",
    "sgx-sigstruct",
    "snp",
    "snp-certificate",
    "snp-certs",
    "tdx",
    "tdx-eventlog",
    "token",
    "tpm-akcert",
    "tpm-eventlog",
    "tpm-key",
    "tpm-pcrs",
    "tpm-quote",
    "tpm-signature",
)
"""Kinds of files that can be explained; a test holds this to the describers' table."""

_SHOWN = 132  # characters of a value: a SHA-512 in hex fits


@click.command(cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kind", type=Near("KIND", FILE_KINDS), help="Read it as this kind, where guessing goes wrong.")
@pass_terminal
def inspect(terminal: Terminal, /, *, file: Path, kind: str | None) -> None:
    """Guess what FILE is and explain every field of it to a person.

    Nothing is verified: this is what the bytes say, not what is true. Knows quotes, reports, documents, tokens,
    certificates, revocation lists, event logs, manifests and what 'attest collect' writes.
    """
    from cloister.attest.describe.table import explain  # noqa: PLC0415 - imports every parser

    found = explain(read_evidence(file), kind=kind)
    terminal.result(
        {
            "fields": [{"meaning": item.meaning, "name": item.name, "value": item.value} for item in found.fields],
            "kind": found.kind,
            "title": found.title,
        },
        lambda out: _draw(terminal, found, out),
    )


def _draw(terminal: Terminal, found: Description, out: Console) -> None:
    out.print(f"{found.title} ({found.kind})")
    rows = [(item.name, _short(item.value), item.meaning) for item in found.fields]
    out.print(terminal.table(("field", "value", "meaning"), rows))
    out.print("Nothing above is verified: it is what the bytes say.")


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters; --json has all)"
