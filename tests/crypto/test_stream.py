"""FLOE: known answers of four other implementations, and every way to cut, swap and splice."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from cloister.crypto.stream import HEADER_BYTES, OVERHEAD_BYTES, Decryptor, Encryptor, Header, Layout, expand
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from mutations import mutated

KEY = bytes(range(32))
AAD = b"a model"
SEGMENT = 64
PLAIN = SEGMENT - OVERHEAD_BYTES
KATS = Path(os.environ.get("CLOISTER_VECTORS", Path(__file__).parents[3] / "shared" / "vectors")) / "floe"
KAT_NAMES = sorted(path.name.removesuffix("_ct.txt") for path in KATS.glob("*_ct.txt"))


def encrypt(
    text: bytes, *, key: bytes = KEY, aad: bytes = AAD, segment_bytes: int = SEGMENT
) -> tuple[bytes, list[bytes]]:
    encryptor = Encryptor(key, aad=aad, segment_bytes=segment_bytes)
    layout = Layout(size=len(text), segment_bytes=segment_bytes)
    parts = []
    for index in range(layout.count):
        offset, size = layout.plain(index)
        parts.append(encryptor.segment(index, text[offset : offset + size], final=layout.is_final(index)))
    return encryptor.header, parts


def decrypt(
    header: bytes, parts: list[bytes], *, key: bytes = KEY, aad: bytes = AAD, segment_bytes: int = SEGMENT
) -> bytes:
    decryptor = Decryptor(key, aad=aad, header=header, segment_bytes=segment_bytes)
    last = len(parts) - 1
    return b"".join(decryptor.segment(index, part, final=index == last) for index, part in enumerate(parts))


def refused(header: bytes, parts: list[bytes]) -> None:
    with pytest.raises(Rejected) as caught:
        decrypt(header, parts)
    assert caught.value.code == "decryption_failed"


# The parameters stand in the reference repository's tests: key of 32 zeros, additional data "This is AAD".
@pytest.mark.skipif(not KAT_NAMES, reason="known-answer files of FLOE not found: set CLOISTER_VECTORS")
@pytest.mark.parametrize("name", KAT_NAMES or ["absent"])
def test_opens_what_other_implementations_encrypted(name: str) -> None:
    data = bytes.fromhex((KATS / f"{name}_ct.txt").read_text())
    want = bytes.fromhex((KATS / f"{name}_pt.txt").read_text())
    segment_bytes = 4096 if name.endswith("_4K") else 64 if name.endswith("_64") else 40
    decryptor = Decryptor(
        bytes(32),
        aad=b"This is AAD",
        header=data[:HEADER_BYTES],
        segment_bytes=segment_bytes,
        rotation_bits=2 if "rotation" in name else 20,
    )
    body = data[HEADER_BYTES:]
    parts = [body[at : at + segment_bytes] for at in range(0, len(body), segment_bytes)]
    got = [decryptor.segment(index, part, final=index == len(parts) - 1) for index, part in enumerate(parts)]
    assert b"".join(got) == want


@given(size=st.integers(0, 5 * PLAIN), segment_bytes=st.integers(OVERHEAD_BYTES + 1, 200))
def test_every_size_and_segment_length_comes_back(size: int, segment_bytes: int) -> None:
    text = bytes(index % 251 for index in range(size))
    header, parts = encrypt(text, segment_bytes=segment_bytes)
    layout = Layout(size=size, segment_bytes=segment_bytes)
    assert len(header) == HEADER_BYTES
    assert sum(map(len, parts)) == layout.body_bytes
    assert [len(part) for part in parts] == [layout.body(index)[1] for index in range(layout.count)]
    assert decrypt(header, parts, segment_bytes=segment_bytes) == text


def test_layout_gives_the_last_segment_at_least_one_byte() -> None:
    assert Layout(size=0, segment_bytes=SEGMENT).count == 1
    assert Layout(size=PLAIN, segment_bytes=SEGMENT).count == 1
    assert Layout(size=PLAIN + 1, segment_bytes=SEGMENT).count == 2
    assert Layout(size=PLAIN + 1, segment_bytes=SEGMENT).plain(1) == (PLAIN, 1)


@pytest.mark.parametrize(
    ("size", "segment_bytes"),
    [(-1, SEGMENT), (2**63, SEGMENT), (2**40 * PLAIN + 1, SEGMENT), (0, OVERHEAD_BYTES), (0, 2**32)],
)
def test_layout_refuses_what_floe_cannot_carry(size: int, segment_bytes: int) -> None:
    with pytest.raises(UsageError):
        Layout(size=size, segment_bytes=segment_bytes)


def test_segments_open_in_any_order() -> None:
    text = os.urandom(PLAIN * 3 + 5)
    header, parts = encrypt(text)
    decryptor = Decryptor(KEY, aad=AAD, header=header, segment_bytes=SEGMENT)
    for index in (3, 0, 2, 1):
        assert decryptor.segment(index, parts[index], final=index == 3) == text[index * PLAIN : (index + 1) * PLAIN]


def test_keys_rotate_with_the_position() -> None:
    text = os.urandom(PLAIN)
    encryptor = Encryptor(KEY, aad=AAD, segment_bytes=SEGMENT)
    decryptor = Decryptor(KEY, aad=AAD, header=encryptor.header, segment_bytes=SEGMENT)
    places = (0, 2**20 - 1, 2**20, 2**40 - 1)
    parts = [encryptor.segment(place, text, final=False) for place in places]
    for place, part in zip(places, parts, strict=True):
        assert decryptor.segment(place, part, final=False) == text
    with pytest.raises(UsageError):
        encryptor.segment(2**40, text, final=False)


def test_two_threads_share_one_encryptor() -> None:
    text = os.urandom(SEGMENT * 64 - OVERHEAD_BYTES)
    encryptor = Encryptor(KEY, aad=AAD, segment_bytes=SEGMENT * 64)
    decryptor = Decryptor(KEY, aad=AAD, header=encryptor.header, segment_bytes=SEGMENT * 64)
    wrong: list[int] = []

    def work(start: int) -> None:
        for index in range(start, start + 200):
            place = index % 3 << 20  # a border of keys each time
            if decryptor.segment(place, encryptor.segment(place, text, final=False), final=False) != text:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- attacks


def test_t21_cut_at_every_byte() -> None:
    header, parts = encrypt(os.urandom(PLAIN * 3 + 7))
    body = b"".join(parts)
    for end in range(len(body)):
        cut = [body[at : min(at + SEGMENT, end)] for at in range(0, end, SEGMENT)] or [b""]
        refused(header, cut)


def test_t21_appended_bytes() -> None:
    header, parts = encrypt(os.urandom(PLAIN * 2 + 7))
    for extra in (b"\x00", b"\xff" * 4, parts[-1], parts[0]):
        refused(header, [*parts, extra])
        refused(header, [*parts[:-1], parts[-1] + extra])


def test_t21_every_pair_swapped_and_every_segment_repeated() -> None:
    header, parts = encrypt(os.urandom(PLAIN * 5))
    for one, other in itertools.combinations(range(len(parts)), 2):
        swapped = list(parts)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        refused(header, swapped)
    for index in range(len(parts)):
        refused(header, [*parts[: index + 1], *parts[index:]])
        refused(header, [*parts[:index], *parts[index + 1 :]])


def test_t21_segments_of_another_message_under_the_same_key() -> None:
    text = os.urandom(PLAIN * 3)
    header, parts = encrypt(text)
    _, others = encrypt(text)
    for index in range(len(parts)):
        refused(header, [*parts[:index], others[index], *parts[index + 1 :]])
    refused(header, parts + others)


def test_t21_last_segment_does_not_pass_for_an_inner_one_nor_the_reverse() -> None:
    header, parts = encrypt(os.urandom(PLAIN * 2))
    decryptor = Decryptor(KEY, aad=AAD, header=header, segment_bytes=SEGMENT)
    inner_as_last = len(parts[0]).to_bytes(4, "big") + parts[0][4:]
    last_as_inner = b"\xff" * 4 + parts[1][4:]
    for index, part, final in ((0, inner_as_last, True), (1, last_as_inner, False), (0, parts[0], True)):
        with pytest.raises(Rejected):
            decryptor.segment(index, part, final=final)


def test_t22_two_messages_share_neither_salt_nor_nonce() -> None:
    seen = set()
    for _ in range(50):
        header, parts = encrypt(bytes(PLAIN * 4))
        seen |= {header[10:42], *(part[4:16] for part in parts)}
    assert len(seen) == 50 * 5


def test_t22_a_generator_that_repeats_itself_is_noticed() -> None:
    encryptor = Encryptor(KEY, aad=AAD, segment_bytes=SEGMENT, random=bytes)
    encryptor.segment(0, bytes(PLAIN), final=False)
    with pytest.raises(Unavailable, match="repeats"):
        encryptor.segment(1, bytes(PLAIN), final=False)


@pytest.mark.parametrize("bit", range(0, 256, 17))
def test_t30_any_other_key_is_one_clear_error(bit: int) -> None:
    header, _ = encrypt(b"text")
    other = bytearray(KEY)
    other[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Rejected) as caught:
        Decryptor(bytes(other), aad=AAD, header=header, segment_bytes=SEGMENT)
    assert [str(reason) for reason in caught.value.reasons] == ["floe header: wrong_key"]


def test_t30_other_additional_data_is_refused_at_the_header() -> None:
    header, _ = encrypt(b"text")
    with pytest.raises(Rejected) as caught:
        Decryptor(KEY, aad=AAD + b"!", header=header, segment_bytes=SEGMENT)
    assert caught.value.code == "wrong_key"


def _times(one: int, other: int) -> int:
    """Multiply in GF(2**128) as GHASH does (NIST SP 800-38D section 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (0xE1 << 120 if other & 1 else 0)
    return product


def _inverse(value: int) -> int:
    result = 1 << 127
    for _ in range(127):
        value = _times(value, value)
        result = _times(result, value)
    return result


def _gcm_secrets(key: bytes, nonce: bytes) -> tuple[int, int]:
    """Return GHASH's key and the mask of the tag (NIST SP 800-38D section 7.1)."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - GHASH's key is defined by it
    return int.from_bytes(block.update(bytes(16)), "big"), int.from_bytes(block.update(nonce + b"\0\0\0\1"), "big")


def _segment_key(key: bytes, header: bytes) -> bytes:
    """Return the AES key of segment 0, written out from the specification."""
    message_key = expand(key, header[:42] + b"MESSAGE_KEY:" + AAD, 48)
    return bytes(expand(message_key, header[:42] + b"DEK:" + bytes(8) + AAD, 32))


def test_t30_a_segment_made_to_open_under_two_keys_opens_under_one() -> None:
    """AES-GCM alone does not commit: one ciphertext can open to two texts. The header ends that."""
    other_key = bytes(reversed(KEY))
    header = Encryptor(KEY, aad=AAD, segment_bytes=SEGMENT).header
    nonce, first, place = bytes(range(12)), os.urandom(16), bytes(8) + b"\x01"
    keys = [_segment_key(key, header) for key in (KEY, other_key)]
    (hash_1, mask_1), (hash_2, mask_2) = (_gcm_secrets(key, nonce) for key in keys)

    def powers(value: int) -> tuple[int, int, int, int]:
        square = _times(value, value)
        return value, square, _times(square, value), _times(square, square)

    diffs = [one ^ other for one, other in zip(powers(hash_1), powers(hash_2), strict=True)]
    authenticated = int.from_bytes(place.ljust(16, b"\0"), "big")
    lengths = len(place) * 8 << 64 | 32 * 8
    rest = mask_1 ^ mask_2 ^ _times(authenticated, diffs[3]) ^ _times(lengths, diffs[0])
    rest ^= _times(int.from_bytes(first, "big"), diffs[2])
    second = _times(rest, _inverse(diffs[1]))
    tag = _times(authenticated, powers(hash_1)[3]) ^ _times(int.from_bytes(first, "big"), powers(hash_1)[2])
    tag ^= _times(second, powers(hash_1)[1]) ^ _times(lengths, hash_1) ^ mask_1
    sealed = first + second.to_bytes(16, "big") + tag.to_bytes(16, "big")
    texts = {AESGCM(key).decrypt(nonce, sealed, place) for key in keys}
    assert len(texts) == 2, "the forgery does not even fool AES-GCM"

    segment = (len(sealed) + 16).to_bytes(4, "big") + nonce + sealed
    assert Decryptor(KEY, aad=AAD, header=header, segment_bytes=SEGMENT).segment(0, segment, final=True) in texts
    with pytest.raises(Rejected) as caught:
        Decryptor(other_key, aad=AAD, header=header, segment_bytes=SEGMENT)
    assert caught.value.code == "wrong_key"


# --- bytes and misuse


def test_header_survives_mutations() -> None:
    header, _ = encrypt(b"text")
    honest = Header.parse(header).dump()
    assert honest == header
    for damaged in mutated(header):
        try:
            assert Header.parse(damaged).dump() == damaged
        except Malformed:
            continue


def test_segment_survives_mutations() -> None:
    header, parts = encrypt(os.urandom(PLAIN * 2))
    decryptor = Decryptor(KEY, aad=AAD, header=header, segment_bytes=SEGMENT)
    for damaged in mutated(parts[1]):
        if damaged != parts[1]:
            with pytest.raises(Rejected) as caught:
                decryptor.segment(1, damaged, final=True)
            assert caught.value.code == "decryption_failed"


def test_header_of_another_segment_length_is_malformed() -> None:
    header, _ = encrypt(b"text")
    with pytest.raises(Malformed, match="want 128"):
        Decryptor(KEY, aad=AAD, header=header, segment_bytes=128)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="want 32"):
        Encryptor(bytes(size), aad=AAD, segment_bytes=SEGMENT)


def test_inner_segment_must_be_full_and_none_may_be_longer() -> None:
    encryptor = Encryptor(KEY, aad=AAD, segment_bytes=SEGMENT)
    for size, final in ((PLAIN - 1, False), (PLAIN + 1, False), (PLAIN + 1, True)):
        with pytest.raises(UsageError):
            encryptor.segment(0, bytes(size), final=final)
    with pytest.raises(UsageError):
        encryptor.segment(-1, bytes(PLAIN), final=False)


def test_wiped_keys_do_nothing_any_more() -> None:
    encryptor = Encryptor(KEY, aad=AAD, segment_bytes=SEGMENT)
    part = encryptor.segment(0, b"text", final=True)
    decryptor = Decryptor(KEY, aad=AAD, header=encryptor.header, segment_bytes=SEGMENT)
    message_key = decryptor._keys._message_key
    assert any(message_key)
    encryptor.wipe()
    decryptor.wipe()
    assert not any(message_key)
    with pytest.raises(UsageError):
        encryptor.segment(0, b"text", final=True)
    with pytest.raises(UsageError):
        decryptor.segment(0, part, final=True)
