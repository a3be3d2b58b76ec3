"""The vendor: its authorities, a platform of each kind, evidence of both, and a scheme that trusts it.

Whoever has the object can make any evidence: it is for learning and tests, and in no production table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from cloister.attest.intel.chain import PCK_NAME, TCB_SIGNING_NAME
from cloister.attest.intel.eventlog import CcelLog, rtmrs_of
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, OneOf, Rule
from cloister.attest.schemes.sgx import SGX, SgxScheme
from cloister.attest.schemes.tdx import TDX, TdxScheme
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.documents import Document, dump_document, qe_identity, tcb_info
from cloister.testing.vendors.intel.eventlogs import ccel
from cloister.testing.vendors.intel.pki import Authority, PlatformSpec, make_crl
from cloister.testing.vendors.intel.quotes import QuoteSpec, healthy_qe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.attest.chain import Certificate
    from cloister.attest.rules import NotChecked

__all__ = ["CollateralSpec", "SgxAttester", "SyntheticIntel", "TdxAttester"]

_ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
_VALID = timedelta(days=365 * 2)
_FIRMWARE = ((1, b"td firmware"), (1, b"secure boot"), (2, b"kernel"), (3, b"command line"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralSpec:
    """What the vendor publishes about one platform; each member may be altered before it is signed.

    ``tcb_signer`` and ``qe_signer`` sign the texts; ``tampered`` is put in place of text after signing.
    """

    tcb_info: Document
    qe_identity: Document
    root_crl: bytes
    pck_crl: bytes
    tcb_signer: Authority
    qe_signer: Authority
    root: Authority
    pck_issuer: Authority
    tampered: Mapping[str, str] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Return the JSON object."""
        info, identity = dump_document(self.tcb_info), dump_document(self.qe_identity)
        members = {
            "pck_crl_issuer_chain": self.pck_issuer.pem + self.root.pem,
            "root_ca_crl": self.root_crl.hex(),
            "pck_crl": self.pck_crl.hex(),
            "tcb_info_issuer_chain": self.tcb_signer.pem + self.root.pem,
            "tcb_info": info.decode("ascii"),
            "tcb_info_signature": self.tcb_signer.sign(info).hex(),
            "qe_identity_issuer_chain": self.qe_signer.pem + self.root.pem,
            "qe_identity": identity.decode("ascii"),
            "qe_identity_signature": self.qe_signer.sign(identity).hex(),
        }
        return json.dumps(members | dict(self.tampered)).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticIntel:
    """A root, its authorities and one platform with its PCK."""

    root: Authority
    authorities: Mapping[str, Authority]
    tcb_signer: Authority
    platform: PlatformSpec
    pck: Authority
    issued: datetime = _ISSUED

    @classmethod
    def generate(cls, platform: PlatformSpec | None = None) -> Self:
        """Return a vendor with fresh keys and one ``platform``."""
        spec = platform or PlatformSpec()
        root = Authority.root("Intel SGX Root CA")
        authorities = {
            name: root.issue(f"Intel SGX PCK {name} CA", path_length=0) for name in ("Platform", "Processor")
        }
        return cls(
            root=root,
            authorities=authorities,
            tcb_signer=root.issue(TCB_SIGNING_NAME),
            platform=spec,
            pck=authorities[spec.issuer].issue(PCK_NAME, platform=spec),
        )

    @property
    def until(self) -> datetime:
        """The end of everything the vendor publishes."""
        return self.issued + _VALID

    @property
    def issuer(self) -> Authority:
        """The authority over the platform's PCK."""
        return self.authorities[self.platform.issuer]

    @property
    def roots(self) -> tuple[Certificate, ...]:
        """What a verifier pins."""
        return (self.root.certificate,)

    def endorsement(self, *, tdx: bool) -> str:
        """Return the name of the platform's collateral."""
        return f"intel/{'tdx' if tdx else 'sgx'}/{self.platform.fmspc.hex()}/{self.platform.issuer.lower()}"

    def published(self, *, tdx: bool) -> CollateralSpec:
        """Return what is published about the platform, to be altered or dumped."""
        return CollateralSpec(
            tcb_info=tcb_info(self.platform, self.issued, self.until, tdx=tdx),
            qe_identity=qe_identity(self.issued, self.until, tdx=tdx),
            root_crl=self.crl(self.root),
            pck_crl=self.crl(self.issuer),
            tcb_signer=self.tcb_signer,
            qe_signer=self.tcb_signer,
            root=self.root,
            pck_issuer=self.issuer,
        )

    def crl(
        self,
        authority: Authority,
        revoked: Iterable[Authority] = (),
        *,
        issued: datetime | None = None,
        until: datetime | None = None,
    ) -> bytes:
        """Return an authority's revocation list."""
        return make_crl(authority, [item.certificate for item in revoked], issued or self.issued, until or self.until)

    def quote(self, body: EnclaveBody | TdBody) -> QuoteSpec:
        """Return a quote of the platform, to be altered or dumped."""
        qe = healthy_qe(tdx=isinstance(body, TdBody))
        return QuoteSpec(body=body, chain=(self.pck, self.issuer, self.root), qe=qe)

    def sgx_scheme(self, *, without_collateral: NotChecked | None = None) -> SgxScheme:
        """Return the scheme for SGX that trusts this vendor."""
        return SgxScheme(self.roots, without_collateral=without_collateral)

    def tdx_scheme(self, *, without_collateral: NotChecked | None = None) -> TdxScheme:
        """Return the scheme for TDX that trusts this vendor."""
        return TdxScheme(self.roots, without_collateral=without_collateral)

    def sgx_attester(self, body: EnclaveBody | None = None) -> SgxAttester:
        """Return an enclave on the platform."""
        return SgxAttester(self, body or EnclaveBody())

    def tdx_attester(self, body: TdBody | None = None, log: bytes | None = None) -> TdxAttester:
        """Return a TD on the platform that booted by ``log``; by a log of its own where none is given."""
        return TdxAttester(self, body or TdBody(), ccel(_FIRMWARE, size=4096) if log is None else log)


class SgxAttester:
    """An enclave on a synthetic platform."""

    tee: Final = SGX
    report_data_bytes: Final = 64

    def __init__(self, vendor: SyntheticIntel, body: EnclaveBody) -> None:
        """Run the enclave ``body`` on the vendor's platform."""
        self._vendor, self._body = vendor, body
        self.endorsements: Mapping[str, bytes] = {vendor.endorsement(tdx=False): vendor.published(tdx=False).dump()}

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that carries ``report_data``."""
        quote = self._vendor.quote(replace(self._body, report_data=report_data)).dump()
        return Evidence(tee=SGX, payload=dump_parts({"quote": quote}))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy for exactly this enclave on an up-to-date platform."""
        rules: dict[str, Rule] = {
            "debug": Exact(value=False),
            "mrenclave": OneOf((self._body.mrenclave.hex(),)),
            "mrsigner": OneOf((self._body.mrsigner.hex(),)),
            "tcb_status": OneOf(("UpToDate",)),
        }
        return Policy(version=version, tees={SGX: TeePolicy(rules)})


class TdxAttester:
    """A TD on a synthetic platform, with the log of its boot."""

    tee: Final = TDX
    report_data_bytes: Final = 64

    def __init__(self, vendor: SyntheticIntel, body: TdBody, log: bytes) -> None:
        """Boot the TD ``body`` by ``log``, which sets its RTMRs."""
        self._vendor, self._log = vendor, log
        self._body = replace(body, rtmrs=rtmrs_of(CcelLog.parse(log)))
        self.endorsements: Mapping[str, bytes] = {vendor.endorsement(tdx=True): vendor.published(tdx=True).dump()}

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that carries ``report_data``."""
        quote = self._vendor.quote(replace(self._body, report_data=report_data)).dump()
        return Evidence(tee=TDX, payload=dump_parts({"quote": quote, "ccel": self._log}))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy for exactly this TD on an up-to-date platform."""
        rules: dict[str, Rule] = {
            "debug": Exact(value=False),
            "mrtd": OneOf((self._body.mrtd.hex(),)),
            "service_td": Exact(value=False),
            "tcb_status": OneOf(("UpToDate",)),
            "td_attributes.migratable": Exact(value=False),
            "td_attributes.profiling": Exact(value=False),
            "td_attributes.reserved": Exact(value=False),
            "td_attributes.sept_ve_disable": Exact(value=True),
            "td_attributes.servtd_ext": Exact(value=False),
        }
        rules |= {f"rtmr{index}": OneOf((value.hex(),)) for index, value in enumerate(self._body.rtmrs)}
        return Policy(version=version, tees={TDX: TeePolicy(rules)})
