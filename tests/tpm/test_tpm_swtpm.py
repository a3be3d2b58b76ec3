"""Against a real TPM 2.0 (swtpm): enrolment, quotes, sealing, and what must not work."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.attest.binding import ReleaseBinding, fold
from cloister.attest.chain import parse_certificates
from cloister.attest.rats import Nonce
from cloister.attest.schemes.tpm import TpmScheme, tpm_policy
from cloister.attest.tpm.akcert import create_authority, issue_ak_certificate
from cloister.attest.tpm.algorithms import Alg, CurveId
from cloister.attest.tpm.credential import make_credential
from cloister.attest.tpm.ek import TpmModel, device_of, verify_ek
from cloister.attest.tpm.enrolment import EnrolRequest, begin_enrolment, finish_enrolment
from cloister.attest.tpm.eventlog import EventLog
from cloister.attest.tpm.evidence import TpmEvidence
from cloister.attest.tpm.policy import endorsement_policy, extend, pcr_policy, software_pcr_value
from cloister.attest.tpm.quote import verify_attestation_key, verify_pcrs, verify_signature
from cloister.attest.tpm.structures import Attribute, EccKey, Public, Quote, parse_signature
from cloister.attest.verifier import Verifier
from cloister.enclave.attesters.tpm import BOOT_PCRS, TpmAttester, measure_software
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.tpm.codec import Code, Handle, Session
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import AkKind, EkKind, activate, attestation_key, available_eks, endorsement_key
from cloister.tpm.nv import nv_read
from cloister.tpm.sealing import SealedSecret, seal_to_pcrs, unseal
from cloister.tpm.transport import SocketTransport, open_transport
from mutations import mutated
from swtpm import start_swtpm
from tpm_log import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from swtpm import Swtpm

pytestmark = pytest.mark.tpm
NOW = datetime.now(UTC) + timedelta(hours=1)  # certificates are made after this line
NONCE = hashlib.sha256(b"nonce").digest()
MANIFEST = b"{}"
SOFTWARE = hashlib.sha256(MANIFEST).digest()


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with start_swtpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def transport(swtpm: Swtpm) -> Iterator[SocketTransport]:
    with SocketTransport(swtpm.socket) as opened:
        yield opened


@pytest.fixture
def tpm(transport: SocketTransport) -> Iterator[Tpm]:
    opened = Tpm(transport)
    opened.startup()
    yield opened
    assert loaded(transport) == 0, "something was left in the TPM"


def loaded(transport: SocketTransport) -> int:
    """Count loaded objects and sessions (TPM2_GetCapability of TPM_CAP_HANDLES)."""
    count = 0
    for first in (0x80000000, 0x02000000, 0x03000000):
        answer = transport.transceive(struct.pack(">HIIIII", 0x8001, 22, 0x17A, 1, first, 16))
        assert answer[6:10] == bytes(4)
        count += int.from_bytes(answer[15:19], "big")
    return count


def sign(transport: SocketTransport, handle: int, digest: bytes) -> bytes:
    """Return what TPM2_Sign answers without a ticket: no command of ours, an attacker's."""
    body = struct.pack(">IIIHBHHH", handle, 9, 0x40000009, 0, 1, 0, 32, 0)[:-2]
    body += digest + struct.pack(">HHIH", 0x10, 0x8024, 0x40000007, 0)
    return transport.transceive(struct.pack(">HII", 0x8002, 10 + len(body), 0x15D) + body)


def ek_chain(swtpm: Swtpm, certificate: bytes) -> tuple[bytes, ...]:
    return (certificate, *(item.der for pem in swtpm.ek_intermediates for item in parse_certificates(pem)))


def test_the_tpm_has_certificates_for_an_rsa_and_an_ecc_key(tpm: Tpm) -> None:
    assert available_eks(tpm) == (EkKind.RSA_2048, EkKind.ECC_P384)


@pytest.mark.parametrize("kind", [EkKind.RSA_2048, EkKind.ECC_P384])
def test_endorsement_keys_made_again_are_those_the_maker_certified(tpm: Tpm, swtpm: Swtpm, kind: EkKind) -> None:
    roots = [root for pem in swtpm.ek_roots for root in parse_certificates(pem)]
    with endorsement_key(tpm, kind) as ek:
        chain = [parse_certificates(item)[0] for item in ek_chain(swtpm, ek.certificate)]
        verified = verify_ek(ek.public, chain, roots, NOW)
        assert verified.device == device_of(ek.public)
        assert verified.model.model == "swtpm"
        persistent = {EkKind.RSA_2048: 0x81010001, EkKind.ECC_P384: 0x81010016}[kind]
        assert tpm.read_public(persistent) == ek.public


@pytest.mark.parametrize("ak", AkKind)
@pytest.mark.parametrize("kind", EkKind)
def test_credentials_made_without_a_tpm_are_activated_by_one(tpm: Tpm, kind: EkKind, ak: AkKind) -> None:
    with endorsement_key(tpm, kind) as ek, attestation_key(tpm, ak) as (handle, public):
        for size in (1, 32):
            secret = os.urandom(size)
            credential = make_credential(ek.public, public.name, secret, rng=os.urandom)
            assert activate(tpm, handle, ek, credential) == secret


@pytest.mark.parametrize("kind", EkKind)
def test_a_credential_for_another_key_is_not_activated(tpm: Tpm, kind: EkKind) -> None:
    with endorsement_key(tpm, kind) as ek, attestation_key(tpm) as (handle, public):
        credential = make_credential(ek.public, public.name, bytes(32), rng=os.urandom)
        flipped = credential.id_object[:-1] + bytes((credential.id_object[-1] ^ 1,))
        other_name = public.name[:-1] + bytes((public.name[-1] ^ 1,))
        for bad in (
            make_credential(ek.public, other_name, bytes(32), rng=os.urandom),
            replace(credential, id_object=flipped),
            replace(credential, id_object=b""),
            replace(credential, encrypted_secret=b""),
        ):
            with pytest.raises(Rejected) as refused:
                activate(tpm, handle, ek, bad)
            assert refused.value.code == "tpm_refused"


def test_a_credential_for_another_tpm_is_not_activated(tpm: Tpm, tmp_path: Path) -> None:
    with start_swtpm(tmp_path, name="other") as other, SocketTransport(other.socket) as transport:
        elsewhere = Tpm(transport)
        for kind in EkKind:
            with (
                endorsement_key(elsewhere, kind) as theirs,
                endorsement_key(tpm, kind) as ours,
                attestation_key(tpm) as (handle, public),
            ):
                assert theirs.public != ours.public
                credential = make_credential(theirs.public, public.name, bytes(32), rng=os.urandom)
                with pytest.raises(Rejected) as refused:
                    activate(tpm, handle, ours, credential)
                assert refused.value.code == "tpm_refused"


@pytest.mark.parametrize("ak", AkKind)
@pytest.mark.parametrize("kind", [EkKind.RSA_2048, EkKind.ECC_P384])
def test_enrolment_then_evidence_then_a_verdict(
    tpm: Tpm, transport: SocketTransport, swtpm: Swtpm, kind: EkKind, ak: AkKind
) -> None:
    key, authority = create_authority("Enrolment", NOW)
    with endorsement_key(tpm, kind) as ek, attestation_key(tpm, ak) as (handle, public):
        request = EnrolRequest(
            ek_public=ek.public.dump(), ak_public=public.dump(), ek_certificates=ek_chain(swtpm, ek.certificate)
        )
        challenge, pending = begin_enrolment(request, swtpm.ek_roots, NOW, os.urandom)
        secret = activate(tpm, handle, ek, challenge.credential)
    certificate = finish_enrolment(pending, secret, key, authority, NOW)
    measure_software(transport, SOFTWARE)
    attester = TpmAttester(transport, [certificate, authority], software=SOFTWARE, ak=ak)
    binding = ReleaseBinding(
        nonce=Nonce(NONCE), custodian=bytes(32), instance_pub=bytes(32), kem_pub=bytes(32), software=MANIFEST
    )
    evidence = attester.collect(fold(binding.report_data(), field_bytes=attester.report_data_bytes))
    boot = {index: (value.hex(),) for index, value in tpm.pcr_read(range(8)).items()}
    verifier = Verifier([TpmScheme([authority])])
    policy = tpm_policy([pending.device], [SOFTWARE.hex()], boot)
    result = verifier.verify(evidence, binding, policy, NOW)
    assert result.claims["pcr.23"] == software_pcr_value(SOFTWARE).hex()
    assert result.claims["model"] == "swtpm"
    with pytest.raises(Rejected) as refused:
        verifier.verify(evidence, replace(binding, nonce=Nonce(bytes(32))), policy, NOW)
    assert refused.value.code == "report_data_mismatch"
    with pytest.raises(Rejected) as refused:
        Verifier([TpmScheme([create_authority("Enrolment", NOW)[1]])]).verify(evidence, binding, policy, NOW)
    assert refused.value.code == "untrusted_root"
    tpm.pcr_extend(4, NONCE)  # another boot loader
    later = attester.collect(fold(binding.report_data(), field_bytes=32))
    with pytest.raises(Rejected) as refused:
        verifier.verify(later, binding, policy, NOW)
    assert [reason.subject for reason in refused.value.reasons] == ["pcr.4"]


@pytest.mark.parametrize("ak", AkKind)
def test_quotes_hold_and_every_flip_is_refused(tpm: Tpm, ak: AkKind) -> None:
    with attestation_key(tpm, ak) as (handle, public):
        attest, raw = tpm.quote(handle, extra=NONCE, pcrs=BOOT_PCRS)
    verify_attestation_key(public)
    signature = parse_signature(raw)
    assert signature.dump() == raw
    quote = verify_signature(attest, signature, public)
    assert (quote.extra_data, quote.dump()) == (NONCE, attest)
    pcrs = tpm.pcr_read(BOOT_PCRS)
    verify_pcrs(quote, signature.hash_alg, pcrs)
    for at in range(len(attest)):
        with pytest.raises(Rejected) as refused:
            verify_signature(attest[:at] + bytes((attest[at] ^ 1,)) + attest[at + 1 :], signature, public)
        assert refused.value.code == "signature_invalid"
    for index in pcrs:
        with pytest.raises(Rejected):
            verify_pcrs(quote, signature.hash_alg, pcrs | {index: hashlib.sha256(pcrs[index]).digest()})


def test_the_tpm_names_keys_as_we_do(tpm: Tpm) -> None:
    with attestation_key(tpm) as (handle, public):
        assert tpm.read_public(handle) == public
        attest, raw = tpm.quote(handle, extra=NONCE, pcrs=(0,))
        # Part 1 section 16: the qualified name of a primary key is over its hierarchy's handle and its name.
        qualified = hashlib.sha256(Handle.ENDORSEMENT.to_bytes(4, "big") + public.name).digest()
        assert verify_signature(attest, parse_signature(raw), public).qualified_signer == b"\x00\x0b" + qualified


def test_a_restricted_key_does_not_sign_what_the_tpm_did_not_write(tpm: Tpm, transport: SocketTransport) -> None:
    """A quote made in software, offered to the attestation key for signing: the reason for ``restricted``."""
    with attestation_key(tpm) as (handle, _):
        attest, _ = tpm.quote(handle, extra=NONCE, pcrs=(0,))
        answer = sign(transport, handle, hashlib.sha256(attest).digest())
    assert answer[6:10] == bytes.fromhex("000003e0")  # TPM_RC_TICKET, parameter 3


def test_a_key_that_is_not_restricted_signs_a_forged_quote_and_is_refused(tpm: Tpm, transport: SocketTransport) -> None:
    template = Public(
        name_alg=Alg.SHA256,
        attributes=Attribute.FIXED_TPM
        | Attribute.FIXED_PARENT
        | Attribute.SENSITIVE_DATA_ORIGIN
        | Attribute.USER_WITH_AUTH
        | Attribute.SIGN,
        auth_policy=b"",
        symmetric=None,
        scheme=(Alg.ECDSA, Alg.SHA256),
        key=EccKey(curve=CurveId.P256, x=b"", y=b""),
    )
    with attestation_key(tpm) as (handle, _):
        attest, _ = tpm.quote(handle, extra=NONCE, pcrs=(0,))
    forged = attest.replace(NONCE, hashlib.sha256(b"another nonce").digest())
    with tpm.create_primary(Handle.ENDORSEMENT, template) as (handle, public):
        answer = sign(transport, handle, hashlib.sha256(forged).digest())
        size = int.from_bytes(answer[10:14], "big")
        signature = parse_signature(answer[14 : 14 + size])
    assert verify_signature(forged, signature, public).extra_data != NONCE  # the signature itself is fine
    with pytest.raises(Rejected) as refused:
        verify_attestation_key(public)
    assert refused.value.code == "ak_attributes_invalid"


def test_policies_computed_without_a_tpm_are_the_tpms(tpm: Tpm) -> None:
    for pcrs in ((0,), (7, 23), tuple(range(24))):
        with tpm.policy_session() as session:
            tpm.policy_pcr(session, pcrs)
            assert tpm.policy_digest(session) == pcr_policy(tpm.pcr_read(pcrs))
    for alg in (Alg.SHA256, Alg.SHA384):
        with tpm.policy_session(alg) as session:
            tpm.policy_secret(session, Handle.ENDORSEMENT)
            assert tpm.policy_digest(session) == endorsement_policy(alg)


def test_pcr_values_computed_without_a_tpm_are_the_tpms(tpm: Tpm, transport: SocketTransport) -> None:
    before = tpm.pcr_read((9,))[9]
    tpm.pcr_extend(9, NONCE)
    assert tpm.pcr_read((9,))[9] == extend(before, NONCE)
    for digest in (SOFTWARE, NONCE, SOFTWARE):  # measuring again starts from zero
        measure_software(transport, digest)
        assert tpm.pcr_read((23,))[23] == software_pcr_value(digest)


def test_boot_pcrs_cannot_be_reset(tpm: Tpm) -> None:
    for pcr in (0, 4, 7, 11, 17):
        with pytest.raises(Rejected) as refused:
            tpm.pcr_reset(pcr)
        assert refused.value.code == "tpm_refused"


def test_a_secret_opens_while_the_pcrs_are_the_same(tpm: Tpm, transport: SocketTransport) -> None:
    measure_software(transport, SOFTWARE)
    secret = os.urandom(32)
    sealed = seal_to_pcrs(tpm, secret, tpm.pcr_read((0, 7, 23)))
    assert SealedSecret.parse(sealed.dump()) == sealed
    assert secret not in sealed.dump()
    assert unseal(tpm, sealed) == secret
    assert len(unseal(tpm, seal_to_pcrs(tpm, bytes(128), tpm.pcr_read((23,))))) == 128


def test_a_secret_does_not_open_after_an_extend_and_opens_after_the_right_measurement(
    tpm: Tpm, transport: SocketTransport
) -> None:
    measure_software(transport, SOFTWARE)
    sealed = seal_to_pcrs(tpm, b"secret", tpm.pcr_read((7, 23)))
    tpm.pcr_extend(23, NONCE)
    with pytest.raises(Rejected) as refused:
        unseal(tpm, sealed)
    assert refused.value.code == "pcr_mismatch"
    measure_software(transport, SOFTWARE)
    assert unseal(tpm, sealed) == b"secret"


def test_a_secret_is_sealed_to_a_boot_that_has_not_happened(tpm: Tpm, transport: SocketTransport) -> None:
    """A build machine predicts PCR 23 of the next release; the secret opens there and not before."""
    measure_software(transport, SOFTWARE)
    predicted = tpm.pcr_read((0, 7)) | {23: software_pcr_value(NONCE)}
    sealed = seal_to_pcrs(tpm, b"for the next release", predicted)
    with pytest.raises(Rejected):
        unseal(tpm, sealed)
    measure_software(transport, NONCE)
    assert unseal(tpm, sealed) == b"for the next release"


def test_the_tpm_itself_refuses_a_secret_under_a_wrong_policy(tpm: Tpm, transport: SocketTransport) -> None:
    """Our own comparison only explains: with it out of the way the TPM says no."""
    measure_software(transport, SOFTWARE)
    sealed = seal_to_pcrs(tpm, b"secret", tpm.pcr_read((23,)))
    tpm.pcr_extend(23, NONCE)
    lying = replace(sealed, policy=pcr_policy(tpm.pcr_read((23,))))
    with pytest.raises(Rejected) as refused:
        unseal(tpm, lying)
    assert refused.value.code == "tpm_refused"
    assert "policy" in refused.value.message
    other = replace(sealed, pcrs=(22,), policy=pcr_policy(tpm.pcr_read((22,))))
    with pytest.raises(Rejected, match="tpm_refused"):
        unseal(tpm, other)


def test_a_secret_has_no_password_to_guess(tpm: Tpm) -> None:
    sealed = seal_to_pcrs(tpm, b"secret", tpm.pcr_read((23,)))
    from cloister.tpm.sealing import _STORAGE_ROOT  # noqa: PLC0415

    with (
        tpm.create_primary(Handle.OWNER, _STORAGE_ROOT) as (parent, _),
        tpm.load(parent, private=sealed.private, public=sealed.public) as item,
        pytest.raises(Rejected, match="tpm_refused"),
    ):
        tpm.call(Code.UNSEAL, handles=(item,), sessions=(Session(Handle.PW),))


def test_altered_secrets_and_those_of_another_tpm_do_not_open(tpm: Tpm, tmp_path: Path) -> None:
    sealed = seal_to_pcrs(tpm, b"secret", tpm.pcr_read((22,)))
    for name in ("private", "public"):
        value = getattr(sealed, name)
        flipped = value[:-1] + bytes((value[-1] ^ 1,))
        with pytest.raises(Rejected) as refused:
            unseal(tpm, replace(sealed, **{name: flipped}))
        assert refused.value.code == "tpm_refused"
    with start_swtpm(tmp_path, name="other") as other, SocketTransport(other.socket) as elsewhere:
        with pytest.raises(Rejected) as refused:
            unseal(Tpm(elsewhere), sealed)
        assert refused.value.code == "tpm_refused"


def test_secrets_of_a_wrong_size_or_bound_to_nothing_are_our_own_mistake(tpm: Tpm) -> None:
    for secret, pcrs in ((b"", {0: bytes(32)}), (bytes(129), {0: bytes(32)}), (b"x", {})):
        with pytest.raises(UsageError):
            seal_to_pcrs(tpm, secret, pcrs)


def test_only_malformed_comes_out_of_ten_thousand_damaged_sealed_secrets(tpm: Tpm) -> None:
    good = seal_to_pcrs(tpm, b"secret", tpm.pcr_read((7, 23))).dump()
    for data in mutated(good):
        try:
            assert SealedSecret.parse(data).dump() == data
        except Malformed:
            continue


def test_keys_and_secrets_outlive_a_restart(tmp_path: Path) -> None:
    with start_swtpm(tmp_path) as first, SocketTransport(first.socket) as transport:
        tpm = Tpm(transport)
        measure_software(transport, SOFTWARE)
        sealed = seal_to_pcrs(tpm, b"secret", tpm.pcr_read((23,)))
        with attestation_key(tpm) as (_, before), endorsement_key(tpm) as ek:
            device = device_of(ek.public)
    with start_swtpm(tmp_path, again=True) as second, SocketTransport(second.socket) as transport:
        tpm = Tpm(transport)
        with attestation_key(tpm) as (_, after), endorsement_key(tpm) as ek:
            assert after == before
            assert device_of(ek.public) == device
        with pytest.raises(Rejected):
            unseal(tpm, sealed)  # nothing was measured after the restart
        measure_software(transport, SOFTWARE)
        assert unseal(tpm, sealed) == b"secret"


def test_slots_are_free_after_failures(tpm: Tpm) -> None:
    for _ in range(5):
        with (
            pytest.raises(Rejected),
            attestation_key(tpm) as (handle, _),
            endorsement_key(tpm) as ek,
        ):
            activate(tpm, handle, ek, make_credential(ek.public, ek.public.name, b"x", rng=os.urandom))
        with pytest.raises(Rejected), tpm.policy_session() as session:
            tpm.policy_pcr(session + 1, (0,))


def test_a_tpm_without_a_free_slot_is_unavailable_for_now(tpm: Tpm) -> None:
    with (
        attestation_key(tpm),
        attestation_key(tpm),
        attestation_key(tpm),
        pytest.raises(Unavailable),
        attestation_key(tpm),
    ):
        pass


def test_random_bytes_and_missing_nv_indices(tpm: Tpm) -> None:
    assert len({tpm.get_random(16) for _ in range(4)}) == 4
    with pytest.raises(Rejected, match="nv_read_public"):
        nv_read(tpm, 0x01C0FFFF)


def test_a_bank_that_is_off_is_missed(tpm: Tpm) -> None:
    with pytest.raises(Rejected) as refused:
        tpm.pcr_read((0,), bank=Alg.SHA512)
    assert refused.value.code == "pcr_missing"
    assert set(tpm.pcr_read((0,), bank=Alg.SHA1)) == {0}


def test_an_attester_wants_a_certificate_and_full_report_data(transport: SocketTransport) -> None:
    with pytest.raises(UsageError, match="certificate"):
        TpmAttester(transport, [])
    with pytest.raises(UsageError, match="31 bytes"):
        TpmAttester(transport, [b"x"]).collect(bytes(31))


class Restless:
    """A machine that extends PCR 16 right before it is quoted, so many times."""

    def __init__(self, transport: SocketTransport, times: int) -> None:
        """Sit in front of a real TPM."""
        self._transport, self._times = transport, times

    def transceive(self, command: bytes) -> bytes:
        if int.from_bytes(command[6:10], "big") == Code.QUOTE and self._times:
            self._times -= 1
            Tpm(self._transport).pcr_extend(16, NONCE)
        return self._transport.transceive(command)

    def close(self) -> None:
        self._transport.close()


def test_a_pcr_that_changes_between_reading_and_quoting_is_read_again(transport: SocketTransport) -> None:
    evidence = TpmAttester(Restless(transport, 2), [b"certificate"], pcrs=(16,)).collect(NONCE)
    parts = TpmEvidence.parse(evidence.payload)
    verify_pcrs(Quote.parse(parts.attest), Alg.SHA256, parts.pcrs)
    with pytest.raises(Unavailable, match="faster"):
        TpmAttester(Restless(transport, 3), [b"certificate"], pcrs=(16,)).collect(NONCE)


def test_a_measured_boot_is_explained_by_its_event_log(tmp_path: Path) -> None:
    """The firmware of this test extends what it logs; a system that extends more is still told apart."""
    key, authority = create_authority("Enrolment", NOW)
    with start_swtpm(tmp_path) as swtpm, SocketTransport(swtpm.socket) as transport:
        tpm = Tpm(transport)
        for event in EventLog.parse(LOG).events:
            tpm.pcr_extend(event.pcr, event.digests[Alg.SHA256])
        with attestation_key(tpm) as (_, public), endorsement_key(tpm) as ek:
            certificate = issue_ak_certificate(
                public, device_of(ek.public), TpmModel(), ca_key=key, ca_cert=authority, now=NOW
            )
        attester = TpmAttester(transport, [certificate], event_log=LOG)
        scheme = TpmScheme([authority])
        first = scheme.verify(attester.collect(NONCE), {}, NOW)
        assert first.claims["secure_boot"] is True
        assert [check.got for check in first.checks if check.subject == "event log"] == ["0, 4, 7"]
        tpm.pcr_extend(4, NONCE)
        later = scheme.verify(attester.collect(NONCE), {}, NOW)
        assert [check.got for check in later.checks if check.subject == "event log"] == ["0, 7"]
        assert later.claims["pcr.4"] != first.claims["pcr.4"]


def test_transports_open_by_name(swtpm: Swtpm) -> None:
    with open_transport(f"unix:{swtpm.socket}") as opened:
        Tpm(opened).get_random(8)
