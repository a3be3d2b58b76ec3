"""What evidence binds: one construction, one label for each use (docs/spec/evidence.md section 2).

    report data = SHA-512(label || lp(part 1) || ... || lp(part n)), lp = 32-bit big-endian length first

folded to the TEE's report-data field: fields of 64 bytes and more carry it zero-padded, shorter ones
(32 to 63 bytes) carry its first bytes. Shorter fields than 32 bytes are refused.

What attesters of other systems put there is the exception (``CarriedBinding``): a nonce as it is, filled up
with zeros, and nothing else bound.

Devices (GPUs, switches) are bound from both ends: each device's report carries ``device_report_data``, over the same
nonce and keys; the exact bytes of all their evidence are the last part of the report data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cloister.errors import UsageError
from cloister.wire import lp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import Nonce

__all__ = ["NO_DEVICES", "Binding", "CarriedBinding", "ChannelBinding", "ReleaseBinding", "ServiceBinding", "fold"]

NO_DEVICES = b""
"""The devices of an enclave that has none."""

_RELEASE_LABEL = b"cloister/attest/v1"
_RELEASE_DEVICE_LABEL = b"cloister/attest-device/v1"
_CHANNEL_LABEL = b"cloister/report-data/v1"
_CHANNEL_DEVICE_LABEL = b"cloister/report-data-device/v1"
_SERVICE_LABEL = b"cloister/attest-service/v1"
_SERVICE_DEVICE_LABEL = b"cloister/attest-service-device/v1"
_MIN_FIELD_BYTES = 32


class Binding(Protocol):
    """What evidence is expected to bind, for one use."""

    @property
    def nonce(self) -> bytes:
        """The challenge that is answered."""
        ...

    @property
    def devices(self) -> bytes:
        """The exact evidence of all devices (``devices``)."""
        ...

    def field(self, size: int) -> bytes:
        """Return what a report-data field of ``size`` bytes has to hold."""
        ...

    def device_field(self, size: int) -> bytes:
        """Return the same for each device's report."""
        ...

    def bound(self) -> Mapping[str, bytes]:
        """Return the bound values by name."""
        ...


def fold(digest: bytes, *, field_bytes: int) -> bytes:
    """Return ``digest`` (64 bytes) as a report-data field of ``field_bytes`` bytes."""
    if field_bytes < _MIN_FIELD_BYTES:
        msg = f"report data: field of {field_bytes} bytes, want at least {_MIN_FIELD_BYTES}"
        raise UsageError(msg)
    return digest[:field_bytes].ljust(field_bytes, b"\x00")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseBinding:
    """What an enclave binds when it asks the custodian for a model key.

    ``custodian`` is the custodian's raw verify key, so that one custodian's challenge is worth
    nothing at another; ``software`` is the dumped software manifest; ``devices`` their exact evidence (``devices``).
    """

    nonce: Nonce
    custodian: bytes
    instance_pub: bytes
    kem_pub: bytes
    software: bytes
    devices: bytes = NO_DEVICES

    def report_data(self) -> bytes:
        """Return the 64 bytes to fold into the report."""
        return hashlib.sha512(_RELEASE_LABEL + self._own() + lp(self.devices)).digest()

    def device_report_data(self) -> bytes:
        """Return the 64 bytes to fold into each device's report: known before any device was asked."""
        return hashlib.sha512(_RELEASE_DEVICE_LABEL + self._own()).digest()

    def field(self, size: int) -> bytes:
        """Return the report-data field."""
        return fold(self.report_data(), field_bytes=size)

    def device_field(self, size: int) -> bytes:
        """Return each device's report-data field."""
        return fold(self.device_report_data(), field_bytes=size)

    def _own(self) -> bytes:
        return lp(self.nonce, self.custodian, self.instance_pub, self.kem_pub, self.software)

    def bound(self) -> Mapping[str, bytes]:
        """Return the bound values by name."""
        return {
            "custodian": self.custodian,
            "devices": self.devices,
            "instance_pub": self.instance_pub,
            "kem_pub": self.kem_pub,
            "software": self.software,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelBinding:
    """What an enclave binds for its consumers: the exact bytes of its keyset and device evidence.

    ``nonce`` is the consumer's, or 32 zero bytes in the cached form.
    """

    nonce: Nonce
    keyset: bytes
    devices: bytes = NO_DEVICES

    def report_data(self) -> bytes:
        """Return the 64 bytes to fold into the report."""
        return hashlib.sha512(_CHANNEL_LABEL + lp(self.nonce, self.keyset, self.devices)).digest()

    def device_report_data(self) -> bytes:
        """Return the 64 bytes to fold into each device's report."""
        return hashlib.sha512(_CHANNEL_DEVICE_LABEL + lp(self.nonce, self.keyset)).digest()

    def field(self, size: int) -> bytes:
        """Return the report-data field."""
        return fold(self.report_data(), field_bytes=size)

    def device_field(self, size: int) -> bytes:
        """Return each device's report-data field."""
        return fold(self.device_report_data(), field_bytes=size)

    def bound(self) -> Mapping[str, bytes]:
        """Return the bound values by name."""
        return {"keyset": self.keyset, "devices": self.devices}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBinding:
    """What an attester binds for an attestation service or a Relying Party: a nonce, and ``data`` of its own.

    ``data`` is what the result shall vouch for beside the machine: a public key, the digest of a request, nothing.
    """

    nonce: bytes
    data: bytes = b""
    devices: bytes = NO_DEVICES

    def report_data(self) -> bytes:
        """Return the 64 bytes to fold into the report."""
        return hashlib.sha512(_SERVICE_LABEL + lp(self.nonce, self.data, self.devices)).digest()

    def device_report_data(self) -> bytes:
        """Return the 64 bytes to fold into each device's report."""
        return hashlib.sha512(_SERVICE_DEVICE_LABEL + lp(self.nonce, self.data)).digest()

    def field(self, size: int) -> bytes:
        """Return the report-data field."""
        return fold(self.report_data(), field_bytes=size)

    def device_field(self, size: int) -> bytes:
        """Return each device's report-data field."""
        return fold(self.device_report_data(), field_bytes=size)

    def bound(self) -> Mapping[str, bytes]:
        """Return the bound values by name."""
        return {"data": self.data, "devices": self.devices}


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedBinding:
    """A nonce as it is in the report data, as attesters of other systems put it: no data and no devices go with it."""

    nonce: bytes
    devices: bytes = NO_DEVICES

    def field(self, size: int) -> bytes:
        """Return the nonce filled up with zeros; one that is longer than the field is never cut, and never found."""
        return self.nonce.ljust(size, b"\x00")

    def device_field(self, size: int) -> bytes:
        """Return the same: a device that stands alone is asked like any attester."""
        return self.field(size)

    def bound(self) -> Mapping[str, bytes]:
        """Return nothing: a nonce says who is answered, and binds no key."""
        return {}
