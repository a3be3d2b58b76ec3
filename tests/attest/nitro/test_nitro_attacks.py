"""Attacks on Nitro documents by a host that chooses everything but AWS's signatures."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.aws import Chain, Document, NitroVendor, Tier, sample_pcrs
from odd_x509 import STEERING, TLS_FEATURE, odd_certificate

if TYPE_CHECKING:
    from cloister.attest.cbor import Cbor

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
VENDOR = NitroVendor.generate()
PLAIN = Document(timestamp=NOW)


def test_a_certificate_with_a_tls_feature_that_has_no_name_does_not_bring_the_verifier_down() -> None:
    odd = odd_certificate(TLS_FEATURE)
    changes: tuple[dict[int | str, Cbor], ...] = ({"certificate": odd}, {"cabundle": [*VENDOR.bundle, odd]})
    for fields in changes:
        with pytest.raises(Malformed):
            VENDOR.scheme().verify(VENDOR.evidence(replace(PLAIN, fields=fields)), {}, NOW)


def test_t84_a_chain_named_to_steer_a_terminal_shows_its_names_as_escapes() -> None:
    stranger = NitroVendor.generate(replace(Chain(), root=Tier(name=STEERING)))
    with pytest.raises(Rejected) as refused:
        VENDOR.scheme().verify(stranger.evidence(PLAIN), {}, NOW)
    (reason,) = refused.value.reasons
    assert (reason.code, r"\x1b[2Jtrusted" in reason.subject) == ("untrusted_root", True)
    assert all(text.isprintable() for text in (reason.subject, reason.got, reason.want))


@pytest.mark.parametrize("key", [STEERING, "x" * 10_000], ids=["steers a terminal", "is as long as a page"])
def test_t84_a_register_whose_number_is_a_text_is_told_short_and_as_escapes(key: str) -> None:
    pcrs: dict[int | str, Cbor] = {0: sample_pcrs()[0], key: bytes(48)}
    document = replace(PLAIN, fields={"pcrs": pcrs})
    with pytest.raises(Malformed) as refused:
        VENDOR.scheme().verify(VENDOR.evidence(document), {}, NOW)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 200
