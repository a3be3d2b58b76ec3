"""A consumer verifies before it sends anything: attacks on evidence, keyset and status."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from client_town import CLASSICAL, CUSTODIAN, ENCLAVE, TOKEN, Reply, Town, scan, unchecked

from cloister.attest.rats import Verdict
from cloister.attest.software import SoftwareManifest
from cloister.channel.keyset import KEYSET_TYPE
from cloister.channel.ohttp import GatewayKeys
from cloister.client import AsyncClient, Client, CustodianPin, SystemTls
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.lending.terms import InstanceId
from cloister.testing.simulated import SimulatedRoot, simulated_policy
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE_OF_CUSTODIAN = SoftwareManifest(code="22" * 32, python="3.11", packages={}, settings={})


@pytest.fixture
def town() -> Town:
    return Town()


def refused(town: Town, **changes: object) -> Rejected:
    """Return why the consumer refuses; nothing sealed may have been sent."""
    with pytest.raises(Rejected) as caught:
        town.client(**changes)
    assert not [asked for asked in town.asked if "ohttp-gateway" in asked]
    return caught.value


def codes(error: Rejected) -> set[str]:
    return {reason.code for reason in error.reasons}


def test_a_good_enclave_is_verified_and_every_check_is_kept(town: Town) -> None:
    with town.client() as client:
        enclave = client.enclave
    assert enclave.operator == "Hospital Group"
    assert enclave.instance == town.enclave.instance
    assert {check.verdict for check in enclave.checks} == {Verdict.PASSED, Verdict.NOT_CHECKED}
    assert {"measurement", "custodian", "operator", "instance", "model digits"} <= {c.subject for c in enclave.checks}


def test_t4_genuine_code_on_a_strangers_machine_is_refused(town: Town) -> None:
    """The approved image, run by an attacker who lures consumers, is genuine; its operator is not."""
    town.operator = "Mallory Hosting"
    assert codes(refused(town, operators=("Hospital Group",))) == {"operator_mismatch"}


def test_t4_an_operator_that_signs_its_own_status_is_refused(town: Town) -> None:
    town.status_key = SigningKey.generate()
    assert codes(refused(town)) == {"unknown_key"}


def test_t4_a_blocked_instance_is_refused(town: Town) -> None:
    town.state = "blocked"
    assert codes(refused(town)) == {"instance_not_active"}


def test_t4_an_old_status_is_refused(town: Town) -> None:
    town.status_change = lambda status: replace(status, issued_at=status.issued_at - timedelta(minutes=10))
    assert codes(refused(town)) == {"status_stale"}


def test_t4_a_status_with_another_nonce_or_of_another_instance_is_refused_for_both(town: Town) -> None:
    town.status_change = lambda status: replace(status, nonce=bytes(32), instance=InstanceId("0" * 64))
    assert codes(refused(town)) == {"nonce_mismatch", "wrong_instance"}


def test_t4_a_status_of_another_loan_or_without_the_model_is_refused(town: Town) -> None:
    town.status_change = lambda status: replace(status, models=(), loan="loan-zzzzzzzzzzzzzzzz")
    assert codes(refused(town)) == {"loan_mismatch", "model_mismatch"}


def test_a_receipt_is_no_status(town: Town) -> None:
    with town.client() as client:
        statement = client.infer("digits", scan(3)).receipt.statement
    town.asked.clear()
    town.status_reply_change = lambda _: Reply(parts=[statement])
    assert codes(refused(town)) == {"wrong_statement"}


def test_t5_evidence_replayed_from_another_verification_is_refused(town: Town) -> None:
    old = town.enclave.document(b"n" * 32)
    town.document_change = lambda _: old
    assert codes(refused(town)) == {"nonce_mismatch"}


def test_t5_old_evidence_under_the_new_nonce_is_refused(town: Town) -> None:
    old = town.enclave.document(b"n" * 32)
    town.document_change = lambda document: replace(document, evidence=old.evidence)
    assert "report_data_mismatch" in codes(refused(town))


def test_t7_an_operator_that_puts_its_own_keys_into_the_keyset_is_refused(town: Town) -> None:
    """What a proxy that ends TLS would have to do to read bodies."""
    mine = GatewayKeys.generate()

    swapped = replace(town.enclave.keyset(), ohttp_keys=mine.dump()).dump()
    town.document_change = lambda document: replace(document, keyset=swapped)
    assert codes(refused(town)) == {"report_data_mismatch"}


def test_t53_code_that_the_custodian_approves_and_the_consumer_does_not_is_refused(town: Town) -> None:
    """The custodian signs ``active`` for a leaking image; the consumer compares with its own reference values."""
    town.enclave.software = CODE_OF_CUSTODIAN
    assert codes(refused(town)) == {"measurement_mismatch", "host_data_mismatch"}


def test_a_debug_enclave_with_other_code_is_refused_with_every_mismatch(town: Town) -> None:
    town.enclave.software = CODE_OF_CUSTODIAN
    town.enclave.debug = True
    assert codes(refused(town)) == {"measurement_mismatch", "host_data_mismatch", "debug_enabled"}


def test_t65_a_keyset_without_the_post_quantum_key_is_refused(town: Town) -> None:
    town.enclave.keys = GatewayKeys.generate(kems=CLASSICAL)
    assert codes(refused(town)) == {"suite_too_weak"}


def test_t65_removing_the_post_quantum_key_in_transit_breaks_the_evidence(town: Town) -> None:
    weak = GatewayKeys.generate(kems=CLASSICAL)
    town.document_change = lambda document: replace(
        document, keyset=replace(town.enclave.keyset(), ohttp_keys=weak.dump()).dump()
    )
    assert codes(refused(town)) == {"report_data_mismatch"}


def test_keys_are_never_fetched_outside_the_evidence(town: Town) -> None:
    with town.client() as client:
        client.infer("digits", scan(1))
    assert "GET enclave.test /.well-known/ohttp-gateway" not in town.asked


def test_another_simulated_root_is_refused(town: Town) -> None:
    town.enclave.root = SimulatedRoot.generate()
    assert codes(refused(town)) == {"untrusted_root"}


def test_simulated_evidence_is_refused_unless_its_scheme_is_handed_in(town: Town) -> None:
    assert codes(refused(town, schemes=())) == {"unsupported_tee"}


def test_another_version_of_the_model_is_refused(town: Town) -> None:
    town.enclave.digest = "dd" * 32
    town.status_change = lambda status: replace(status, models=("dd" * 32,))
    assert codes(refused(town)) == {"model_mismatch"}


def test_a_keyset_of_another_custodian_is_refused(town: Town) -> None:
    pin = CustodianPin(key=SigningKey.generate().verify_key, url=CUSTODIAN, ca_pem=None)
    assert codes(refused(town, custodian=pin)) == {"custodian_mismatch"}


def test_a_keyset_that_names_another_contract_or_none_is_refused_where_one_is_pinned(town: Town) -> None:
    assert codes(refused(town, contract="bb" * 32)) == {"contract_mismatch"}
    with town.client(contract="aa" * 32) as client:
        assert Verdict.PASSED in {
            check.verdict for check in client.enclave.checks if check.subject.startswith("contract")
        }
    town.enclave.keyset_change = lambda keyset: replace(keyset, models=())
    assert codes(refused(town, contract="aa" * 32)) >= {"contract_mismatch"}


def test_a_keyset_that_ran_out_long_ago_is_refused(town: Town) -> None:
    stale = town.enclave.keyset()
    town.enclave.keyset_change = lambda _: stale
    town.clock.advance(2 * 3600)
    assert codes(refused(town)) == {"keyset_expired"}


def test_a_receipt_key_that_is_not_the_instance_is_refused(town: Town) -> None:
    other = SigningKey.generate().verify_key
    town.enclave.keyset_change = lambda keyset: replace(keyset, receipt_keys=(other,))
    assert "wrong_instance" in codes(refused(town))


def test_what_is_not_checked_says_so_with_its_reason(town: Town) -> None:
    with town.client(operators=unchecked("any hospital"), custodian=unchecked("offline"), models=unchecked("any")) as c:
        notes = {check.subject: check.note for check in c.enclave.checks if check.verdict is Verdict.NOT_CHECKED}
    assert notes["custodian"] == "offline"
    assert notes["model digits"] == "any"
    assert c.enclave.status is None
    assert "GET custodian.test" not in " ".join(town.asked)


def test_a_custodian_that_does_not_answer_is_no_yes(town: Town) -> None:
    town.status_reply_change = lambda _: Reply(status=503, headers={"retry-after": "7"}, parts=[b"{}"])
    with pytest.raises(Unavailable) as caught:
        town.client()
    assert caught.value.retry_after_s == 7


def test_a_custodian_that_does_not_know_the_instance_refuses(town: Town) -> None:
    town.status_reply_change = lambda _: Reply(status=404, parts=[b"{}"])
    assert codes(refused(town)) == {"not_found"}


@pytest.mark.parametrize("kind", ["text/html", "application/json", ""])
def test_an_address_that_is_no_enclave_is_malformed(town: Town, kind: str) -> None:
    town.reply_change = lambda reply: replace(reply, kind=kind)
    with pytest.raises(Malformed, match="media type"):
        town.client()


def test_a_document_without_end_is_not_read_to_its_end(town: Town) -> None:
    town.reply_change = lambda _: Reply(kind=KEYSET_TYPE, parts=[b"x" * (1 << 20)] * 8)
    with pytest.raises(Malformed, match="longer than"):
        town.client()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_document_a_byte_at_a_time_does_not_keep_a_consumer_for_ever(town: Town, asynchronous: bool) -> None:  # noqa: FBT001 - a case
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.02)
            yield b" "

    town.reply_change = lambda _: Reply(kind=KEYSET_TYPE, parts=drip())  # type: ignore[arg-type]  # without end
    options = {"schemes": town.schemes, "transport": town, "clock": town.clock, "timeout": timedelta(seconds=0.1)}
    verify = (lambda *args, **rest: asyncio.run(AsyncClient.verify(*args, **rest))) if asynchronous else Client.verify
    with pytest.raises(Unavailable, match="too long"):
        verify(ENCLAVE, town.trust(), **options)


def test_ten_thousand_mutated_documents_are_refused(town: Town) -> None:
    """Only Malformed and Rejected come out, and no altered evidence is accepted."""
    from cloister.client.trust import verify_document  # noqa: PLC0415 - the one parser of this room

    nonce = b"n" * 32
    good = town.enclave.document(nonce).dump()
    trust = town.trust()
    accepted = []
    for data in mutated(good, count=10_000, seed=7):
        try:
            verified = verify_document(
                data, url=ENCLAVE, trust=trust, nonce=nonce, schemes=town.schemes, endorsements={}, now=town.clock.now
            )
        except (Malformed, Rejected):
            continue
        accepted.append(verified.keyset)
    assert all(keyset == town.enclave.keyset() for keyset in accepted)


def test_plain_http_to_another_machine_is_refused_while_tls_is_checked(town: Town) -> None:
    with pytest.raises(UsageError, match="plain http"):
        town.client(url="http://enclave.test", tls=SystemTls())


@pytest.mark.parametrize(
    "url",
    ["enclave.test", "ftp://enclave.test", "https://user:pw@enclave.test", "https://enclave.test/?a=1", "https://"],
)
def test_urls_that_are_no_address_are_refused(town: Town, url: str) -> None:
    with pytest.raises(UsageError):
        town.client(url=url)


def test_token_and_token_file_exclude_each_other(town: Town) -> None:
    with pytest.raises(UsageError, match="not both"):
        Client.verify(ENCLAVE, town.trust(), token=TOKEN, token_file=ENCLAVE, schemes=town.schemes, transport=town)


def test_the_async_client_verifies_the_same(town: Town) -> None:
    import asyncio  # noqa: PLC0415 - here only

    async def body() -> None:
        client = await AsyncClient.verify(
            ENCLAVE, town.trust(), token=TOKEN, schemes=town.schemes, transport=town, clock=town.clock
        )
        async with client:
            answer = await client.infer("digits", scan(4))
            assert answer.label == "4"
            assert (await client.model("digits")).remaining == 9
            assert (await client.reverify()).instance == town.enclave.instance
        town.operator = "Mallory Hosting"
        with pytest.raises(Rejected, match="operator"):
            await AsyncClient.verify(
                ENCLAVE,
                town.trust(operators=("Hospital Group",)),
                schemes=town.schemes,
                transport=town,
                clock=town.clock,
            )

    asyncio.run(body())


def test_policy_of_simulated_code_only_names_the_code(town: Town) -> None:
    from cloister.testing.simulated import simulated_measurement  # noqa: PLC0415 - here only

    with town.client(policy=simulated_policy(simulated_measurement(town.software))) as client:
        assert client.enclave.result.tee == "simulated"


@pytest.mark.parametrize("pem", ["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "ä", ""])
def test_authorities_that_are_no_certificates_are_malformed(town: Town, pem: str) -> None:
    with pytest.raises(Malformed):
        town.client(tls=SystemTls(pem))
    with pytest.raises(Malformed):
        town.client(tpm_authorities=(pem,))
