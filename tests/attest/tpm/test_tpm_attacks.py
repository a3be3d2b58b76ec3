"""Whoever runs a system may measure more, and writes the log that explains it."""

from __future__ import annotations

import pytest

from cloister.attest.tpm.eventlog import EventLog, replay, secure_boot
from tpm_log import IPL, SEPARATOR, VARIABLE, event, header, variable

OFF, ON = variable("SecureBoot", b"\0"), variable("SecureBoot", b"\1")


@pytest.mark.parametrize("let_go", [bytes(4), b"\xff" * 4, b"\1\0\0\0"])
def test_events_named_anew_do_not_turn_secure_boot_on(let_go: bytes) -> None:
    """PCR 7 is extended once more with what firmware would have measured; names of events are under no digest."""
    later = event(7, VARIABLE, ON) + event(7, SEPARATOR, b"no separator")
    honest = header() + event(7, VARIABLE, OFF) + event(7, SEPARATOR, let_go) + later
    forged = header() + event(7, IPL, b"", over=OFF) + event(7, IPL, b"", over=let_go) + later
    assert replay(EventLog.parse(forged)) == replay(EventLog.parse(honest)), "every digest is as the tpm has it"
    assert secure_boot(EventLog.parse(honest)) is False
    assert secure_boot(EventLog.parse(forged)) is None


def test_firmware_that_never_let_go_proves_nothing() -> None:
    assert secure_boot(EventLog.parse(header() + event(7, VARIABLE, ON))) is None
