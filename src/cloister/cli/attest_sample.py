"""``cloister attest sample``: made-up evidence to learn with, and everything its verifier needs."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.endorse.fetch import FolderEndorsements
from cloister.attest.rats import NONCE_BYTES
from cloister.cli.evidence_options import Near
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.testing.vendors.samples import Sample

__all__ = ["SAMPLE_KINDS", "sample"]

SAMPLE_KINDS = (
    "azure-snp-vtpm",
    "azure-tdx-vtpm",
    "cca",
    "confidential-space",
    "gce-vtpm",
    "nitro",
    "nvidia-gpu",
    "psa",
    "sgx",
    "snp",
    "tdx",
)
"""Kinds of which there are samples; a test holds this to the test kit's table."""


@click.command(cls=Verb)
@click.option("--tee", type=Near("KIND", SAMPLE_KINDS), required=True, help="Kind of evidence: sgx, tdx, snp, ...")
@click.option("--nonce", help="Nonce that the evidence carries, hex [default random].")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write; it must be new."
)
@pass_terminal
def sample(terminal: Terminal, /, *, tee: str, nonce: str | None, out: Path) -> None:
    """Make up evidence to learn with: by a vendor whose keys this program has just made.

    OUT gets the evidence, its endorsements, a policy that accepts it, and the vendor's roots. It protects nothing and
    proves nothing. 'attest verify' refuses it, unless --insecure-synthetic-roots names the made-up roots.
    """
    from cloister.testing.vendors.samples import WARNING  # noqa: PLC0415 - in no production process
    from cloister.testing.vendors.samples import sample as make  # noqa: PLC0415 - the same

    value = secrets.token_bytes(NONCE_BYTES) if nonce is None else _hex(nonce)
    terminal.warn(WARNING)
    now = datetime.now(UTC)
    made = make(tee, value, now)
    _write(out, made, now)
    command = (
        f"cloister attest verify --tee {tee} --evidence {out / 'evidence'} --endorsements {out / 'endorsements'} "
        f"--policy {out / 'policy.json'} --nonce {value.hex()} --insecure-synthetic-roots {out / 'roots.json'}"
    )

    def draw(console: Console) -> None:
        console.print(f"wrote {out}: evidence, endorsements, policy.json, roots.json")
        console.print(f"nonce {value.hex()}")

    terminal.result(
        {
            "endorsements": sorted(made.endorsements),
            "nonce": value.hex(),
            "out": str(out),
            "tee": tee,
            "warning": WARNING,
        },
        draw,
    )
    terminal.say(f"see it accepted: {command}", style="dim")


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        msg = "--nonce: want an even number of hex digits"
        raise UsageError(msg) from exc


def _write(out: Path, made: Sample, now: datetime) -> None:
    try:
        out.mkdir()
        folder = FolderEndorsements(out / "endorsements")
        (out / "endorsements").mkdir()
        for name, data in made.endorsements.items():
            folder.write(name, data, now)
    except FileExistsError as exc:
        msg = f"{out}: exists already"
        raise UsageError(msg, hint="name a folder that is not there yet") from exc
    except FileNotFoundError as exc:
        msg = f"{out.absolute().parent}: no such folder"
        raise UsageError(msg) from exc
    except OSError as exc:
        msg = f"{out}: {exc.strerror}"
        raise Unavailable(msg) from exc
    write_file(out / "evidence", made.evidence.payload)
    write_file(out / "policy.json", json.dumps(made.policy.to_json(), indent=2, sort_keys=True).encode() + b"\n")
    write_file(out / "roots.json", made.roots.dump())
