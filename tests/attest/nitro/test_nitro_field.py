"""Members of a policy as other projects spell them: prefixes on hex, registers in order, fields that are not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cloister.attest.dossier.nitro import open_case
from cloister.attest.rules import Exact, NotChecked
from cloister.errors import Unavailable
from cloister.testing.vendors.aws import Document, NitroVendor, sample_pcrs

VENDOR = NitroVendor.generate()
PLAIN = Document(timestamp=datetime(2026, 5, 1, tzinfo=UTC), nonce=b"\x06" * 32)
FILES = {"document": VENDOR.document(PLAIN)}


def test_registers_may_be_listed_in_order_and_have_a_prefix() -> None:
    values = ["0x" + sample_pcrs()[index].hex().upper() for index in range(3)]
    bounds = open_case(FILES, {"pcrs": list(values)}).bound
    assert [bound.subject for bound in bounds] == ["pcr.0", "pcr.1", "pcr.2"]
    assert all(bound.got == bound.want for bound in bounds)
    assert open_case(FILES, {"pcrs": ["00" * 48]}).bound[0].got != bytes(48)


def test_a_field_that_is_not_wanted_must_not_be_there() -> None:
    for nonce in (None, b"\x06"):
        (bound,) = open_case({"document": VENDOR.document(replace(PLAIN, nonce=nonce))}, {"nonce": None}).bound
        assert bound.code == "nonce_mismatch"
        assert (bound.got == bound.want) is (nonce is None)


def test_debug_is_refused_until_a_policy_allows_it() -> None:
    for name in ("allow_debug", "debug_allowed"):
        assert open_case(FILES, {name: True}).rules == {"debug": NotChecked("allowed by the policy")}
        assert open_case(FILES, {name: False}).rules == {"debug": Exact(value=False)}
        with pytest.raises(Unavailable):
            open_case(FILES, {name: "yes"})
