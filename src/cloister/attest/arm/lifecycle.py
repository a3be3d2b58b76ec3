"""Security lifecycle of a PSA or CCA device (RFC 9783 section 4.3.1, draft-ffm-rats-cca-token-04 section 4.5.2)."""

from __future__ import annotations

from enum import Enum
from typing import Self

from cloister.errors import Malformed

__all__ = ["MAX_LIFECYCLE", "Lifecycle"]

MAX_LIFECYCLE = 0xFFFF


class Lifecycle(Enum):
    """The state in the upper byte; the lower byte is the implementation's own."""

    UNKNOWN = 0x00
    ASSEMBLY_AND_TEST = 0x10
    ROT_PROVISIONING = 0x20
    SECURED = 0x30
    NON_ROT_DEBUG = 0x40
    RECOVERABLE_ROT_DEBUG = 0x50
    DECOMMISSIONED = 0x60

    @classmethod
    def of(cls, value: int) -> Self:
        """Return the state of a lifecycle claim. Raises ``Malformed`` outside all ranges."""
        try:
            return cls(value >> 8)
        except ValueError as exc:
            msg = f"lifecycle: {value:#06x} is no state"
            raise Malformed(msg) from exc

    @property
    def secured(self) -> bool:
        """Whether the device is as it should be in the field."""
        return self is Lifecycle.SECURED

    @property
    def debug(self) -> bool:
        """Whether somebody may look inside: a debugger is, or was, let in."""
        return self in {Lifecycle.NON_ROT_DEBUG, Lifecycle.RECOVERABLE_ROT_DEBUG}
