"""Who can read a question and its answer, in plain words, out of what was really verified.

Nothing here is better than the checks it is made of: a TEE that hides nothing says so first and loudly, and what was
not compared is listed with the reason. Not done here: verifying (``client.trust``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from cloister.attest.appraise import NO_RULE
from cloister.attest.rats import TrustTier, Verdict
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.attest.rats import Check
    from cloister.client.contract import AgreedContract
    from cloister.client.trust import VerifiedEnclave

__all__ = ["Panel", "Reader", "Reads", "who_can_read"]


class Reads(Enum):
    """Whether somebody can read along."""

    YES = "yes"
    COULD = "could"
    NO = "no"


class _Hides(Enum):
    """What a kind of TEE keeps the machine's owner from, as far as its evidence can say."""

    ENCRYPTED = "encrypted"
    ISOLATED = "isolated"
    VOUCHED = "vouched"
    MEASURED = "measured"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    name: str
    hides: _Hides


_KINDS: Mapping[str, _Kind] = {
    "azure-snp-vtpm": _Kind(name="an Azure machine with AMD SEV-SNP", hides=_Hides.ENCRYPTED),
    "azure-tdx-vtpm": _Kind(name="an Azure machine with Intel TDX", hides=_Hides.ENCRYPTED),
    "cca": _Kind(name="Arm CCA", hides=_Hides.ENCRYPTED),
    "confidential-space": _Kind(name="Google Confidential Space", hides=_Hides.VOUCHED),
    "ear": _Kind(name="an attestation service's result", hides=_Hides.VOUCHED),
    "gce-vtpm": _Kind(name="a Google machine with a virtual TPM", hides=_Hides.MEASURED),
    "ita": _Kind(name="Intel Trust Authority", hides=_Hides.VOUCHED),
    "maa": _Kind(name="Microsoft Azure Attestation", hides=_Hides.VOUCHED),
    "nitro": _Kind(name="AWS Nitro Enclaves", hides=_Hides.ISOLATED),
    "psa": _Kind(name="Arm TrustZone (PSA)", hides=_Hides.ISOLATED),
    "sgx": _Kind(name="Intel SGX", hides=_Hides.ENCRYPTED),
    "snp": _Kind(name="AMD SEV-SNP", hides=_Hides.ENCRYPTED),
    "tdx": _Kind(name="Intel TDX", hides=_Hides.ENCRYPTED),
    "tpm": _Kind(name="a TPM", hides=_Hides.MEASURED),
}
_SIMULATED = "simulated"
_MEASUREMENTS = ("measurement", "mrtd", "mrenclave", "rim", "pcr.0", "image_digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Somebody, whether they can read along, and why; ``meant`` where they have to."""

    who: str
    reads: Reads
    why: str
    meant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The whole of it. ``loud`` is a warning that stands above everything, empty where there is none.

    ``learned`` is what others learn without reading; ``unchecked`` names what was not compared, and why; ``digest``
    changes when any of the words about readers do.
    """

    loud: str
    readers: tuple[Reader, ...]
    learned: tuple[str, ...]
    unchecked: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """What a form carries, so that nobody sends under another panel than the one they saw."""
        said = [[reader.who, reader.reads.value, reader.why] for reader in self.readers]
        return hashlib.sha256(dump_json([self.loud, said, list(self.learned)])).hexdigest()[:32]


def who_can_read(
    enclave: VerifiedEnclave, *, place: str, is_open: bool, pinned: bool, contract: AgreedContract | None
) -> Panel:
    """Return who can read what is asked through a page's server at ``place``."""
    kind = _KINDS.get(enclave.result.tee)
    hides = _Hides.NOTHING if kind is None else kind.hides
    return Panel(
        loud=_loud(enclave, hides),
        readers=tuple(_readers(enclave, kind, hides, place=place, is_open=is_open, pinned=pinned)),
        learned=tuple(_learned(enclave, contract, pinned=pinned)),
        unchecked=tuple(_unchecked(enclave, contract)),
    )


def _loud(enclave: VerifiedEnclave, hides: _Hides) -> str:
    if enclave.result.tee == _SIMULATED:
        return "Simulated TEE: whoever runs it can read everything. For demonstrations and tests only."
    if hides in (_Hides.NOTHING, _Hides.MEASURED):
        return "This machine is measured, not closed: whoever administers it could read its memory."
    if enclave.result.tier is not TrustTier.AFFIRMING:
        return f"The evidence is good enough for the policy, and not without fault: tier {enclave.result.tier.value}."
    return ""


def _readers(
    enclave: VerifiedEnclave, kind: _Kind | None, hides: _Hides, *, place: str, is_open: bool, pinned: bool
) -> Iterator[Reader]:
    yield Reader(who="You", reads=Reads.YES, why="It is your question.", meant=True)
    yield _server(place, is_open=is_open)
    yield Reader(
        who="The code in the enclave",
        reads=Reads.YES,
        why=f"It has to, to answer. It is the code that the trust file accepts{_measured(enclave)}; what it does with "
        "a question is known as far as that code is.",
        meant=True,
    )
    yield _operator(enclave, kind, hides)
    yield Reader(
        who="The custodian, who owns the model",
        reads=Reads.NO,
        why="Questions and answers do not pass it, and it has no key to them. It is told what was used.",
    )
    kem = enclave.suite.kem.name
    way = "TLS 1.3 that ends in the enclave" if pinned else f"what is encrypted to a key of the enclave's ({kem})"
    yield Reader(who="The network between", reads=Reads.NO, why=f"It carries {way}, whoever relays it.")


def _server(place: str, *, is_open: bool) -> Reader:
    whose = f"This page's server, at {place}"
    why = "It verifies the enclave and encrypts for you, so it sees them too. It writes none of them to a disk."
    if is_open:
        why += " Whoever runs this site could read along: you trust them, or you ask with a client of your own."
    return Reader(who=whose, reads=Reads.YES, why=why, meant=not is_open)


def _measured(enclave: VerifiedEnclave) -> str:
    claims = enclave.result.claims
    found = next((str(claims[name]) for name in _MEASUREMENTS if name in claims), "")
    return f" (measured as {found[:16]}…)" if found else ""


def _operator(enclave: VerifiedEnclave, kind: _Kind | None, hides: _Hides) -> Reader:
    who = f"{enclave.operator}, who runs the machine" if enclave.operator else "Whoever runs the machine"
    name = "this kind of TEE" if kind is None else kind.name
    match hides:
        case _Hides.ENCRYPTED:
            reads, why = Reads.NO, f"{name} encrypts the enclave's memory against its own machine."
        case _Hides.ISOLATED:
            reads, why = Reads.NO, f"{name} keeps the enclave apart from its machine. Its memory is not encrypted."
        case _Hides.VOUCHED:
            reads, why = Reads.NO, f"So says {name}; the hardware's own evidence was not looked at here."
        case _Hides.MEASURED:
            reads, why = Reads.COULD, f"{name} measures what was started and keeps nobody out of memory."
        case _Hides.NOTHING:
            reads, why = Reads.YES, "There is no hardware behind this TEE that would keep anybody out."
        case _:
            assert_never(hides)
    if reads is Reads.NO and enclave.result.tier is not TrustTier.AFFIRMING:
        reads, why = Reads.COULD, f"{why} But the evidence has the tier {enclave.result.tier.value}."
    return Reader(who=who, reads=reads, why=why)


def _learned(enclave: VerifiedEnclave, contract: AgreedContract | None, *, pinned: bool) -> Iterator[str]:
    size = "and how long they are" if pinned else "and about how long they are, padded to steps"
    yield f"Who watches the network sees when questions go in, {size}."
    yield "The custodian is told which model was asked, in which minute, and for how many units: it counts them."
    if contract is None:
        return
    clauses = contract.contract.terms.clauses
    if clauses.purpose:
        yield f"Custodian and borrower agreed on this purpose: {clauses.purpose}."
    for watch in clauses.watches:
        kind = watch.kind.value
        yield f"The enclave watches how questions are spread ({kind}) and may tell the custodian of an alarm."
    if clauses.outputs or clauses.precision is not None:
        yield "The contract holds back a part of answers: what you are shown may be rounded or left out."
    if enclave.keyset.models and any(model.ticketed for model in enclave.keyset.models):
        yield "Each answer of a ticketed model is paid by a signature of the custodian, who is told when."


def _unchecked(enclave: VerifiedEnclave, contract: AgreedContract | None) -> Iterator[tuple[str, str]]:
    checks: list[Check] = [*enclave.checks]
    for device in enclave.result.submodules:
        checks += device.checks
    if contract is not None:
        checks += contract.checks
    idle = 0
    for check in checks:
        if check.verdict is not Verdict.NOT_CHECKED:
            continue
        if check.note == NO_RULE:
            idle += 1
        else:
            yield check.subject, check.note or "no reason given"
    if idle:
        yield f"{idle} claims that are proven", "the policy has no rule for them"
