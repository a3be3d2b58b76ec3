"""The options that say which evidence, what belongs to it and whom to trust for it: the same for every command.

Nothing here reads a file or loads a verifier before a command runs; what completes in a shell may.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AT", "KINDS", "POLICY_KINDS", "EvidenceOptions", "Near", "at_option", "evidence_options"]

POLICY_KINDS = (
    "azure-snp-vtpm",
    "azure-tdx-vtpm",
    "cca",
    "confidential-space",
    "gce-vtpm",
    "ita",
    "maa",
    "nitro",
    "nras",
    "nvidia-gpu",
    "nvidia-switch",
    "psa",
    "sgx",
    "snp",
    "tdx",
    "tpm",
)
"""Kinds that attesters make and policies name; a test holds this to the production table."""

KINDS = tuple(
    sorted({*POLICY_KINDS, "azure-akcert", "azure-vtpm", "nvidia", "nvidia-rim", "tdx-eventlog", "token", "tpm-akcert"})
)
"""Kinds that can be judged from files; a test holds this to the dossiers' table."""

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


class Near(click.Choice[str]):
    """A choice that suggests the nearest word for a wrong one. ``name`` is what help calls it."""

    def __init__(self, name: str, words: tuple[str, ...]) -> None:
        """Offer ``words``."""
        super().__init__(words)
        self._metavar = name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's signature
        """Return a name: the list would fill the screen."""
        return self._metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word."""
        word = str(value)
        if word in self.choices:
            return word
        near = difflib.get_close_matches(word, self.choices, n=1)
        maybe = f"; did you mean {near[0]!r}?" if near else ""
        msg = f"{word[:64]!r} is none of {', '.join(self.choices)}{maybe}"
        raise click.BadParameter(msg, ctx=ctx, param=param)


class _Moment(click.ParamType[datetime]):
    """A point in time: ``2026-06-01``, ``2026-06-01T12:00:00Z``, or with an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware time; one without an offset is in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{str(value)[:64]!r}: want a time such as 2026-06-01T12:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


AT = _Moment()


def at_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--at``: the command gets ``moment``."""
    text = "Judge as of this time, such as 2026-06-01T12:00:00Z [default: now]."
    return click.option("--at", "moment", type=AT, help=text)(command)


def _complete_role(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the roles of the kind named before, then files."""
    del param
    name, equals, path = incomplete.partition("=")
    if equals:
        return [CompletionItem(path, type="file")]
    from cloister.cli.evidence_case import roles_of  # noqa: PLC0415 - imports every verifier

    return [CompletionItem(f"{role}=") for role in roles_of(ctx.params.get("tee") or "") if role.startswith(name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceOptions:
    """What a command was given about evidence."""

    tee: str
    evidence: Path
    roles: tuple[str, ...]
    bundle: Path | None
    keys: tuple[str, ...]
    endorsements: Path | None
    tpm_authority: tuple[Path, ...]
    arm_anchor: tuple[Path, ...]
    maa_host: tuple[str, ...]
    audience: tuple[str, ...]
    insecure_synthetic_roots: Path | None


def evidence_options(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what adds the options of ``EvidenceOptions``: the command gets a keyword for each."""
    options = (
        click.option(
            "--tee", type=Near("KIND", KINDS), required=required, help="Kind of evidence: sgx, tdx, snp, nitro, ..."
        ),
        click.option(
            "--evidence",
            type=_file,
            required=required,
            help="What 'attest collect --out' wrote, or a bare quote, report, document or token.",
        ),
        click.option(
            "--role",
            "roles",
            multiple=True,
            metavar="ROLE=FILE",
            shell_complete=_complete_role,
            help="What belongs to it: collateral=F, leaf=F, ..., or an endorsement by name: amd/milan/crl=F; repeat.",
        ),
        click.option("--bundle", type=_file, help="Signed bundle of endorsements; wants --key."),
        click.option("--key", "keys", multiple=True, help="Key that may have signed the bundle (base64url); repeat."),
        click.option(
            "--endorsements", type=_folder, help="Folder of endorsements, each at its name: DIR/amd/milan/crl."
        ),
        click.option("--tpm-authority", type=_file, multiple=True, help="PEM of who enrols TPMs; repeat."),
        click.option("--arm-anchor", type=_file, multiple=True, help="Keys of PSA or CCA devices (JSON); repeat."),
        click.option("--maa-host", multiple=True, help="Azure Attestation provider whose tokens count; repeat."),
        click.option("--audience", multiple=True, help="Audience that Confidential Space tokens may be to; repeat."),
        click.option(
            "--insecure-synthetic-roots",
            type=_file,
            help="Trust a sample's made-up roots in place of vendors'. Protects nothing.",
        ),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add
