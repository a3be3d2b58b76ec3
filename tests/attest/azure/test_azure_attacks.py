"""What a hostile guest sends in place of a signature."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from cloister.attest.parts import dump_parts
from cloister.attest.rats import Evidence
from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.structures import RsaSignature
from cloister.errors import Rejected
from cloister.testing.vendors.azure import AzureAttester, SnpHardware

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("scheme", [Alg.RSASSA, Alg.RSAPSS])
def test_a_signature_with_sha_1_is_refused_and_not_our_mistake(scheme: Alg) -> None:
    vm = AzureAttester(SnpHardware(), hashlib.sha256(b"software manifest").digest())
    signature = RsaSignature(scheme=scheme, hash_alg=Alg.SHA1, value=bytes(256)).dump()
    payload = dump_parts(vm.parts(bytes(32)) | {"signature_tpmt": signature})
    with pytest.raises(Rejected) as refused:
        vm.scheme().verify(Evidence(tee=vm.tee, payload=payload), vm.endorsements, NOW)
    assert {reason.code for reason in refused.value.reasons} == {"algorithm_not_allowed"}
