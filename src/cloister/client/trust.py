"""The one maker of a ``VerifiedEnclave``: fresh evidence, the consumer's own policy, the custodian's status.

A consumer trusts nobody's word about an enclave: it sends a nonce of its own, verifies the evidence against
its own reference values, and takes every key from the result. The custodian is asked who runs the instance
and whether it still may (T4): genuine code on a stranger's machine is refused where the trust names operators.

Sans-io: ``establish`` is a plan. Not done here: encrypting (``exchange``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.binding import ChannelBinding
from cloister.attest.chain import parse_certificates
from cloister.attest.endorse.names import vendor_signed
from cloister.attest.findings import refuse_failed
from cloister.attest.rats import Check, Evidence, Nonce, TeeKind, Verdict
from cloister.attest.rules import NotChecked
from cloister.attest.schemes import Site, production_schemes
from cloister.attest.verifier import Verifier
from cloister.channel.keyset import KEYSET_PATH, KEYSET_TYPE, MAX_DOCUMENT_BYTES, EvidenceDocument, Keyset
from cloister.channel.ohttp import strongest
from cloister.client.plan import Fetch, Party
from cloister.client.trust_file import CustodianPin, Trust
from cloister.crypto.sign import Statement
from cloister.errors import Malformed, Rejected, Unavailable
from cloister.lending.messages import Status
from cloister.lending.terms import InstanceId, instance_id
from cloister.wire import dump_b64u, dump_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from cloister.attest.policy import Policy
    from cloister.attest.rats import AttestationResult
    from cloister.attest.verifier import Scheme
    from cloister.channel.keyset import KeysetModel
    from cloister.channel.ohttp import KeyConfig
    from cloister.client.plan import Fetched, Plan
    from cloister.crypto.hpke import Suite
    from cloister.crypto.sign import VerifyKey

__all__ = ["CLOCK_SKEW", "Trust", "VerifiedEnclave", "establish", "verify_document", "verify_status"]

CLOCK_SKEW = timedelta(seconds=60)  # how far the other's clock may be from ours
MAX_STATUS_BYTES = 64 * 1024
NONCE_BYTES = 32
_BEFORE_THE_FIRST_REQUEST = NotChecked("proven before the first request: only consumers are shown the contract")
_STATUS_ACTIVE = "active"
_SIMULATED = "simulated"
_OK = 200
_SERVER_FAULT = 500


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VerifiedEnclave:
    """An enclave that satisfies a consumer's trust, with the keys to encrypt to. Made by ``establish`` only.

    ``config`` and ``suite`` are the strongest that the attested bytes offer. ``status`` is None where the
    trust does not check the custodian; ``checks`` has every comparison, also those that were not made.
    """

    url: str
    keyset: Keyset
    config: KeyConfig
    suite: Suite
    result: AttestationResult
    status: Status | None
    checks: tuple[Check, ...]
    receipt_key: VerifyKey
    status_statement: bytes = field(default=b"", repr=False)
    """``status`` as the custodian signed it; empty where it was not asked."""
    tls_key: bytes = b""
    """SHA-256 of the attested key under which the evidence came by TLS 1.3; empty where it came in another way."""

    def __repr__(self) -> str:
        """Return where and what it is, and how the checks came out; the SIMULATED one says so."""
        made = sum(check.verdict is Verdict.PASSED for check in self.checks)
        left = sum(check.verdict is Verdict.NOT_CHECKED for check in self.checks)
        return (
            f"VerifiedEnclave(url={self.url!r}, tee={self.tee!r}, tier={self.result.tier.value!r}, "
            f"operator={self.operator!r}, instance={self.instance[:16]!r}, checks={made} passed, {left} not checked)"
        )

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it, check by check."""
        from cloister.client.notebook.enclave import enclave_html  # noqa: PLC0415 - of notebooks alone

        return enclave_html(self)

    @property
    def tee(self) -> str:
        """The kind of TEE, loud where it protects nothing."""
        return "SIMULATED" if self.is_simulated else self.result.tee

    @property
    def is_simulated(self) -> bool:
        """Whether there is no hardware behind it, so that nothing is protected."""
        return _SIMULATED in {self.result.tee, *(item.tee for item in self.result.submodules)}

    @property
    def instance(self) -> InstanceId:
        """The id of the instance."""
        return InstanceId(self.keyset.instance)

    @property
    def operator(self) -> str:
        """Who runs it, as the custodian says; empty where that was not asked."""
        return self.status.operator if self.status else ""

    def model(self, name: str) -> KeysetModel:
        """Return the attested entry of a model. Raises ``Rejected`` (``unknown_model``)."""
        for model in self.keyset.models:
            if model.name == name:
                return model
        have = ", ".join(model.name for model in self.keyset.models)
        raise Rejected.because("unknown_model", "enclave", got=name[:80], want=have[:400])


def establish(
    url: str,
    trust: Trust,
    *,
    schemes: Iterable[Scheme],
    endorsements: Mapping[str, bytes],
    clock: Callable[[], datetime],
    rng: Callable[[int], bytes],
) -> Plan[VerifiedEnclave]:
    """Return the enclave at ``url`` once it is proven to satisfy ``trust``.

    ``schemes`` are those besides the production ones (the simulated one, by whoever insists); ``endorsements`` are the
    consumer's own, which take the place of those the enclave sends; keys of token services come from the consumer
    alone. Raises ``Malformed``, ``Rejected`` with every mismatch, and ``Unavailable``.
    """
    # 1. Fresh evidence: the nonce is ours.
    nonce = Nonce(rng(NONCE_BYTES))
    query = f"{url}{KEYSET_PATH}?nonce={dump_b64u(nonce)}"
    answer = yield Fetch(party=Party.ENCLAVE, url=query, cap=MAX_DOCUMENT_BYTES, accept=KEYSET_TYPE)
    data = _body(answer, want=KEYSET_TYPE, what="enclave: evidence")
    # 2. Genuine, bound to the nonce and the keyset, running what the policy accepts.
    enclave = verify_document(
        data, url=url, trust=trust, nonce=nonce, schemes=schemes, endorsements=endorsements, now=clock()
    )
    if url.startswith("https:") and answer.tls_key in enclave.keyset.tls_spki_sha256:
        enclave = replace(enclave, tls_key=answer.tls_key)
    # 3. The custodian's word on this instance, asked with a nonce of ours.
    if not isinstance(trust.custodian, CustodianPin):
        return enclave
    ask = Nonce(rng(NONCE_BYTES))
    query = f"{trust.custodian.url}/v1/instances/{enclave.instance}/status?nonce={dump_b64u(ask)}"
    answer = yield Fetch(party=Party.CUSTODIAN, url=query, cap=MAX_STATUS_BYTES)
    data = _body(answer, want=None, what="custodian: status")
    status = verify_status(data, enclave=enclave, trust=trust, nonce=ask, now=clock())
    return replace(
        enclave, status=status, status_statement=data, checks=(*enclave.checks, *_status_checks(status, trust))
    )


def _body(answer: Fetched, *, want: str | None, what: str) -> bytes:
    """Return the body of a 200 of the right type; anything else decides nothing."""
    if answer.status == _OK:
        got = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if want is not None and got != want:
            msg = f"{what}: media type {got[:80]!r}, want {want}"
            raise Malformed(msg, hint="is this the address of a Cloister enclave?")
        return answer.body
    if answer.status in (401, 403, 404, 409, 410):
        raise Rejected.because("not_found", what, got=f"status {answer.status}", want="status 200")
    msg = f"{what}: status {answer.status}"
    raise Unavailable(msg, retry_after_s=_retry_after(answer))


def _retry_after(answer: Fetched) -> int | None:
    text = answer.headers.get("retry-after", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None  # noqa: PLR2004 - a day at most


def verify_document(
    data: bytes,
    *,
    url: str,
    trust: Trust,
    nonce: Nonce,
    schemes: Iterable[Scheme],
    endorsements: Mapping[str, bytes],
    now: datetime,
) -> VerifiedEnclave:
    """Return the enclave that an evidence document proves, its status not yet asked for.

    Raises ``Malformed``, ``Rejected`` with every mismatch, ``Unavailable`` for a missing endorsement.
    """
    document = EvidenceDocument.parse(data)
    if document.nonce != nonce:
        raise Rejected.because("nonce_mismatch", "evidence", got=document.nonce.hex(), want=nonce.hex())
    authorities = tuple(pem.encode("ascii", "replace") for pem in trust.tpm_authorities)
    for pem in authorities:
        parse_certificates(pem)  # a trust that cannot be read is refused, whichever TEE it is about
    site = Site(tpm_authorities=authorities)
    result = Verifier(_schemes(site, trust.policy, tuple(schemes))).verify(
        Evidence(tee=TeeKind(document.tee), payload=document.evidence),
        ChannelBinding(nonce=nonce, keyset=document.keyset, devices=document.devices),
        trust.policy,
        now,
        {**vendor_signed(document.collateral), **endorsements},
    )
    # From here on everything comes out of what was bound.
    keyset = Keyset.parse(result.bound["keyset"])
    checks = tuple(_keyset_checks(keyset, trust, now))
    refuse_failed("keyset", checks)
    config, suite = strongest(keyset.configs)
    return VerifiedEnclave(
        url=url,
        keyset=keyset,
        config=config,
        suite=suite,
        result=result,
        status=None,
        checks=(*result.checks, *checks),
        receipt_key=next(key for key in keyset.receipt_keys if instance_id(key.raw) == keyset.instance),
    )


def _schemes(site: Site, policy: Policy, given: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
    """Return the schemes of the TEEs that the policy names: those the caller handed in, else the production ones."""
    own = {scheme.tee for scheme in given}
    return (*given, *production_schemes(site, set(policy.tees) - own))


def _check(code: str, subject: str, *, holds: bool, got: str = "", want: str = "") -> Check:
    verdict = Verdict.PASSED if holds else Verdict.FAILED
    return Check(code=code, subject=subject, verdict=verdict, got=got, want=want)


def _skipped(code: str, subject: str, rule: NotChecked, got: str = "") -> Check:
    return Check(code=code, subject=subject, verdict=Verdict.NOT_CHECKED, got=got, note=rule.why)


def _keyset_checks(keyset: Keyset, trust: Trust, now: datetime) -> Iterator[Check]:
    """Yield every comparison of the attested keyset with the trust."""
    start, end = dump_time(keyset.nbf), dump_time(keyset.exp)
    seen = dump_time(now)
    yield _check("keyset_not_yet_valid", "keyset", holds=now >= keyset.nbf - CLOCK_SKEW, got=seen, want=start)
    yield _check("keyset_expired", "keyset", holds=now <= keyset.exp + CLOCK_SKEW, got=seen, want=end)
    owns = any(instance_id(key.raw) == keyset.instance for key in keyset.receipt_keys)
    yield _check("wrong_instance", "receipt key", holds=owns, want=keyset.instance)
    if isinstance(trust.custodian, NotChecked):
        yield _skipped("custodian_mismatch", "custodian", trust.custodian, keyset.custodian.key_id)
    else:
        got, want = keyset.custodian, trust.custodian.key
        yield _check("custodian_mismatch", "custodian", holds=got == want, got=got.key_id, want=want.key_id)
    yield from _contract_checks(keyset, trust)
    for model in keyset.models:
        subject = f"model {model.name}"
        if isinstance(trust.models, NotChecked):
            yield _skipped("model_mismatch", subject, trust.models, model.digest)
        elif model.name in trust.models:
            pinned = trust.models[model.name]
            yield _check("model_mismatch", subject, holds=model.digest == pinned, got=model.digest, want=pinned)
        else:
            yield _skipped("model_mismatch", subject, NotChecked("not in the trust, so it cannot be asked"))


def _contract_checks(keyset: Keyset, trust: Trust) -> Iterator[Check]:
    """Yield whether every model is lent under the pinned contract; a keyset without models names none."""
    code, pinned = "contract_mismatch", trust.contract
    lent = {f"contract, model {model.name}": model.loan_digest for model in keyset.models} or {"contract": ""}
    for subject, digest in lent.items():
        if isinstance(pinned, NotChecked):
            yield _skipped(code, subject, pinned, digest)
        else:
            yield _check(code, subject, holds=digest == pinned, got=digest, want=pinned)
    if not isinstance(trust.borrower, NotChecked):
        yield _skipped(code, "borrower's signature", _BEFORE_THE_FIRST_REQUEST)


def verify_status(data: bytes, *, enclave: VerifiedEnclave, trust: Trust, nonce: Nonce, now: datetime) -> Status:
    """Return the custodian's status once it is proven to be signed, fresh, about this instance, and good.

    Raises ``Malformed``; ``Rejected`` with every mismatch (T4).
    """
    if not isinstance(trust.custodian, CustodianPin):
        raise Rejected.because("custodian_not_pinned", "status")
    status = Status.parse(Statement.parse(data, label=Status.LABEL).verify([trust.custodian.key]))
    attested = {model.digest for model in enclave.keyset.models}
    known = set(status.models)
    age = abs(now - status.issued_at)
    refuse_failed(
        "status",
        (
            _check("nonce_mismatch", "status", holds=status.nonce == nonce, got=status.nonce.hex(), want=nonce.hex()),
            _check(
                "wrong_instance",
                "status",
                holds=status.instance == enclave.instance,
                got=status.instance,
                want=enclave.instance,
            ),
            _check(
                "loan_mismatch",
                "status",
                holds=status.loan == enclave.keyset.loan,
                got=status.loan,
                want=enclave.keyset.loan,
            ),
            _check(
                "model_mismatch",
                "status",
                holds=attested <= known,
                got=", ".join(sorted(attested - known)),
                want="models of the loan",
            ),
            _check("status_stale", "status", holds=age <= CLOCK_SKEW, got=dump_time(status.issued_at)),
            *_status_checks(status, trust),
        ),
    )
    return status


def _status_checks(status: Status, trust: Trust) -> tuple[Check, ...]:
    active = _check(
        "instance_not_active", "instance", holds=status.state == _STATUS_ACTIVE, got=status.state, want=_STATUS_ACTIVE
    )
    if isinstance(trust.operators, NotChecked):
        return active, _skipped("operator_mismatch", "operator", trust.operators, status.operator)
    want = " or ".join(trust.operators)[:400]
    holds = status.operator in trust.operators
    return active, _check("operator_mismatch", "operator", holds=holds, got=status.operator, want=want)
