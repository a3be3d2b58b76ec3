"""From the options to something that can be judged: files by role, or a payload with its endorsements.

A kind of the evidence index is judged from its files (``attest.dossier``); what they lack shows as not checked. Where
endorsements or anchors are named, and for kinds that only attesters make, the scheme of a release judges the payload,
and what it needs must be there.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cloister.attest.binding import NO_DEVICES
from cloister.attest.dossier.payload import PAYLOADS, Payload, open_payload
from cloister.attest.dossier.table import DOSSIERS, Dossier
from cloister.attest.endorse import FirstOf, Given
from cloister.attest.endorse.bundle import MAX_BUNDLE_BYTES, verify_bundle
from cloister.attest.endorse.fetch import FolderEndorsements
from cloister.attest.endorse.gather import gather
from cloister.attest.endorse.names import parse_name
from cloister.attest.rats import TeeKind
from cloister.attest.schemes import Site, production_schemes
from cloister.attest.tpm.evidence import TPM, is_tpm_evidence
from cloister.attest.verifier import Verifier
from cloister.cli.evidence_files import read_evidence
from cloister.crypto.sign import VerifyKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cloister.attest.dossier import Case
    from cloister.attest.endorse import Endorsements
    from cloister.attest.verifier import Scheme
    from cloister.cli.evidence_options import EvidenceOptions
    from cloister.cli.terminal import Terminal
    from cloister.wire import Json

__all__ = ["Opener", "opener", "roles_of"]

_KEY_BYTES = 32
_WANTED = {
    "cca": "--arm-anchor",
    "confidential-space": "--audience",
    "maa": "--maa-host",
    "psa": "--arm-anchor",
    "tpm": "--tpm-authority",
}
"""Kinds for which no vendor is pinned, and the option that says whom to trust."""


class Opener(Protocol):
    """Opens evidence of one kind, with all that was given beside it."""

    def open(self, data: bytes, now: datetime, expectations: Mapping[str, Json], nonce: bytes | None) -> Case:
        """Return the case. Raises ``Malformed``, ``Rejected``, ``Unavailable``, ``UsageError``."""
        ...


def roles_of(tee: str) -> tuple[str, ...]:
    """Return the roles that files beside evidence of this kind may have; none for an unknown kind."""
    dossier, payload = DOSSIERS.get(tee), PAYLOADS.get(tee)
    found = {*(dossier.roles if dossier else ()), *(payload.roles if payload else ())}
    return tuple(sorted(found))


def opener(terminal: Terminal, options: EvidenceOptions, data: bytes, now: datetime) -> Opener:
    """Return what opens ``data`` and damaged copies of it. Raises ``UsageError``, ``Unavailable``, ``Malformed``."""
    beside, named = _roles(options)
    if _from_files(options, data, named):
        return _FromFiles(DOSSIERS[options.tee], beside)
    scheme = _synthetic(terminal, options) if options.insecure_synthetic_roots else _production(options)
    given = [Given(named)] if named else []
    source = FirstOf(*given, *_sources(options, now))
    return _AsReleased(PAYLOADS[options.tee], scheme, source, beside)


def _from_files(options: EvidenceOptions, data: bytes, named: Mapping[str, bytes]) -> bool:
    """Tell whether the kind's own files are to be judged, and not a payload as a release would.

    Raises ``UsageError`` for an option that nobody would look at.
    """
    anchors, sources = _anchors(options), _sources_given(options)
    unused = [name for name in anchors if name != _WANTED.get(options.tee)]
    if options.insecure_synthetic_roots or options.tee not in PAYLOADS:
        unused = anchors
    if options.tee not in PAYLOADS:
        unused = [*unused, *sources, *named]
    if unused:
        msg = f"{options.tee}: nothing to do for {unused[0]}"
        raise UsageError(msg)
    release = bool(anchors or sources or named)
    return options.tee in DOSSIERS and not release and not (options.tee == TPM and is_tpm_evidence(data))


def _anchors(options: EvidenceOptions) -> list[str]:
    """Return the options that were given and say whom to trust."""
    given = {
        "--arm-anchor": options.arm_anchor,
        "--audience": options.audience,
        "--maa-host": options.maa_host,
        "--tpm-authority": options.tpm_authority,
    }
    return [name for name, value in given.items() if value]


def _sources_given(options: EvidenceOptions) -> list[str]:
    """Return the options that were given and lead to a payload and its endorsements."""
    given = {
        "--bundle": options.bundle,
        "--endorsements": options.endorsements,
        "--insecure-synthetic-roots": options.insecure_synthetic_roots,
        "--key": options.keys,
    }
    return [name for name, value in given.items() if value]


@dataclass(frozen=True, slots=True)
class _FromFiles:
    dossier: Dossier
    beside: Mapping[str, bytes]

    def open(self, data: bytes, now: datetime, expectations: Mapping[str, Json], nonce: bytes | None) -> Case:
        del now
        wanted = expectations if nonce is None else {**expectations, **self.dossier.fresh(data, nonce)}
        return self.dossier.open(self.dossier.files(data, self.beside), wanted)


@dataclass(frozen=True, slots=True)
class _AsReleased:
    payload: Payload
    scheme: Scheme
    source: Endorsements
    beside: Mapping[str, bytes]

    def open(self, data: bytes, now: datetime, expectations: Mapping[str, Json], nonce: bytes | None) -> Case:
        evidence = self.payload.evidence(self.scheme.tee, data, self.beside)
        found = gather(Verifier([self.scheme]), self.source, evidence, NO_DEVICES, now)
        return open_payload(self.scheme, evidence, found, expectations, nonce)


def _roles(options: EvidenceOptions) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the files of ``--role``: by role, and endorsements by name. Raises ``UsageError``."""
    beside: dict[str, bytes] = {}
    named: dict[str, bytes] = {}
    for text in options.roles:
        name, equals, path = text.partition("=")
        if not name or not equals or not path:
            msg = f"--role {text[:200]}: want ROLE=FILE"
            raise UsageError(msg)
        if name in beside or name in named:
            msg = f"--role {name[:200]}: given twice"
            raise UsageError(msg)
        known = _endorsement(name) if "/" in name else _role(options.tee, name)
        (named if "/" in name else beside)[known] = read_evidence(Path(path), what=name)
    return beside, named


def _endorsement(name: str) -> str:
    try:
        return parse_name(name).text
    except Malformed as exc:
        msg = f"--role {name[:200]}: no endorsement is called so"
        raise UsageError(msg, hint="see docs/reference/endorsements.md") from exc


def _role(tee: str, name: str) -> str:
    known = roles_of(tee)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"{tee} has {', '.join(known) or 'no other file'}"
    msg = f"--role {name[:64]}: evidence of {tee} has no such file"
    raise UsageError(msg, hint=hint)


def _production(options: EvidenceOptions) -> Scheme:
    """Return the scheme of a release. Raises ``Unavailable`` where nobody said whom to trust."""
    site = Site(
        tpm_authorities=tuple(read_evidence(path, what="authority") for path in options.tpm_authority),
        arm_anchors=tuple(read_evidence(path, what="anchors") for path in options.arm_anchor),
        maa_hosts=options.maa_host,
        audiences=options.audience,
    )
    found = production_schemes(site, {TeeKind(options.tee)})
    if not found:
        msg = f"{options.tee} evidence: no vendor is pinned for it, whom to trust is yours to say"
        raise Unavailable(msg, hint=f"pass {_WANTED[options.tee]}")
    return found[0]


def _synthetic(terminal: Terminal, options: EvidenceOptions) -> Scheme:
    from cloister.testing.vendors.samples import WARNING, Roots  # noqa: PLC0415 - in no production process

    path = options.insecure_synthetic_roots or Path()
    roots = Roots.parse(read_evidence(path, what="synthetic roots"))
    if roots.tee != options.tee:
        msg = f"{path}: roots of {roots.tee}, want {options.tee}"
        raise UsageError(msg)
    terminal.warn(WARNING)
    return roots.scheme()


def _sources(options: EvidenceOptions, now: datetime) -> list[Endorsements]:
    if bool(options.bundle) != bool(options.keys):
        msg = "--bundle and --key: want both, or neither"
        raise UsageError(
            msg, hint="who signed the bundle decides what is of today; 'cloister custodian show' prints a key"
        )
    sources: list[Endorsements] = []
    if options.endorsements is not None:
        if not options.endorsements.is_dir():
            msg = f"--endorsements {options.endorsements}: no such folder"
            raise UsageError(msg)
        sources.append(FolderEndorsements(options.endorsements))
    if options.bundle is not None:
        sources.append(_bundle(options.bundle, options.keys, now))
    return sources


def _bundle(path: Path, keys: tuple[str, ...], now: datetime) -> Endorsements:
    """Return a bundle that one of the keys signed. One that is refused decides nothing about the evidence."""
    data = read_evidence(path, what="bundle", cap=MAX_BUNDLE_BYTES)
    pinned = [VerifyKey(parse_b64u(item, what="--key", size=_KEY_BYTES)) for item in keys]
    try:
        return verify_bundle(data, pinned, now, last=None)
    except Rejected as exc:
        msg = f"bundle {path}: {exc.message}"
        raise Unavailable(msg, hint=exc.hint) from exc
