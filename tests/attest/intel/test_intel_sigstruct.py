"""Signature files of enclaves: reference values that are signed, or none."""

from __future__ import annotations

import hashlib

import pytest

from cloister.attest.intel.sigstruct import SIGSTRUCT_BYTES, Sigstruct, verify_sigstruct
from cloister.errors import Malformed, Rejected
from cloister.testing.vendors.intel.bodies import EnclaveBody
from cloister.testing.vendors.intel.sigstructs import make_key, sigstruct

KEY = make_key()
BODY = EnclaveBody(isvprodid=3, isvsvn=9)
SIGNED = sigstruct(BODY, KEY)


def test_the_file_says_what_the_enclave_will_claim() -> None:
    found = verify_sigstruct(SIGNED)
    modulus = KEY.public_key().public_numbers().n.to_bytes(384, "little")
    assert found.reference_values() == {
        "isvextprodid": "00" * 16,
        "isvfamilyid": "00" * 16,
        "isvprodid": 3,
        "isvsvn": 9,
        "mrenclave": BODY.mrenclave.hex(),
        "mrsigner": hashlib.sha256(modulus).hexdigest(),
    }
    assert found.date == "20260601"


@pytest.mark.parametrize("at", [40, 130, 520, 900, 928, 960, 1024, 1026, 1041, 1425])
def test_any_signed_byte_changed_is_refused(at: int) -> None:
    damaged = bytearray(SIGNED)
    damaged[at] ^= 1
    with pytest.raises(Rejected) as refusal:
        verify_sigstruct(bytes(damaged))
    assert refusal.value.code == "signature_invalid"


def test_signature_of_another_key_is_refused() -> None:
    other = sigstruct(BODY, make_key())
    with pytest.raises(Rejected):
        verify_sigstruct(SIGNED[:516] + other[516:900] + SIGNED[900:])


@pytest.mark.parametrize(
    "data", [b"", SIGNED[:-1], SIGNED + b"\0", b"\7" + SIGNED[1:], SIGNED[:512] + b"\1" + SIGNED[513:]]
)
def test_files_of_another_form_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Sigstruct.parse(data)


def test_size_is_that_of_the_manual() -> None:
    assert len(SIGNED) == SIGSTRUCT_BYTES == 1808
