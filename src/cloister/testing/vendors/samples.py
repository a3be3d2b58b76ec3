"""Samples of evidence for people who learn: a synthetic vendor's evidence, with all that its verifier needs.

The roots go into a file of their own. Production verification knows none of them and refuses the evidence; who wants to
see it accepted has to name that file, and is warned. They protect nothing: whoever runs this file makes any evidence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.amd.authority import AmdTrust
from cloister.attest.amd.products import Product
from cloister.attest.arm.anchors import parse_anchors
from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.rats import TeeKind
from cloister.attest.schemes.azure_vtpm import AzureVtpmScheme
from cloister.attest.schemes.cca import CcaScheme
from cloister.attest.schemes.gce_vtpm import GceVtpmScheme
from cloister.attest.schemes.nitro import NitroScheme
from cloister.attest.schemes.nvidia import NVIDIA_GPU, NvidiaScheme
from cloister.attest.schemes.psa import PsaScheme
from cloister.attest.schemes.sgx import SgxScheme
from cloister.attest.schemes.snp import SnpScheme
from cloister.attest.schemes.tdx import TdxScheme
from cloister.attest.schemes.token import Issuer, PinnedRoots, TokenScheme
from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE, CS_ISSUER
from cloister.errors import Malformed, UsageError
from cloister.testing.vendors.amd import AmdAttester, Chip, SyntheticAmd
from cloister.testing.vendors.arm import CcaPlatform, PsaDevice
from cloister.testing.vendors.aws import NitroVendor
from cloister.testing.vendors.azure import AzureAttester, SnpHardware, TdxHardware
from cloister.testing.vendors.gce import GceAttester, SyntheticGoogle
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.testing.vendors.nvidia import NvidiaVendor
from cloister.testing.vendors.tokens import TokenVendor
from cloister.testing.vendors.tokens.claims import CS_AUDIENCE
from cloister.wire import Fields, dump_b64u, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cloister.attest.arm.anchors import Anchor
    from cloister.attest.policy import Policy
    from cloister.attest.rats import Evidence
    from cloister.attest.verifier import Scheme
    from cloister.enclave.attesters import Attester
    from cloister.wire import Json

__all__ = ["SAMPLES", "WARNING", "Roots", "Sample", "sample"]

WARNING = "SYNTHETIC EVIDENCE: made by this program, no hardware is behind it; it protects nothing"

_KIND = "cloister-synthetic-roots"
_MAX_ROOTS_BYTES = 64 * 1024
_MAX_CERTIFICATES = 8
_PARTS: Mapping[str, tuple[str, ...]] = {"cca": (), "nvidia-gpu": ("rim_root", "root"), "psa": ()}
"""Certificates of a file of roots where they are not one alone; none where keys of devices take their place."""
_SOFTWARE = hashlib.sha256(b"a sample measures no software").digest()
_LINE = Product.GENOA
_MAX_AGE = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """What a verifier of one sample trusts: certificates by their part, or device keys where there is no authority."""

    tee: TeeKind
    certificates: Mapping[str, Certificate]
    anchors: tuple[Anchor, ...] = ()

    def scheme(self) -> Scheme:
        """Return the scheme that trusts these roots and no other."""
        return _SCHEMES[self.tee](self)

    def dump(self) -> bytes:
        """Return the file."""
        certificates = {name: item.pem.decode("ascii") for name, item in self.certificates.items()}
        anchors = [_dump_anchor(item) for item in self.anchors]
        return dump_json(
            {
                "anchors": anchors,
                "certificates": certificates,
                "kind": _KIND,
                "tee": self.tee,
                "v": 1,
                "warning": WARNING,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Roots:
        """Parse the file. Raises ``Malformed``."""
        fields = Fields.parse(data, what="synthetic roots", cap=_MAX_ROOTS_BYTES)
        fields.literal("kind", _KIND)
        fields.literal("v", 1)
        tee = TeeKind(fields.text("tee", cap=32))
        members = Fields(named := fields.members("certificates", cap=_MAX_CERTIFICATES), what="synthetic roots")
        anchors = fields.items("anchors", cap=_MAX_CERTIFICATES)
        wanted = _PARTS.get(tee, ("root",))
        if tee not in _SCHEMES or sorted(named) != sorted(wanted) or bool(anchors) == bool(wanted):
            fields.fail("tee", "want a kind that has samples, and its roots")
        return cls(
            tee=tee,
            certificates={name: _one(_pem(members, name)) for name in named},
            anchors=parse_anchors(dump_json(anchors)) if anchors else (),
        )


def _pem(fields: Fields, name: str) -> bytes:
    text = fields.take(name)
    return text.encode("ascii", "replace") if isinstance(text, str) else fields.fail(name, "want pem")


def _one(pem: bytes) -> Certificate:
    found = parse_certificates(pem)
    if len(found) != 1:
        msg = f"synthetic roots: {len(found)} certificates, want one"
        raise Malformed(msg)
    return found[0]


def _dump_anchor(anchor: Anchor) -> dict[str, Json]:
    key = anchor.key
    if isinstance(key, bytes) or anchor.instance_id is None:
        msg = "sample: want a device with a public key and a name"
        raise UsageError(msg)
    point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    jwk: dict[str, Json] = {
        "crv": f"P-{key.curve.key_size}",
        "kty": "EC",
        "x": dump_b64u(point.x.to_bytes(size)),
        "y": dump_b64u(point.y.to_bytes(size)),
    }
    return {"instance-id": anchor.instance_id.hex(), "pkey": jwk}


def _amd(roots: Roots) -> SnpScheme:
    return SnpScheme(AmdTrust(roots={_LINE: roots.certificates["root"]}))


def _gpu(roots: Roots) -> NvidiaScheme:
    devices, manifests = roots.certificates["root"], roots.certificates["rim_root"]
    return NvidiaScheme(NVIDIA_GPU, device_roots=[devices], rim_roots=[manifests])


def _space(roots: Roots) -> TokenScheme:
    issuer = Issuer(name=CS_ISSUER, keys=PinnedRoots((roots.certificates["root"],)))
    return TokenScheme(CONFIDENTIAL_SPACE, [issuer], audiences=(CS_AUDIENCE,))


_SCHEMES: Mapping[str, Callable[[Roots], Scheme]] = {
    "azure-snp-vtpm": lambda roots: AzureVtpmScheme(_amd(roots)),
    "azure-tdx-vtpm": lambda roots: AzureVtpmScheme(TdxScheme([roots.certificates["root"]])),
    "cca": lambda roots: CcaScheme(roots.anchors),
    "confidential-space": _space,
    "gce-vtpm": lambda roots: GceVtpmScheme([roots.certificates["root"]]),
    "nitro": lambda roots: NitroScheme([roots.certificates["root"]]),
    "nvidia-gpu": _gpu,
    "psa": lambda roots: PsaScheme(roots.anchors),
    "sgx": lambda roots: SgxScheme([roots.certificates["root"]]),
    "snp": _amd,
    "tdx": lambda roots: TdxScheme([roots.certificates["root"]]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Evidence, what its verifier needs, whom it has to trust, and a policy that accepts it."""

    evidence: Evidence
    endorsements: Mapping[str, bytes]
    policy: Policy
    roots: Roots


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    attester: Attester
    endorsements: Mapping[str, bytes]
    policy: Policy
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    anchors: tuple[Anchor, ...] = ()


def _intel(*, tdx: bool) -> _Machine:
    vendor = SyntheticIntel.generate()
    attester = vendor.tdx_attester() if tdx else vendor.sgx_attester()
    return _Machine(
        attester=attester,
        endorsements=attester.endorsements,
        policy=attester.policy(),
        certificates={"root": vendor.roots[0]},
    )


def _snp() -> _Machine:
    vendor = SyntheticAmd.generate(_LINE)
    attester = AmdAttester(Chip(vendor))
    return _Machine(
        attester=attester,
        endorsements=attester.endorsements,
        policy=attester.policy(),
        certificates={"root": vendor.trust.roots[_LINE]},
    )


def _azure(hardware: SnpHardware | TdxHardware, root: Certificate) -> _Machine:
    attester = AzureAttester(hardware, _SOFTWARE)
    return _Machine(
        attester=attester,
        endorsements=attester.endorsements,
        policy=attester.policy(),
        certificates={"root": root},
    )


def _azure_snp() -> _Machine:
    vendor = SyntheticAmd.generate(_LINE)
    return _azure(SnpHardware(Chip(vendor)), vendor.trust.roots[_LINE])


def _azure_tdx() -> _Machine:
    vendor = SyntheticIntel.generate()
    return _azure(TdxHardware(vendor), vendor.roots[0])


def _gce() -> _Machine:
    vendor = SyntheticGoogle.generate()
    attester = GceAttester(vendor, _SOFTWARE)
    return _Machine(
        attester=attester,
        endorsements=attester.endorsements,
        policy=attester.policy(),
        certificates={"root": vendor.root},
    )


def _nvidia() -> _Machine:
    vendor = NvidiaVendor.generate()
    attester = vendor.attester()
    certificates = {"rim_root": vendor.rim_root.certificate, "root": vendor.device_root.certificate}
    return _Machine(
        attester=attester,
        endorsements=attester.endorsements,
        policy=attester.policy(),
        certificates=certificates,
    )


def _aws(clock: Callable[[], datetime]) -> _Machine:
    vendor = NitroVendor.generate()
    return _Machine(
        attester=vendor.attester(clock),
        endorsements=vendor.endorsements,
        policy=vendor.policy(max_age=_MAX_AGE),
        certificates={"root": vendor.root},
    )


def _token(clock: Callable[[], datetime]) -> _Machine:
    vendor = TokenVendor.generate(CONFIDENTIAL_SPACE.tee)
    return _Machine(
        attester=vendor.attester(clock),
        endorsements={},  # the token carries its chain
        policy=vendor.policy(),
        certificates={"root": vendor.root},
    )


def _arm(vendor: PsaDevice | CcaPlatform) -> _Machine:
    return _Machine(
        attester=vendor.attester(),
        endorsements=vendor.endorsements,
        policy=vendor.policy(),
        anchors=(vendor.anchor,),
    )


SAMPLES: Mapping[str, Callable[[Callable[[], datetime]], _Machine]] = {
    "azure-snp-vtpm": lambda _: _azure_snp(),
    "azure-tdx-vtpm": lambda _: _azure_tdx(),
    "cca": lambda _: _arm(CcaPlatform.generate()),
    "confidential-space": _token,
    "gce-vtpm": lambda _: _gce(),
    "nitro": _aws,
    "nvidia-gpu": lambda _: _nvidia(),
    "psa": lambda _: _arm(PsaDevice.generate()),
    "sgx": lambda _: _intel(tdx=False),
    "snp": lambda _: _snp(),
    "tdx": lambda _: _intel(tdx=True),
}
"""Kinds of which there are samples, and who makes them, given a clock."""


def sample(tee: str, nonce: bytes, now: datetime) -> Sample:
    """Make a sample of one of ``SAMPLES`` that carries ``nonce``, filled up to its field.

    Raises ``UsageError`` for another kind and for a nonce that is longer than the field.
    """
    if tee not in SAMPLES:
        msg = f"sample: no synthetic vendor makes {tee[:64]!r}, want one of {', '.join(SAMPLES)}"
        raise UsageError(msg)
    made = SAMPLES[tee](lambda: now)
    size = made.attester.report_data_bytes
    if len(nonce) > size:
        msg = f"sample: nonce of {len(nonce)} bytes, want at most {size}"
        raise UsageError(msg)
    return Sample(
        evidence=made.attester.collect(nonce.ljust(size, b"\x00")),
        endorsements=made.endorsements,
        policy=made.policy,
        roots=Roots(tee=made.attester.tee, certificates=made.certificates, anchors=made.anchors),
    )
