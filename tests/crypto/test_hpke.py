"""HPKE: the RFC's vectors byte for byte, agreement with another implementation, and attacks."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hpke as library

from cloister.crypto.hpke import (
    DEFAULT_SUITE,
    MAX_EXPORT_BYTES,
    Aead,
    Kdf,
    Kem,
    KemPrivateKey,
    Suite,
    open_with,
    seal_to,
    setup_receiver,
    setup_sender,
    verify_public_key,
)
from cloister.errors import Malformed, Rejected, UsageError
from hpke_seam import sender_with
from mutations import mutated

VECTORS = Path(os.environ.get("CLOISTER_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))

SUITES = [Suite(kem=kem, kdf=Kdf.HKDF_SHA256, aead=aead) for kem in Kem for aead in Aead]
CLASSICAL = Suite(kem=Kem.X25519, kdf=Kdf.HKDF_SHA256, aead=Aead.AES_128_GCM)
LIBRARY_KEM = {Kem.X25519: library.KEM.X25519, Kem.MLKEM768_X25519: library.KEM.MLKEM768_X25519}
LIBRARY_AEAD = {
    Aead.AES_128_GCM: library.AEAD.AES_128_GCM,
    Aead.AES_256_GCM: library.AEAD.AES_256_GCM,
    Aead.CHACHA20_POLY1305: library.AEAD.CHACHA20_POLY1305,
}

# RFC 9180 appendix A.1.1 and A.2.1 (base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256): facts of the RFC.
RFC_9180 = {
    Aead.AES_128_GCM: {
        "skRm": "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        "skEm": "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
        "pkRm": "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
        "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        0: "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        1: "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84",
        256: "957f9800542b0b8891badb026d79cc54597cb2d225b54c00c5238c25d05c30e3fbeda97d2e0e1aba483a2df9f2",
        "exports": [
            "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
            "2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5",
            "e9e43065102c3836401bed8c3c3c75ae46be1639869391d62c61f1ec7af54931",
        ],
    },
    Aead.CHACHA20_POLY1305: {
        "skRm": "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        "skEm": "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600",
        "pkRm": "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a",
        "enc": "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        0: "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        1: "6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e85285337cc95ba5f59992dc98c",
        256: "7a4a13e9ef23978e2c520fd4d2e757514ae160cd0cd05e556ef692370ca53076214c0c40d4c728d6ed9e727a5b",
        "exports": [
            "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e",
            "8c1df14732580e5501b00f82b10a1647b40713191b7c1240ac80e2b68808ba69",
            "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53",
        ],
    },
}
RFC_INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
RFC_PLAINTEXT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
RFC_EXPORT_CONTEXTS = [b"", b"\x00", b"TestContext"]

# The points of small order on Curve25519 and its twist (RFC 7748 section 6.1 and its security notes).
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("aead", RFC_9180, ids=lambda aead: aead.name)
def test_rfc_9180_appendix_a_reproduces_from_both_ends(aead: Aead) -> None:
    vector = RFC_9180[aead]
    suite = Suite(kem=Kem.X25519, kdf=Kdf.HKDF_SHA256, aead=aead)
    private_key = KemPrivateKey.from_bytes(Kem.X25519, bytes.fromhex(vector["skRm"]))
    assert private_key.public_bytes().hex() == vector["pkRm"]
    enc, sender = sender_with(bytes.fromhex(vector["skEm"]))(suite, private_key.public_bytes(), RFC_INFO)
    assert enc.hex() == vector["enc"]
    receiver = setup_receiver(suite, private_key, enc, RFC_INFO)
    for number in range(257):
        aad = b"Count-%d" % number
        ciphertext = sender.seal(RFC_PLAINTEXT, aad)
        assert ciphertext.hex() == vector.get(number, ciphertext.hex())
        assert receiver.open(ciphertext, aad) == RFC_PLAINTEXT
    for context, want in zip(RFC_EXPORT_CONTEXTS, vector["exports"], strict=True):
        assert sender.export(context, 32).hex() == receiver.export(context, 32).hex() == want


def _rfc_blocks() -> list[dict[str, list[str]]]:
    path = VECTORS / "hpke" / "rfc9180.txt"
    if not path.is_file():
        pytest.skip(f"no vectors of others at {path}")
    blocks = []
    for text in re.split(r"(?m)^(?=mode = )", path.read_text())[1:]:
        block: dict[str, list[str]] = {}
        for line in text.splitlines():
            key, found, value = line.partition(" =")
            if found:
                block.setdefault(key, []).append(value.strip())
        blocks.append(block)
    return blocks


def test_every_rfc_9180_base_mode_vector_of_our_suites_reproduces() -> None:
    ours = {str(int(aead)) for aead in Aead}
    done = set()
    for block in _rfc_blocks():
        if block["mode"] != ["0"] or block["kem_id"] != ["32"] or block["kdf_id"] != ["1"]:
            continue
        if block["aead_id"][0] not in ours:
            continue
        suite = Suite(kem=Kem.X25519, kdf=Kdf.HKDF_SHA256, aead=Aead(int(block["aead_id"][0])))
        one = {key: bytes.fromhex(values[0]) for key, values in block.items() if key in {"info", "skRm", "pkRm", "enc"}}
        private_key = KemPrivateKey.from_bytes(Kem.X25519, one["skRm"])
        enc, sender = sender_with(bytes.fromhex(block["sender_seed"][0]))(suite, one["pkRm"], one["info"])
        assert (private_key.public_bytes(), enc) == (one["pkRm"], one["enc"])
        receiver = setup_receiver(suite, private_key, enc, one["info"])
        for aad, ct, pt in zip(block["aad"], block["ct"], block["pt"], strict=True):
            assert sender.seal(bytes.fromhex(pt), bytes.fromhex(aad)).hex() == ct
            assert receiver.open(bytes.fromhex(ct), bytes.fromhex(aad)).hex() == pt
        exports = zip(block["exporter_context"], block["L"], block["exported_value"], strict=True)
        for context, length, value in exports:
            assert receiver.export(bytes.fromhex(context), int(length)).hex() == value
        done.add(suite.aead)
    assert done == set(Aead)


def test_the_post_quantum_hybrid_vector_of_the_draft_reproduces() -> None:
    path = VECTORS / "hpke" / "hpke-pq.json"
    if not path.is_file():
        pytest.skip(f"no vectors of others at {path}")
    done = 0
    for vector in json.loads(path.read_text()):
        if vector["kem_id"] != Kem.MLKEM768_X25519 or vector["kdf_id"] != Kdf.HKDF_SHA256:
            continue
        suite = Suite(kem=Kem.MLKEM768_X25519, kdf=Kdf.HKDF_SHA256, aead=Aead(vector["aead_id"]))
        private_key = KemPrivateKey.from_bytes(suite.kem, bytes.fromhex(vector["skRm"]))
        enc = bytes.fromhex(vector["enc"])
        assert private_key.public_bytes().hex() == vector["pkRm"]
        assert private_key.decapsulate(enc).hex() == vector["shared_secret"]
        receiver = setup_receiver(suite, private_key, enc, bytes.fromhex(vector["info"]))
        for one in vector["encryptions"]:
            assert receiver.open(bytes.fromhex(one["ct"]), bytes.fromhex(one["aad"])).hex() == one["pt"]
        for one in vector["exports"]:
            exported = receiver.export(bytes.fromhex(one["exporter_context"]), one["L"])
            assert exported.hex() == one["exported_value"]
        done += 1
    assert done


def _library_pair(private_key: KemPrivateKey) -> tuple[object, object]:
    """Return our key as ``cryptography``'s hpke wants it."""
    if private_key._mlkem is None:
        return private_key._x25519, private_key._x25519.public_key()
    pair = library.MLKEM768X25519PrivateKey(private_key._mlkem, private_key._x25519)
    return pair, pair.public_key()


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_we_agree_with_another_implementation_both_ways(suite: Suite) -> None:
    theirs = library.Suite(LIBRARY_KEM[suite.kem], library.KDF.HKDF_SHA256, LIBRARY_AEAD[suite.aead])
    private_key = KemPrivateKey.generate(suite.kem)
    their_private, their_public = _library_pair(private_key)
    enc, ciphertext = seal_to(suite, private_key.public_bytes(), info=b"info", plaintext=b"to them")
    assert theirs.decrypt(enc + ciphertext, their_private, b"info") == b"to them"
    message = theirs.encrypt(b"to us", their_public, b"info")
    enc, ciphertext = message[: suite.kem.enc_bytes], message[suite.kem.enc_bytes :]
    assert open_with(suite, private_key, info=b"info", enc=enc, ciphertext=ciphertext) == b"to us"


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_sizes_are_those_of_the_registry(suite: Suite) -> None:
    private_key = KemPrivateKey.generate(suite.kem)
    enc, _ = setup_sender(suite, private_key.public_bytes(), b"")
    want = {Kem.X25519: (32, 32, 32), Kem.MLKEM768_X25519: (1216, 32, 1120)}[suite.kem]
    assert (suite.kem.public_key_bytes, suite.kem.private_key_bytes, suite.kem.enc_bytes) == want
    assert (len(private_key.public_bytes()), len(enc)) == (want[0], want[2])


def test_the_default_suite_is_post_quantum() -> None:
    assert DEFAULT_SUITE.kem is Kem.MLKEM768_X25519


def test_two_messages_to_one_key_share_nothing() -> None:
    private_key = KemPrivateKey.generate(Kem.MLKEM768_X25519)
    one = seal_to(DEFAULT_SUITE, private_key.public_bytes(), info=b"", plaintext=b"same")
    two = seal_to(DEFAULT_SUITE, private_key.public_bytes(), info=b"", plaintext=b"same")
    assert one[0][:1088] != two[0][:1088]
    assert one[0][1088:] != two[0][1088:]
    assert one[1] != two[1]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("kem", list(Kem))
def test_a_point_of_low_order_is_malformed_as_key_and_as_enc(kem: Kem, point: str) -> None:
    private_key = KemPrivateKey.generate(kem)
    suite = Suite(kem=kem, kdf=Kdf.HKDF_SHA256, aead=Aead.AES_256_GCM)
    bad_key = private_key.public_bytes()[:-32] + bytes.fromhex(point)
    with pytest.raises(Malformed, match="low order"):
        verify_public_key(kem, bad_key)
    enc, _ = setup_sender(suite, private_key.public_bytes(), b"")
    with pytest.raises(Malformed, match="low order"):
        setup_receiver(suite, private_key, enc[:-32] + bytes.fromhex(point), b"")


@pytest.mark.parametrize("kem", list(Kem))
def test_an_all_zero_public_key_is_malformed(kem: Kem) -> None:
    with pytest.raises(Malformed):
        verify_public_key(kem, bytes(kem.public_key_bytes))


def test_an_mlkem_key_outside_the_modulus_is_malformed() -> None:
    public_key = KemPrivateKey.generate(Kem.MLKEM768_X25519).public_bytes()
    with pytest.raises(Malformed, match="ml-kem"):
        verify_public_key(Kem.MLKEM768_X25519, b"\xff" * 384 + public_key[384:])


@pytest.mark.parametrize("kem", list(Kem))
def test_keys_and_encs_of_wrong_size_are_malformed(kem: Kem) -> None:
    private_key = KemPrivateKey.generate(kem)
    suite = Suite(kem=kem, kdf=Kdf.HKDF_SHA256, aead=Aead.AES_256_GCM)
    for change in (-1, 1):
        with pytest.raises(Malformed):
            KemPrivateKey.from_bytes(kem, bytes(kem.private_key_bytes + change))
        with pytest.raises(Malformed):
            setup_sender(suite, (private_key.public_bytes() + b"\x00")[: kem.public_key_bytes + change], b"")
        with pytest.raises(Malformed):
            setup_receiver(suite, private_key, bytes(kem.enc_bytes + change), b"")


@pytest.mark.parametrize("suite", [CLASSICAL, DEFAULT_SUITE], ids=str)
def test_every_byte_of_enc_info_aad_and_ciphertext_counts(suite: Suite) -> None:
    private_key = KemPrivateKey.generate(suite.kem)
    enc, ciphertext = seal_to(suite, private_key.public_bytes(), info=b"info", plaintext=b"weights", aad=b"aad")
    parts = {"info": b"info", "enc": enc, "ciphertext": ciphertext, "aad": b"aad"}
    assert open_with(suite, private_key, **parts) == b"weights"
    for name, part in parts.items():
        for at in range(len(part)):
            damaged = part[:at] + bytes((part[at] ^ 1,)) + part[at + 1 :]
            if name == "enc" and at == len(part) - 1:
                continue  # the next test is about the bit that X25519 ignores
            with pytest.raises(Rejected) as caught:
                open_with(suite, private_key, **{**parts, name: damaged})
            assert caught.value.code == "decryption_failed"
            assert str(caught.value) == "hpke: decryption_failed"


@pytest.mark.parametrize("suite", [CLASSICAL, DEFAULT_SUITE], ids=str)
def test_the_bit_of_a_point_that_x25519_ignores_is_bound_too(suite: Suite) -> None:
    # RFC 7748 section 5 masks the top bit of a point; RFC 9180 section 4.1 and X-Wing hash it as it came
    private_key = KemPrivateKey.generate(suite.kem)
    enc, ciphertext = seal_to(suite, private_key.public_bytes(), info=b"", plaintext=b"weights")
    damaged = enc[:-1] + bytes((enc[-1] ^ 0x80,))
    with pytest.raises(Rejected):
        open_with(suite, private_key, info=b"", enc=damaged, ciphertext=ciphertext)


def test_another_key_does_not_open() -> None:
    mine, other = KemPrivateKey.generate(DEFAULT_SUITE.kem), KemPrivateKey.generate(DEFAULT_SUITE.kem)
    enc, ciphertext = seal_to(DEFAULT_SUITE, mine.public_bytes(), info=b"", plaintext=b"weights")
    with pytest.raises(Rejected) as caught:
        open_with(DEFAULT_SUITE, other, info=b"", enc=enc, ciphertext=ciphertext)
    assert caught.value.code == "decryption_failed"


def test_messages_open_in_their_order_only_and_a_forged_one_costs_nothing() -> None:
    private_key = KemPrivateKey.generate(CLASSICAL.kem)
    enc, sender = setup_sender(CLASSICAL, private_key.public_bytes(), b"")
    first, second = sender.seal(b"first"), sender.seal(b"second")
    receiver = setup_receiver(CLASSICAL, private_key, enc, b"")
    for wrong in (second, b"", b"short", bytes(40)):
        with pytest.raises(Rejected):
            receiver.open(wrong)
    assert receiver.open(first) == b"first"
    with pytest.raises(Rejected):
        receiver.open(first)
    assert receiver.open(second) == b"second"


def test_the_nonce_never_wraps() -> None:
    private_key = KemPrivateKey.generate(CLASSICAL.kem)
    _, sender = setup_sender(CLASSICAL, private_key.public_bytes(), b"")
    sender._schedule._seq = 2**96 - 1
    with pytest.raises(UsageError, match="message limit"):
        sender.seal(b"one too many")


def test_exports_differ_by_context_and_are_bounded() -> None:
    private_key = KemPrivateKey.generate(CLASSICAL.kem)
    enc, sender = setup_sender(CLASSICAL, private_key.public_bytes(), b"")
    receiver = setup_receiver(CLASSICAL, private_key, enc, b"")
    assert sender.export(b"a", MAX_EXPORT_BYTES) == receiver.export(b"a", MAX_EXPORT_BYTES)
    assert sender.export(b"a", 32) != sender.export(b"b", 32)
    for length in (0, -1, MAX_EXPORT_BYTES + 1):
        with pytest.raises(UsageError):
            sender.export(b"a", length)


def test_a_key_of_another_kem_is_our_mistake_not_a_decryption() -> None:
    private_key = KemPrivateKey.generate(Kem.X25519)
    with pytest.raises(UsageError, match="X25519"):
        setup_receiver(DEFAULT_SUITE, private_key, bytes(Kem.MLKEM768_X25519.enc_bytes), b"")


@pytest.mark.parametrize("kem", list(Kem))
def test_a_private_key_does_not_print_itself(kem: Kem) -> None:
    seed = os.urandom(kem.private_key_bytes)
    private_key = KemPrivateKey.from_bytes(kem, seed)
    shown = repr(private_key) + str(private_key)
    assert kem.name in shown
    assert seed.hex() not in shown
    assert repr(seed) not in shown


def test_mutated_messages_raise_only_malformed_or_one_rejection() -> None:
    private_key = KemPrivateKey.generate(CLASSICAL.kem)
    enc, ciphertext = seal_to(CLASSICAL, private_key.public_bytes(), info=b"", plaintext=b"weights")
    honest = enc + ciphertext
    codes = set()
    for data in mutated(honest):
        if data == honest:
            continue
        try:
            open_with(CLASSICAL, private_key, info=b"", enc=data[:32], ciphertext=data[32:])
            pytest.fail("a damaged message opened")
        except Malformed:
            codes.add("malformed")
        except Rejected as exc:
            codes.add(exc.code)
    assert codes == {"malformed", "decryption_failed"}
