"""Writes tests/vectors/floe and tests/vectors/sealed anew, byte for byte the same each time.

    python tests/sealed/make_vectors.py

The honest vectors come from this implementation, which is proven against others' known answers; the
bad ones are damaged by hand below, each with the reason why it must be refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import oms_kit
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sealed_kit import CREATED, DEK, PUBLISHER, noise

from cloister.crypto.sign import Label
from cloister.crypto.stream import Encryptor, Layout, expand
from cloister.sealed.begun import BegunFile
from cloister.sealed.envelope import Envelope, Recipient
from cloister.sealed.leaves import LeafHash
from cloister.sealed.manifest import Manifest, SealedFile
from cloister.sealed.paths import parse_path
from cloister.sealed.unfinished import Stamped, Unfinished
from cloister.wire import dump_b64u, dump_json, lp

VECTORS = Path(__file__).parents[1] / "vectors"
KEY, AAD, SEGMENT, PLAIN = bytes(range(32)), b"a model", 64, 32
Case = dict[str, Any]


class Repeatable:
    """Randomness for vectors only: SHAKE-256 of a counter."""

    def __init__(self) -> None:
        """Start at zero."""
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        """Return the next bytes."""
        self.drawn += 1
        return hashlib.shake_256(b"vector %d" % self.drawn).digest(size)


def dump(value: object) -> str:
    """Return the text of one vector file."""
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def floe_case(why: str, size: int, random: Repeatable, segment_bytes: int = SEGMENT) -> Case:
    """Return an honest message."""
    text = noise(size, seed=size)
    encryptor = Encryptor(KEY, aad=AAD, segment_bytes=segment_bytes, random=random)
    layout = Layout(size=size, segment_bytes=segment_bytes)
    parts = []
    for index in range(layout.count):
        at, length = layout.plain(index)
        parts.append(encryptor.segment(index, text[at : at + length], final=layout.is_final(index)).hex())
    return {
        "why": why,
        "expect": "ok",
        "key": KEY.hex(),
        "aad": AAD.hex(),
        "segment_bytes": segment_bytes,
        "header": encryptor.header.hex(),
        "segments": parts,
        "plaintext": text.hex(),
    }


def damaged(text: str, at: int, byte: int | None = None) -> str:
    """Return hex with one byte changed."""
    data = bytearray.fromhex(text)
    data[at] = data[at] ^ 1 if byte is None else byte
    return data.hex()


def floe() -> list[Case]:
    """Return the cases of FLOE."""
    random = Repeatable()
    good = floe_case("three segments and a bit", PLAIN * 3 + 5, random)
    twin = floe_case("the same text under the same key", PLAIN * 3 + 5, random)
    full = floe_case("a last segment that is full", PLAIN * 2, random)
    empty = floe_case("no text at all: one empty segment", 0, random)
    large = floe_case("segments of 4096 bytes", 5000, random, 4096)
    one = floe_case("one byte", 1, random)
    parts, header = good["segments"], good["header"]

    def bad(why: str, expect: str, **change: object) -> Case:
        return {**good, "why": why, "expect": expect, "plaintext": "", **change}

    failed, wrong = "decryption_failed", "wrong_key"
    headers = [
        bad("header: another cipher", "malformed", header=damaged(header, 0)),
        bad("header: another hash", "malformed", header=damaged(header, 1)),
        bad("header: another segment length than agreed", "malformed", header=damaged(header, 5)),
        bad("header: segments no longer than their overhead", "malformed", header=damaged(header, 5, 32)),
        bad("header: another length of iv", "malformed", header=damaged(header, 9)),
        bad("header: one byte short", "malformed", header=header[:-2]),
        bad("header: one byte long", "malformed", header=header + "00"),
        bad("header: empty", "malformed", header=""),
        bad("header: iv altered", wrong, header=damaged(header, 10)),
        bad("header: tag altered", wrong, header=damaged(header, 73)),
        bad("header of another message under the same key", failed, header=twin["header"]),
        bad("key: first bit", wrong, key=damaged(good["key"], 0)),
        bad("key: last bit", wrong, key=damaged(good["key"], 31)),
        bad("additional data altered", wrong, aad=damaged(good["aad"], 0)),
        bad("additional data missing", wrong, aad=""),
    ]
    bodies = [
        bad("cut at a border: the inner segment is no last one", failed, segments=parts[:3]),
        bad("cut at the first border", failed, segments=parts[:1]),
        bad("cut inside the last segment", failed, segments=[*parts[:3], parts[3][:-2]]),
        bad("cut inside the length of the last segment", failed, segments=[*parts[:3], parts[3][:6]]),
        bad("last segment empty", failed, segments=[*parts[:3], ""]),
        bad("first segment missing", failed, segments=parts[1:]),
        bad("two inner segments swapped", failed, segments=[parts[1], parts[0], *parts[2:]]),
        bad("inner and last swapped", failed, segments=[parts[0], parts[1], parts[3], parts[2]]),
        bad("segment repeated", failed, segments=[parts[0], *parts]),
        bad("last segment repeated", failed, segments=[*parts, parts[3]]),
        bad("two messages joined", failed, segments=parts + twin["segments"]),
        bad("segment of another message under the same key", failed, segments=[twin["segments"][0], *parts[1:]]),
        bad("byte appended to the last segment", failed, segments=[*parts[:3], parts[3] + "00"]),
        bad("length of the last segment altered", failed, segments=[*parts[:3], damaged(parts[3], 3)]),
        bad("inner segment marked as last", failed, segments=["00000040" + parts[0][8:], *parts[1:]]),
        bad("last segment marked as inner", failed, segments=[*parts[:3], "ffffffff" + parts[3][8:]]),
        bad("nonce altered", failed, segments=[damaged(parts[0], 4), *parts[1:]]),
        bad("text altered", failed, segments=[damaged(parts[0], 16), *parts[1:]]),
        bad("tag altered", failed, segments=[damaged(parts[0], 63), *parts[1:]]),
    ]
    return [good, twin, full, empty, large, one, *headers, *bodies]


def build_package() -> tuple[dict[str, bytes], Manifest]:
    """Put a package together by hand from docs/spec/sealed-model.md, without the code that seals."""
    random = Repeatable()
    plain = {"a.bin": noise(4064 * 2 + 10), "b.bin": noise(4064 * 2 + 10, seed=2), "empty": b""}
    parts: dict[str, bytes] = {}
    files: list[SealedFile] = []
    for path, data in plain.items():
        blob, key = random(16).hex(), random(32)
        aad = lp(b"cloister/sealed-model/v1/blob", blob.encode())
        encryptor = Encryptor(key, aad=aad, segment_bytes=4096, random=random)
        layout = Layout(size=len(data), segment_bytes=4096)
        segments = []
        for index in range(layout.count):
            at, length = layout.plain(index)
            segments.append(encryptor.segment(index, data[at : at + length], final=layout.is_final(index)))
        leaves = [hashlib.sha256(b"\0" + segment).digest() for segment in segments]
        root = leaves[0]
        if len(leaves) == 3:
            left = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
            root = hashlib.sha256(b"\1" + left + leaves[2]).digest()
        sizes = len(data).to_bytes(8, "big") + (4096).to_bytes(4, "big")
        label = b"cloister/sealed-model/v1/file-key"
        binding = lp(label, path.encode(), blob.encode(), sizes, encryptor.header, root)
        nonce = random(12)
        files.append(
            SealedFile(
                path=parse_path(path),
                size=len(data),
                blob=blob,
                header=encryptor.header,
                segment_bytes=4096,
                leaf_root=root,
                wrapped_key=nonce + AESGCM(bytes(expand(DEK, label, 32))).encrypt(nonce, key, binding),
            )
        )
        parts[f"blobs/{blob}"] = b"".join(segments)
        parts[f"blobs/{blob}.leaves"] = b"".join(leaves)
    commitment = bytes(expand(DEK, b"cloister/sealed-model/v1/dek-commitment", 32))
    manifest = Manifest(
        name="digits", created=CREATED, dek_commitment=commitment, card={"task": "digits"}, files=tuple(files)
    )
    return {**parts, **signed(manifest.dump())}, manifest


def signed(manifest_bytes: bytes) -> dict[str, bytes]:
    """Return the two signed parts."""
    signature = PUBLISHER.sign(Label.MANIFEST, manifest_bytes)
    text = dump_json({"keyid": PUBLISHER.key_id, "sig": dump_b64u(signature), "v": 1})
    return {"manifest.json": manifest_bytes, "manifest.sig": text}


def packages() -> Case:
    """Return one honest package and the ways to damage it.

    A case builds parts anew from pieces: hex, or ``[part, start, end]`` of the honest package.
    """
    parts, manifest = build_package()
    a, b, empty = (f"blobs/{entry.blob}" for entry in manifest.files)
    size = len(parts[a])
    first, second, third = [a, 0, 4096], [a, 4096, 8192], [a, 8192, size]
    leaf_1, leaf_2, leaf_3 = [[f"{a}.leaves", at, at + 32] for at in (0, 32, 64)]
    whole: list[object] = [a, 0, size]

    def case(why: str, expect: str, **build: object) -> Case:
        names = {"a": a, "a_leaves": f"{a}.leaves", "b": b, "b_leaves": f"{b}.leaves", "empty": empty}
        names |= {"manifest": "manifest.json", "signature": "manifest.sig"}
        return {"why": why, "expect": expect, "build": {names[name]: pieces for name, pieces in build.items()}}

    def theft(why: str, expect: str, changed: Manifest, **build: object) -> Case:
        new = signed(changed.dump())
        pieces = {"manifest": [new["manifest.json"].hex()], "signature": [new["manifest.sig"].hex()]}
        return case(f"signed by a thief: {why}", expect, **pieces, **build)

    entry, other, _ = manifest.files
    rest = manifest.files[1:]
    longer = replace(entry, size=entry.size + 1)
    shorter = replace(entry, size=4064 * 2)
    huge = replace(entry, size=1 << 40)
    exchanged = (replace(other, path=entry.path), replace(entry, path=other.path), manifest.files[2])
    stolen_key = replace(entry, wrapped_key=other.wrapped_key)
    cases = [
        case("untouched", "ok"),
        case("blob of zero bytes", "truncated", a=[]),
        case("blob cut one byte before its end", "truncated", a=[[a, 0, size - 1]]),
        case("blob cut at the first border", "truncated", a=[first]),
        case("blob cut at the second border, leaves too", "truncated", a=[first, second], a_leaves=[leaf_1, leaf_2]),
        case("blob cut in the middle of a segment", "truncated", a=[[a, 0, 5000]]),
        case("byte appended", "oversized", a=[whole, "00"]),
        case("segment appended", "oversized", a=[whole, first], a_leaves=[leaf_1, leaf_2, leaf_3, leaf_1]),
        case("two blobs joined", "oversized", a=[whole, [b, 0, size]]),
        case("first segments swapped", "digest_mismatch", a=[second, first, third]),
        case(
            "first segments swapped, leaves too",
            "digest_mismatch",
            a=[second, first, third],
            a_leaves=[leaf_2, leaf_1, leaf_3],
        ),
        case(
            "segment repeated over the next",
            "digest_mismatch",
            a=[first, first, third],
            a_leaves=[leaf_1, leaf_1, leaf_3],
        ),
        case("segment of another file", "digest_mismatch", a=[[b, 0, 4096], second, third]),
        case("blobs exchanged", "digest_mismatch", a=[[b, 0, size]], b=[whole]),
        case(
            "blobs exchanged with their leaves",
            "digest_mismatch",
            a=[[b, 0, size]],
            b=[whole],
            a_leaves=[[f"{b}.leaves", 0, 96]],
            b_leaves=[[f"{a}.leaves", 0, 96]],
        ),
        case(
            "one bit of a text", "digest_mismatch", a=[[a, 0, 100], damaged(parts[a][100:101].hex(), 0), [a, 101, size]]
        ),
        case("one bit of a length", "digest_mismatch", a=["fe", [a, 1, size]]),
        case("empty file's segment altered", "digest_mismatch", empty=[[empty, 0, 31], "00"]),
        case("leaves of zero bytes", "truncated", a_leaves=[]),
        case("leaf missing", "truncated", a_leaves=[leaf_1, leaf_2]),
        case("leaf too many", "oversized", a_leaves=[leaf_1, leaf_2, leaf_3, leaf_3]),
        case("leaf altered", "digest_mismatch", a_leaves=["00" * 32, leaf_2, leaf_3]),
        case("blob missing", "unavailable", a=None),
        case("leaves missing", "unavailable", a_leaves=None),
        case("signature missing", "malformed", signature=[]),
        case(
            "signature of another text",
            "signature_invalid",
            manifest=[["manifest.json", 0, 12], "58", ["manifest.json", 13, len(parts["manifest.json"])]],
        ),
        case(
            "signature by a stranger",
            "unknown_key",
            signature=[dump_json({"keyid": "00" * 16, "sig": dump_b64u(bytes(64)), "v": 1}).hex()],
        ),
        theft("commitment altered", "wrong_key", replace(manifest, dek_commitment=bytes(32))),
        theft("one byte more claimed", "truncated", replace(manifest, files=(longer, *rest))),
        theft(
            "a file cut at a border, all sizes and leaves fit",
            "digest_mismatch",
            replace(manifest, files=(shorter, *rest)),
            a=[first, second],
            a_leaves=[leaf_1, leaf_2],
        ),
        theft("a tebibyte claimed", "truncated", replace(manifest, files=(huge, *rest))),
        theft("paths exchanged", "wrong_key", replace(manifest, files=exchanged)),
        theft("file key of another file", "wrong_key", replace(manifest, files=(stolen_key, *rest))),
    ]
    return {
        "dek": DEK.hex(),
        "publisher": PUBLISHER.verify_key.raw.hex(),
        "plaintext_sha256": {
            "a.bin": hashlib.sha256(noise(4064 * 2 + 10)).hexdigest(),
            "b.bin": hashlib.sha256(noise(4064 * 2 + 10, seed=2)).hexdigest(),
            "empty": hashlib.sha256(b"").hexdigest(),
        },
        "parts": {name: data.hex() for name, data in parts.items()},
        "cases": cases,
    }


def manifests() -> list[Case]:
    """Return the cases of the manifest's parser."""
    _, manifest = build_package()
    good = json.loads(manifest.dump())
    good["files"] = good["files"][:1]

    def case(why: str, expect: str = "malformed", *, drop: str = "", **change: object) -> Case:
        value = {**good, **change}
        value.pop(drop, None)
        return {"why": why, "expect": expect, "text": dump_json(value).decode()}

    def entry(why: str, expect: str = "malformed", *, drop: str = "", **change: object) -> Case:
        value = {**good["files"][0], **change}
        value.pop(drop, None)
        return case(f"file: {why}", expect, files=[value])

    def two(why: str, first: str, second: str, **change: object) -> Case:
        one = {**good["files"][0], "path": first}
        other = {**good["files"][0], "path": second, "blob": "ab" * 16, **change}
        return case(f"files: {why}", files=[one, other])

    text = dump_json(good).decode()
    raw = [
        {"why": "zero bytes", "expect": "malformed", "text": ""},
        {"why": "not json", "expect": "malformed", "text": "manifest"},
        {"why": "a space more: not canonical", "expect": "malformed", "text": text.replace(":", ": ", 1)},
        {"why": "newline at the end", "expect": "malformed", "text": text + "\n"},
        {"why": "cut", "expect": "malformed", "text": text[:-1]},
        {"why": "member twice", "expect": "malformed", "text": text.replace('"v":1', '"v":1,"v":1')},
        {"why": "size 2**63", "expect": "malformed", "text": text.replace('"size":8138', '"size":9223372036854775808')},
        {"why": "size as a float", "expect": "malformed", "text": text.replace('"size":8138', '"size":8138.0')},
        {"why": "an array", "expect": "malformed", "text": f"[{text}]"},
    ]
    header = good["files"][0]["header"]
    maker = oms_kit.maker(oms_kit.key()).to_json()
    sig = {**good["files"][0], "path": "model.sig", "blob": "ab" * 16}
    both = [good["files"][0], sig]

    def claim(why: str, expect: str = "malformed", *, files: object = both, **change: object) -> Case:
        value = {"signature": "model.sig", "trusted": [maker], **change}
        return case(f"maker: {why}", expect, files=files, maker=value)

    def trusted(why: str, **change: object) -> Case:
        return claim(why, trusted=[{**maker, **change}])  # type: ignore[dict-item]

    return [
        case("untouched", "ok"),
        claim("a key", "ok"),
        claim("a root", "ok", trusted=[oms_kit.root_maker(oms_kit.ROOT).to_json()]),
        claim("nobody trusted", trusted=[]),
        claim("nine trusted", trusted=[oms_kit.maker(oms_kit.key(number)).to_json() for number in range(1, 10)]),
        claim("one trusted twice", trusted=[maker, maker]),
        claim("signature not among the files", signature="other.sig"),
        claim("signature that leads out", signature="../model.sig"),
        claim("signature alone", files=[sig]),
        claim("signature too large", files=[good["files"][0], {**sig, "size": (1 << 20) + 1}]),
        claim("unknown member", more=1),
        case("maker is null", maker=None),
        case("second key", "ok", second_key=dump_b64u(bytes(1952))),
        case("second key too short", second_key=dump_b64u(bytes(1951))),
        case("second key null", second_key=None),
        trusted("kind unknown", kind="both"),
        trusted("a key as a root", kind="root"),
        trusted("key cut", der=str(maker["der"])[:-4]),  # type: ignore[index,call-overload]
        trusted("key of another curve", der=dump_b64u(bytes.fromhex("302a300506032b6570032100") + bytes(32))),
        trusted("key with more behind it", der=str(maker["der"]) + "AAAA"),  # type: ignore[index,call-overload]
        trusted("unknown member", name="x"),
        case("empty card", "ok", card={}),
        entry("path in unicode", "ok", path="mod\u00e8les/\u5b57.bin"),
        *raw,
        *(case(f"{member} missing", drop=member) for member in sorted(good)),
        *(entry(f"{member} missing", drop=member) for member in sorted(good["files"][0])),
        case("unknown member", extra=1),
        entry("unknown member", extra=1),
        case("newer format", v=2),
        case("version 0", v=0),
        case("version true", v=True),
        case("another suite", suite="AES-256-CTR"),
        case("name with a capital", name="Digits"),
        case("name with a slash", name="a/b"),
        case("empty name", name=""),
        case("name of 65 characters", name="a" * 65),
        case("local time", created="2026-03-01T12:00:00+01:00"),
        case("commitment one byte short", dek_commitment="00" * 31),
        case("commitment in capitals", dek_commitment="AB" * 32),
        case("card no object", card=[]),
        case("no files", files=[]),
        case("files no array", files={}),
        case("file no object", files=["a.bin"]),
        entry("negative size", size=-1),
        entry("size over a tebibyte", size=(1 << 40) + 1),
        entry("size as text", size="8138"),
        entry("segments of 2048 bytes", segment_bytes=2048),
        entry("segments of 5000 bytes", segment_bytes=5000),
        entry("segments of 32 MiB", segment_bytes=1 << 25),
        entry("header of another segment length", segment_bytes=8192),
        entry("header of another cipher", header="AQ" + header[2:]),
        entry("header too short", header=header[:-4]),
        entry("blob id that leads elsewhere", blob="../../../../../../../../etc/pass"),
        entry("blob id in capitals", blob="AB" * 16),
        entry("leaf root one byte short", leaf_root="00" * 31),
        entry("leaves of blake3", "ok", leaf_hash="blake3"),
        entry("leaves of sha256, which is said by no member", leaf_hash="sha256"),
        entry("leaves of an unknown hash", leaf_hash="sha512"),
        entry("leaves of a hash in capitals", leaf_hash="BLAKE3"),
        entry("leaf hash null", leaf_hash=None),
        entry("leaf hash a number", leaf_hash=3),
        entry("wrapped key one byte short", wrapped_key=good["files"][0]["wrapped_key"][:-2]),
        two("not sorted", "b", "a"),
        two("the same path twice", "a", "a"),
        two("paths that differ in case", "A", "a"),
        two("paths that differ in width", "a", "\uff41"),
        two("a file below a file", "a", "a/b"),
        two("two share a blob", "a", "b", blob=good["files"][0]["blob"]),
    ]


def paths() -> list[Case]:
    """Return paths, good and bad."""
    good = [
        "a",
        "a/b",
        "model.safetensors",
        ".gitattributes",
        "a b",
        "\u00e9t\u00e9",
        "..a",
        "a..",
        "x" * 255,
        "/".join("a" * 16),
        "\U0001f600",
    ]
    bad = {
        "empty": "",
        "up": "../../etc/x",
        "up in the middle": "a/../b",
        "absolute": "/etc/passwd",
        "here": ".",
        "here in front": "./a",
        "up alone": "..",
        "empty part": "a//b",
        "folder": "a/",
        "backslash": "a\\b",
        "drive with backslash": "C:\\x",
        "nul": "a\0b",
        "newline": "a\nb",
        "delete": "a\x7f",
        "c1 control": "a\x85b",
        "decomposed": "e\u0301t\u00e9",
        "angstrom sign": "\u212b",
        "right-to-left override": "a\u202eb",
        "zero width space": "a\u200bb",
        "byte order mark": "\ufeffa",
        "line separator": "a\u2028b",
        "256 characters": "x" * 256,
        "300 characters": "x" * 300,
        "256 bytes in fewer characters": "\u00e9" * 128,
        "17 parts": "/".join("a" * 17),
    }
    return [{"path": path, "expect": "ok", "why": "fine"} for path in good] + [
        {"path": path, "expect": "malformed", "why": why} for why, path in bad.items()
    ]


def envelopes() -> list[Case]:
    """Return the cases of the envelope's parser."""
    recipient = Recipient(kid="vault", key_version=1, kek_id="kek-1", wrapped=bytes(60))
    envelope = Envelope(manifest_digest="ab" * 32, recipients=(recipient,))
    good = json.loads(envelope.dump())

    def case(why: str, expect: str = "malformed", *, drop: str = "", **change: object) -> Case:
        value = {**good, **change}
        value.pop(drop, None)
        return {"why": why, "expect": expect, "text": dump_json(value).decode()}

    def entry(why: str, *, drop: str = "", **change: object) -> Case:
        value = {**good["recipients"][0], **change}
        value.pop(drop, None)
        return case(f"recipient: {why}", recipients=[value])

    newer = {**good["recipients"][0], "key_version": 2}
    return [
        case("untouched", "ok"),
        case("two versions of a key", "ok", recipients=[good["recipients"][0], newer]),
        case("nobody", "ok", recipients=[]),
        *(case(f"{member} missing", drop=member) for member in sorted(good)),
        *(entry(f"{member} missing", drop=member) for member in sorted(good["recipients"][0])),
        case("unknown member", extra=1),
        case("newer format", v=2),
        case("digest one byte short", manifest="ab" * 31),
        case("the same recipient twice", recipients=good["recipients"] * 2),
        case("65 recipients", recipients=[{**newer, "key_version": n} for n in range(1, 66)]),
        entry("unknown member", extra=1),
        entry("key version 0", key_version=0),
        entry("key version too large", key_version=(1 << 32) + 1),
        entry("key version as text", key_version="1"),
        entry("name with a space", kid="the vault"),
        entry("empty name", kek_id=""),
        entry("wrapped key too long", wrapped="A" * 8192),
        entry("wrapped key with padding", wrapped="AAAA=="),
    ]


def unfinished() -> list[Case]:
    """Return the cases of the parser of what an interrupted sealing leaves."""
    random = Repeatable()
    begun = [
        BegunFile.fresh(parse_path(path), size, 4096, random, LeafHash.SHA256)
        for path, size in (("a.bin", 9000), ("b.bin", 0))
    ]
    files = tuple(Stamped.wrap(file, hashlib.sha256(b"stamp").digest(), DEK, random) for file in begun)
    good = json.loads(Unfinished(kid="vault:1", wrapped_dek=bytes(60), files=files).dump())

    def case(why: str, expect: str = "malformed", *, drop: str = "", **change: object) -> Case:
        value = {**good, **change}
        value.pop(drop, None)
        return {"why": why, "expect": expect, "text": dump_json(value).decode()}

    def entry(why: str, expect: str = "malformed", *, drop: str = "", **change: object) -> Case:
        value = {**good["files"][0], **change}
        value.pop(drop, None)
        return case(f"file: {why}", expect, files=[value])

    first, second = good["files"]
    return [
        case("untouched", "ok"),
        case("no file begun", "ok", files=[]),
        entry("no stamp is known", "ok", stamp="0" * 64),
        *(case(f"{member} missing", drop=member) for member in sorted(good)),
        *(entry(f"{member} missing", drop=member) for member in sorted(first)),
        case("unknown member", extra=1),
        case("newer format", v=2),
        case("model key in clear", dek="A" * 43),
        case("wrapped model key too long", wrapped_dek="A" * 8192),
        case("name with a space", kid="the vault"),
        case("empty name", kid=""),
        case("files out of order", files=[second, first]),
        case("one file twice", files=[first, first]),
        case("two files of one blob", files=[first, {**second, "blob": first["blob"]}]),
        case("1025 files", files=[{**first, "path": f"{n:04}"} for n in range(1025)]),
        entry("unknown member", extra=1),
        entry("a leaf root, which is not known yet", leaf_root="0" * 64),
        entry("leaves of blake3", "ok", leaf_hash="blake3"),
        entry("leaves of an unknown hash", leaf_hash="sha512"),
        entry("stamp one byte short", stamp="0" * 62),
        entry("stamp in capitals", stamp="A" * 64),
        entry("path that leads out", path="../a.bin"),
        entry("size negative", size=-1),
        entry("segments of another size than the header's", segment_bytes=8192),
        entry("wrapped key one byte short", wrapped_key="A" * 79),
        entry("blob that is none", blob="../" + "0" * 29),
    ]


FILES = {
    "floe/segments.json": floe,
    "sealed/packages.json": packages,
    "sealed/manifests.json": manifests,
    "sealed/paths.json": paths,
    "sealed/envelopes.json": envelopes,
    "sealed/unfinished.json": unfinished,
}


def main() -> None:
    """Write all files."""
    for name, make in FILES.items():
        path = VECTORS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump(make()))


if __name__ == "__main__":
    main()
