"""What a consumer trusts, as a value and as a file (docs/spec/trust.md).

A trust file says whose hardware (roots), which code (policy), who owns the model (custodian), who may run
it (operator) and which models. Every part is there: what a consumer chose not to compare says so, with a
reason that is shown with every result. The file holds no secret; whoever can change it decides whom the
consumer trusts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from cloister.attest.policy import Policy
from cloister.attest.rules import NotChecked
from cloister.crypto.sign import VerifyKey
from cloister.errors import Malformed, UsageError
from cloister.wire import Fields, Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_TRUST_BYTES", "CustodianPin", "SystemTls", "Trust", "is_loopback", "parse_origin"]

MAX_TRUST_BYTES = 512 * 1024  # bytes of one trust file
MAX_PEM_CHARS = 32 * 1024  # characters of one bundle of certificates
MAX_AUTHORITIES = 16
MAX_OPERATORS = 64
MAX_MODELS = 256

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_SIMULATED = "simulated"
_TPM = "tpm"


_NO_BORROWER = NotChecked("the trust file names no borrower's key")
_NO_CONTRACT = NotChecked("the trust file pins no contract")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodianPin:
    """The custodian whose signed status a consumer asks for. ``ca_pem`` None means the system's trust store."""

    key: VerifyKey
    url: str
    ca_pem: str | None


@dataclass(frozen=True, slots=True)
class SystemTls:
    """The enclave's TLS certificate is checked against these authorities, or against the system's (None)."""

    ca_pem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A consumer's decision, complete.

    ``operators`` are borrowers' names as the custodian knows them, ``borrower`` is the key that must have signed the
    contract, ``contract`` the digest of the one contract that counts. ``models`` pins names to digests of sealed
    models. ``tls`` is about the outer connection only: bodies are encrypted to attested keys, whatever it says.
    """

    policy: Policy
    tpm_authorities: tuple[str, ...] = ()
    simulated_root: VerifyKey | None = None
    custodian: CustodianPin | NotChecked
    operators: tuple[str, ...] | NotChecked
    models: Mapping[str, str] | NotChecked
    tls: SystemTls | NotChecked
    borrower: VerifyKey | NotChecked = _NO_BORROWER
    contract: str | NotChecked = _NO_CONTRACT

    def __post_init__(self) -> None:
        """Refuse a trust that contradicts itself."""
        if self.operators == () or self.models == {}:
            msg = "trust: no operator or no model at all; what is not compared says not_checked"
            raise UsageError(msg)
        if isinstance(self.custodian, NotChecked) and not isinstance(self.operators, NotChecked):
            msg = "trust: the operator is known from the custodian's status only; pin the custodian too"
            raise UsageError(msg)
        if _TPM in self.policy.tees and not self.tpm_authorities:
            msg = "trust: the policy accepts a tpm, but there are no tpm_authorities"
            raise UsageError(msg)
        if _SIMULATED in self.policy.tees and self.simulated_root is None:
            msg = "trust: the policy accepts a simulated tee, but there is no simulated_root"
            raise UsageError(msg)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the trust in a file. Raises ``UsageError`` where it cannot be read, ``Malformed``."""
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_TRUST_BYTES + 1)
        except OSError as exc:
            msg = f"{path}: {exc.strerror}"
            raise UsageError(msg, hint="make a trust file with 'cloister trust new'") from exc
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a trust file as people write it: any order, any spacing. Raises ``Malformed``."""
        fields = Fields.parse(data, what="trust", cap=MAX_TRUST_BYTES)
        fields.literal("v", 1)
        root = VerifyKey.take(fields, "simulated_root") if "simulated_root" in fields else None
        parts = {
            "policy": Policy.from_json(fields.take("policy")),
            "tpm_authorities": _authorities(fields),
            "simulated_root": root,
            "custodian": _take_custodian(fields.fields("custodian")),
            "operators": _take_operators(fields.fields("operator")),
            "models": _take_models(fields.fields("models")),
            "tls": _take_tls(fields.fields("tls")),
            "borrower": _take_borrower(fields) if "borrower" in fields else _NO_BORROWER,
            "contract": _take_contract(fields) if "contract" in fields else _NO_CONTRACT,
        }
        fields.end()
        try:
            return cls(**parts)  # type: ignore[arg-type]  # each value was typed by its own function
        except UsageError as exc:
            raise Malformed(exc.message) from exc

    def dump(self) -> bytes:
        """Return the canonical bytes."""
        document: dict[str, Json] = {
            "custodian": _custodian_json(self.custodian),
            "models": {"not_checked": self.models.why}
            if isinstance(self.models, NotChecked)
            else {"pinned": dict(self.models)},
            "operator": {"not_checked": self.operators.why}
            if isinstance(self.operators, NotChecked)
            else {"one_of": list(self.operators)},
            "policy": self.policy.to_json(),
            "tls": _tls_json(self.tls),
            "tpm_authorities": list(self.tpm_authorities),
            "v": 1,
        }
        if self.simulated_root is not None:
            document["simulated_root"] = self.simulated_root.dump()
        if self.borrower != _NO_BORROWER:
            document["borrower"] = _borrower_json(self.borrower)
        if self.contract != _NO_CONTRACT:
            document["contract"] = _contract_json(self.contract)
        return dump_json(document)

    def digest_of(self, model: str) -> str | None:
        """Return the pinned digest of ``model``, None where models are not checked.

        Raises ``UsageError`` for a model that this trust does not name.
        """
        if isinstance(self.models, NotChecked):
            return None
        if model not in self.models:
            msg = f"model {model[:80]!r} is not in the trust"
            raise UsageError(msg, hint="the trust names " + ", ".join(sorted(self.models)))
        return self.models[model]


def _reason(fields: Fields) -> NotChecked:
    """Return the member that says why something is not compared."""
    why = fields.text("not_checked", cap=200, floor=1)
    try:
        return NotChecked(why)
    except UsageError as exc:
        raise Malformed(exc.message) from exc


def _authorities(fields: Fields) -> tuple[str, ...]:
    items = fields.items("tpm_authorities", cap=MAX_AUTHORITIES) if "tpm_authorities" in fields else []
    return tuple(_pem(item, "trust: tpm_authorities") for item in items)


def _pem(value: Json, what: str) -> str:
    """Return PEM text: printable lines, bounded. Whether it is a certificate shows when it is used."""
    fits = isinstance(value, str) and value.isascii() and len(value) <= MAX_PEM_CHARS
    if not isinstance(value, str) or not fits or "-----BEGIN CERTIFICATE-----" not in value:
        msg = f"{what}: want certificates in PEM, at most {MAX_PEM_CHARS} characters"
        raise Malformed(msg)
    return value


def _take_custodian(fields: Fields) -> CustodianPin | NotChecked:
    if "not_checked" in fields:
        reason = _reason(fields)
        fields.end()
        return reason
    ca = fields.take("ca_pem")
    pin = CustodianPin(
        key=VerifyKey.take(fields, "key"),
        url=_take_url(fields),
        ca_pem=None if ca is None else _pem(ca, "trust: custodian: ca_pem"),
    )
    fields.end()
    return pin


def _take_url(fields: Fields) -> str:
    url = fields.text("url", cap=1024, floor=1)
    try:
        return parse_origin(url)
    except UsageError as exc:
        fields.fail("url", exc.message)


def _take_operators(fields: Fields) -> tuple[str, ...] | NotChecked:
    taken = _reason(fields) if "not_checked" in fields else fields.texts("one_of", cap=MAX_OPERATORS, item_cap=200)
    fields.end()
    return taken


def _take_borrower(fields: Fields) -> VerifyKey | NotChecked:
    inner = fields.fields("borrower")
    taken = _reason(inner) if "not_checked" in inner else VerifyKey.take(inner, "key")
    inner.end()
    return taken


def _take_contract(fields: Fields) -> str | NotChecked:
    inner = fields.fields("contract")
    taken = _reason(inner) if "not_checked" in inner else inner.hex("digest", size=32).hex()
    inner.end()
    return taken


def _take_models(fields: Fields) -> Mapping[str, str] | NotChecked:
    if "not_checked" in fields:
        reason = _reason(fields)
        fields.end()
        return reason
    members = fields.members("pinned", cap=MAX_MODELS)
    inner = Fields(members, what="trust: models")
    for name in members:
        if not _NAME.fullmatch(name):
            fields.fail("pinned", "name of a model out of form")
    fields.end()
    return {name: inner.hex(name, size=32).hex() for name in members}


def _take_tls(fields: Fields) -> SystemTls | NotChecked:
    if "not_checked" in fields:
        reason = _reason(fields)
        fields.end()
        return reason
    ca = fields.take("ca_pem")
    fields.end()
    return SystemTls(None if ca is None else _pem(ca, "trust: tls: ca_pem"))


def _custodian_json(custodian: CustodianPin | NotChecked) -> Json:
    if isinstance(custodian, NotChecked):
        return {"not_checked": custodian.why}
    return {"ca_pem": custodian.ca_pem, "key": custodian.key.dump(), "url": custodian.url}


def _borrower_json(borrower: VerifyKey | NotChecked) -> Json:
    return {"not_checked": borrower.why} if isinstance(borrower, NotChecked) else {"key": borrower.dump()}


def _contract_json(contract: str | NotChecked) -> Json:
    return {"not_checked": contract.why} if isinstance(contract, NotChecked) else {"digest": contract}


def _tls_json(tls: SystemTls | NotChecked) -> Json:
    return {"not_checked": tls.why} if isinstance(tls, NotChecked) else {"ca_pem": tls.ca_pem}


def parse_origin(url: str) -> str:
    """Return ``scheme://host[:port]`` of a URL that has nothing else but an optional path prefix.

    Raises ``UsageError``: also for user names and passwords, which a command line must not carry.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        msg = "url: not a url"
        raise UsageError(msg) from exc
    if parts.scheme not in {"https", "http"} or not host or parts.username or parts.password is not None:
        msg = "url: want https://HOST[:PORT]"
        raise UsageError(msg)
    if parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        msg = "url: want no query, no fragment and ascii only"
        raise UsageError(msg)
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Tell whether ``url`` names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
