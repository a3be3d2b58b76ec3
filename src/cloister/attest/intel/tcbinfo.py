"""TCB information of one FMSPC (Intel PCS API version 4, "Get TCB Info" for SGX and TDX; structure version 3).

Not done here: its signature (``verify``), matching a platform with it (``tcb``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.intel.pck import TCB_COMPONENTS
from cloister.attest.intel.published import take_advisories, take_component_levels, take_each, take_hex, take_status
from cloister.attest.intel.tcb import PLATFORM_STATUSES, TcbLevel
from cloister.errors import Rejected
from cloister.wire import Fields

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.attest.intel.tcb import ComponentLevel

__all__ = ["MAX_TCB_INFO_BYTES", "ModuleIdentity", "TcbInfo", "module_name"]

MAX_TCB_INFO_BYTES = 128 * 1024  # bytes of one document; 8 KiB are usual
_VERSION = 3
_MAX_MODULES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """A TDX module: who signs it, its attributes under a mask, and its levels (none for major version 0)."""

    name: str
    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[ComponentLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """One document, unverified."""

    kind: str
    issued: datetime
    next_update: datetime
    fmspc: bytes
    pceid: bytes
    evaluation: int
    levels: tuple[TcbLevel, ...]
    module: ModuleIdentity | None
    modules: tuple[ModuleIdentity, ...]

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Parse one document. Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for another version."""
        fields = Fields.parse(text, what="tcb info", cap=MAX_TCB_INFO_BYTES)
        version = fields.integer("version", cap=0xFFFF)
        if version != _VERSION:
            raise Rejected.because("unsupported_format", "tcb info version", got=str(version), want=str(_VERSION))
        kind = fields.text("id", cap=16)
        if fields.integer("tcbType", cap=0xFFFF) != 0:  # 0: compare part by part; no other was ever defined
            fields.fail("tcbType", "want 0")
        module = _take_module(fields.fields("tdxModule"), "module0") if "tdxModule" in fields else None
        modules: tuple[ModuleIdentity, ...] = ()
        if "tdxModuleIdentities" in fields:
            modules = tuple(_take_identity(item) for item in take_each(fields, "tdxModuleIdentities", cap=_MAX_MODULES))
        return cls(
            kind=kind,
            issued=fields.time("issueDate"),
            next_update=fields.time("nextUpdate"),
            fmspc=take_hex(fields, "fmspc", 6),
            pceid=take_hex(fields, "pceId", 2),
            evaluation=fields.integer("tcbEvaluationDataNumber"),
            levels=tuple(_take_level(item, tdx=kind == "TDX") for item in take_each(fields, "tcbLevels")),
            module=module,
            modules=modules,
        )

    def module_for(self, tee_tcb_svn: bytes) -> ModuleIdentity | None:
        """Return the identity of the module with this TEE_TCB_SVN, whose second byte is its major version."""
        if tee_tcb_svn[1] == 0:
            return self.module
        wanted = module_name(tee_tcb_svn)
        return next((item for item in self.modules if item.name.upper() == wanted), None)


def module_name(tee_tcb_svn: bytes) -> str:
    """Return the name Intel gives the module with this TEE_TCB_SVN."""
    return f"TDX_{tee_tcb_svn[1]:02X}" if tee_tcb_svn[1] else "module0"


def _take_module(fields: Fields, name: str) -> ModuleIdentity:
    return ModuleIdentity(
        name=name,
        mrsigner=take_hex(fields, "mrsigner", 48),
        attributes=take_hex(fields, "attributes", 8),
        attributes_mask=take_hex(fields, "attributesMask", 8),
        levels=take_component_levels(fields) if "tcbLevels" in fields else (),
    )


def _take_identity(fields: Fields) -> ModuleIdentity:
    return _take_module(fields, fields.text("id", cap=16))


def _take_level(fields: Fields, *, tdx: bool) -> TcbLevel:
    tcb = fields.fields("tcb")
    return TcbLevel(
        sgx=_take_components(tcb, "sgxtcbcomponents"),
        pcesvn=tcb.integer("pcesvn", cap=0xFFFF),
        tdx=_take_components(tcb, "tdxtcbcomponents") if tdx else (),
        date=fields.time("tcbDate"),
        status=take_status(fields, PLATFORM_STATUSES),
        advisories=take_advisories(fields),
    )


def _take_components(fields: Fields, name: str) -> tuple[int, ...]:
    found = tuple(item.integer("svn", cap=0xFF) for item in take_each(fields, name, cap=TCB_COMPONENTS))
    if len(found) != TCB_COMPONENTS:
        fields.fail(name, f"{len(found)} components, want {TCB_COMPONENTS}")
    return found
