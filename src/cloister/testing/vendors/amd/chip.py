"""A synthetic processor with its endorsement key: certificates, reports, evidence."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.amd.certtable import dump_table
from cloister.attest.amd.evidence import SNP
from cloister.attest.amd.products import HWID_BYTES, Product
from cloister.attest.amd.report import SigningKey
from cloister.attest.amd.vek import EXTENSIONS
from cloister.attest.amd.vek import LEVELS as LEVEL_OIDS
from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.testing.vendors.amd.authority import Issue
from cloister.testing.vendors.amd.report import LEVELS, ReportValues, sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.chain import Certificate
    from cloister.testing.vendors.amd.authority import SyntheticAmd

__all__ = ["Chip"]

_CSP = "CN=cloud.example"
_RESERVED = {Product.TURIN: ("spl5", "spl6", "spl7")}
_IA5 = 0x16


class Chip:
    """One processor of ``vendor``. With ``csp`` it signs with that cloud's VLEK, else with its own VCEK."""

    def __init__(
        self,
        vendor: SyntheticAmd,
        *,
        number: int = 1,
        csp: str = "",
        levels: Mapping[str, int] | None = None,
        curve: ec.EllipticCurve | None = None,
    ) -> None:
        """Make the key for firmware at ``levels``; ``number`` tells chips apart."""
        self.vendor = vendor
        self.kind = SigningKey.VLEK if csp else SigningKey.VCEK
        self.csp = csp
        self.hwid = number.to_bytes(2, "big") * (vendor.product.hwid_bytes // 2)
        self.levels = dict(LEVELS[vendor.product] if levels is None else levels)
        self.key = ec.generate_private_key(curve or ec.SECP384R1())

    @property
    def chip_id(self) -> bytes:
        """CHIP_ID as this chip reports it; clouds with a VLEK hide it."""
        return bytes(HWID_BYTES) if self.csp else self.hwid.ljust(HWID_BYTES, b"\x00")

    def extensions(self, product_name: str = "") -> dict[str, bytes]:
        """Return AMD's extensions, by OID."""
        product = self.vendor.product
        plain = product.value if self.csp or product is not Product.MILAN else f"{product.value}-B0"
        found = {
            EXTENSIONS["struct_version"]: _integer(1 if product is Product.TURIN else 0),
            EXTENSIONS["product_name"]: _text(product_name or plain),
        }
        reserved = dict.fromkeys(_RESERVED.get(product, ("spl4", "spl5", "spl6", "spl7")), 0)
        found |= {LEVEL_OIDS[name]: _integer(level) for name, level in {**self.levels, **reserved}.items()}
        if self.csp:
            return {**found, EXTENSIONS["csp"]: _text(self.csp)}
        return {**found, EXTENSIONS["hwid"]: self.hwid}

    def leaf(self, issue: Issue | None = None) -> Certificate:
        """Return the VCEK or VLEK certificate; ``issue`` says what about it is not as AMD does it."""
        made = issue or Issue()
        changed = replace(
            made,
            common_name=made.common_name or f"SEV-{self.kind.name}",
            extensions=self.extensions() if made.extensions is None else made.extensions,
        )
        return self.vendor.issue(self.key.public_key(), changed, self.kind)

    @cached_property
    def certificate(self) -> Certificate:
        """The VCEK or VLEK certificate as AMD issues it."""
        return self.leaf()

    def report(self, values: ReportValues | None = None) -> bytes:
        """Return a signed report; patches behind its signed part are put in afterwards."""
        chosen = values or ReportValues()
        body = chosen.dump(self.vendor.product, self.levels, self.chip_id, self.kind << 2)
        report = bytearray(body + sign(body, self.key))
        for offset, data in chosen.patches.items():
            if offset >= len(body):
                report[offset : offset + len(data)] = data
        return bytes(report)

    def parts(self, values: ReportValues | None = None, leaf: Certificate | None = None) -> dict[str, bytes]:
        """Return report, certificate and authorities by role."""
        return {
            "report": self.report(values),
            "leaf": (leaf or self.certificate).der,
            "intermediate": self.vendor.intermediate(self.kind).der,
            "root": self.vendor.ark.der,
        }

    def table(self) -> bytes:
        """Return the certificate table that a hypervisor hands out with an extended report."""
        role = self.kind.name.lower()
        return dump_table(
            {role: self.certificate.der, "ask": self.vendor.intermediate(self.kind).der, "ark": self.vendor.ark.der}
        )

    def evidence(self, values: ReportValues | None = None, **parts: bytes | None) -> Evidence:
        """Return evidence with every certificate; ``parts`` replace parts, None takes one away."""
        chosen = {**self.parts(values), **parts}
        return Evidence(tee=SNP, payload=dump_parts({role: data for role, data in chosen.items() if data is not None}))


def _integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((0x02, len(body))) + body


def _text(value: str) -> bytes:
    return bytes((_IA5, len(value))) + value.encode("ascii")
