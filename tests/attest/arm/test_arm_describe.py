"""Nitro, PSA and CCA evidence explained: each describer knows its own kind and leaves no field out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloister.attest.describe.arm import CcaDescriber, PsaDescriber
from cloister.attest.describe.nitro import NitroDescriber
from cloister.errors import Malformed
from cloister.testing.vendors.arm import CLASSIC, RMM_2, CcaPlatform, CcaToken, PsaDevice, PsaToken
from cloister.testing.vendors.aws import Document, NitroVendor

NITRO = NitroVendor.generate()
PLAIN = Document(timestamp=datetime(2026, 5, 1, tzinfo=UTC), user_data=bytes(64), nonce=b"")
PLATFORM = CcaPlatform.generate()
FILES = {
    "nitro": NITRO.document(PLAIN),
    "nitro tagged": NITRO.document(Document(timestamp=PLAIN.timestamp, tagged=True, indefinite=True)),
    "psa": PsaDevice.generate().token(PsaToken(nonce=bytes(64))),
    "psa mac": PsaDevice.symmetric().token(PsaToken(nonce=bytes(64))),
    "psa first": PsaDevice.generate().token(PsaToken(nonce=bytes(64), profile="PSA_IOT_PROFILE_1", left_out=(-75010,))),
    "cca": PLATFORM.token(CcaToken(challenge=bytes(64))),
    "cca classic": PLATFORM.token(CcaToken(challenge=bytes(64), profile=CLASSIC)),
    "cca wrapped": PLATFORM.token(CcaToken(challenge=bytes(64), profile=RMM_2, wrapped=True)),
}
DESCRIBERS = {"nitro": NitroDescriber(), "psa": PsaDescriber(), "cca": CcaDescriber()}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_by_the_one_that_explains_it(name: str) -> None:
    kind = name.split(maxsplit=1)[0]
    assert [found for found, describer in DESCRIBERS.items() if describer.recognises(FILES[name])] == [kind]
    description = DESCRIBERS[kind].describe(FILES[name])
    assert description.kind == kind
    assert len(description.fields) > 10
    for field in description.fields:
        assert field.value.isprintable()
        assert field.meaning.endswith(".")


def test_a_document_of_a_debugged_enclave_says_so() -> None:
    debugged = NITRO.document(Document(timestamp=PLAIN.timestamp, pcrs={0: bytes(48)}))
    values = {field.name: field.value for field in NitroDescriber().describe(debugged).fields}
    assert values["mode"] == "debug"
    assert values["nonce"] == "absent"


def test_a_realm_that_is_not_bound_says_so() -> None:
    loose = PLATFORM.token(CcaToken(challenge=bytes(64), binding=bytes(32)))
    meanings = {field.name: field.meaning for field in CcaDescriber().describe(loose).fields}
    assert "NOT" in meanings["platform.challenge"]


@pytest.mark.parametrize("describer", DESCRIBERS.values(), ids=DESCRIBERS)
def test_what_is_something_else_is_not_recognised(describer: NitroDescriber | PsaDescriber | CcaDescriber) -> None:
    for data in (b"", b"\x84", b"\xd2\x84", b"{}", bytes(100_000)):
        assert not describer.recognises(data)
        with pytest.raises(Malformed):
            describer.describe(data)


def test_a_well_formed_token_that_nobody_reads_is_malformed_to_a_describer() -> None:
    strange = {
        "nitro": NITRO.document(Document(timestamp=PLAIN.timestamp, fields={"nitrotpm_pcrs": {}})),
        "psa": PsaDevice.generate().token(PsaToken(nonce=bytes(64), profile="tag:psacertified.org,2030:psa")),
        "cca": PLATFORM.token(CcaToken(challenge=bytes(64), realm={44240: "sha-1"})),
    }
    for kind, data in strange.items():
        with pytest.raises(Malformed):
            DESCRIBERS[kind].describe(data)
