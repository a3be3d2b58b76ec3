"""Write the vectors of the public log: a few good ones, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/tlog/generate.py``. Keys are the seeds in the
file; nothing is random. What is signed here is signed by ``cryptography`` alone, not by the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LOG_SEED, WITNESS_SEED, OTHER_SEED = (bytes([number]) * 32 for number in (1, 2, 3))
WITNESS = "witness.example/w1"
SECONDS = 1_767_323_045
ENTRIES = [b"entry %d" % number for number in range(5)]


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


LEAVES = [leaf(entry) for entry in ENTRIES]
PAIR0, PAIR1 = node(LEAVES[0], LEAVES[1]), node(LEAVES[2], LEAVES[3])
FOUR = node(PAIR0, PAIR1)
ROOT3, ROOT5 = node(PAIR0, LEAVES[2]), node(FOUR, LEAVES[4])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


ORIGIN = "cloister/audit/" + hashlib.sha256(public(LOG_SEED)).hexdigest()[:32]


def key_hash(name: str, kind: int, seed: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public(seed)).digest()[:4]


def vkey(name: str, kind: int, seed: bytes) -> str:
    return f"{name}+{key_hash(name, kind, seed).hex()}+{b64(bytes([kind]) + public(seed))}"


def signed(text: str, seed: bytes = LOG_SEED, name: str = ORIGIN, body: str | None = None) -> str:
    """Return a signature line over ``text``, or over another ``body``."""
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign((text if body is None else body).encode())
    return f"\u2014 {name} {b64(key_hash(name, 1, seed) + signature)}\n"


def cosigned(text: str, seed: bytes = WITNESS_SEED, name: str = WITNESS, said: int | None = None) -> str:
    message = f"cosignature/v1\ntime {SECONDS}\n{text}".encode()
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(message)
    time = (SECONDS if said is None else said).to_bytes(8, "big")
    return f"\u2014 {name} {b64(key_hash(name, 4, seed) + time + signature)}\n"


def head(size: int, root: bytes, origin: str = ORIGIN) -> str:
    return f"{origin}\n{size}\n{b64(root)}\n"


TEXT = head(5, ROOT5)
NOTE = f"{TEXT}\n{signed(TEXT)}"
BOTH = f"{NOTE}{cosigned(TEXT)}"
NO_BREAK = "\u00a0"


def case(name: str, text: str, expect: str) -> dict[str, str]:
    return {"expect": expect, "name": name, "text": text}


def bare(text: str) -> str:
    """Return a note with this text, signed."""
    return f"{text}\n{signed(text)}"


def checkpoints() -> list[dict[str, str]]:
    line = signed(TEXT)
    word = line.split(" ")[2].rstrip("\n")
    stray = word.rstrip("=")[:-1] + chr(ord(word.rstrip("=")[-1]) + 1) + "=" * word.count("=")
    return [
        case("signed", NOTE, "valid"),
        case("signed and cosigned", BOTH, "valid"),
        case("of nothing", bare(head(0, hashlib.sha256(b"").digest())), "valid"),
        case("with a line that nobody vouches for", bare(TEXT + "more\n"), "valid"),
        case("with a stranger's signature beside", NOTE + signed(TEXT, OTHER_SEED, "other.example"), "valid"),
        case(
            "with a stranger's broken signature beside", NOTE + signed(TEXT, OTHER_SEED, "other.example", "x"), "valid"
        ),
        case("empty", "", "Malformed"),
        case("text alone", TEXT, "Malformed"),
        case("no blank line", TEXT + line, "Malformed"),
        case("no signature line", TEXT + "\n", "Malformed"),
        case("no line feed at the end", NOTE[:-1], "Malformed"),
        case("line feed too many", NOTE + "\n", "Malformed"),
        case("carriage returns", NOTE.replace("\n", "\r\n"), "Malformed"),
        case("tabulator", bare(TEXT.replace("\n5", "\n\t5")), "Malformed"),
        case("null", bare(head(5, ROOT5, "a\x00b")), "Malformed"),
        case("hyphen for the dash", f"{TEXT}\n-{line[1:]}", "Malformed"),
        case("no space behind the dash", f"{TEXT}\n\u2014{line[2:]}", "Malformed"),
        case("no name", f"{TEXT}\n\u2014  {word}\n", "Malformed"),
        case("name with a plus", NOTE.replace(f" {ORIGIN} ", " a+b "), "Malformed"),
        case("name with a no-break space", NOTE.replace(f" {ORIGIN} ", f" a{NO_BREAK}b "), "Malformed"),
        case("name of 201 characters", NOTE.replace(f" {ORIGIN} ", f" {'a' * 201} "), "Malformed"),
        case("signature in base64url", NOTE.replace(word, "-_" + word[2:]), "Malformed"),
        case("signature without padding", NOTE.replace(word, word.rstrip("=")), "Malformed"),
        case("signature with stray bits", NOTE.replace(word, stray), "Malformed"),
        case("signature of four bytes", NOTE.replace(word, b64(b"abcd")), "Malformed"),
        case("words behind the signature", NOTE.replace(word, word + " x"), "Malformed"),
        case("33 signatures", NOTE + signed(TEXT, OTHER_SEED, "o") * 32, "Malformed"),
        case("two lines only", bare(f"{ORIGIN}\n5\n"), "Malformed"),
        case("empty line within", bare(f"{ORIGIN}\n\n5\n{b64(ROOT5)}\n"), "Malformed"),
        case("empty extension", bare(TEXT + "\n"), "Malformed"),
        case("size with a leading zero", bare(TEXT.replace("\n5\n", "\n05\n")), "Malformed"),
        case("size with a sign", bare(TEXT.replace("\n5\n", "\n+5\n")), "Malformed"),
        case("size with a space", bare(TEXT.replace("\n5\n", "\n5 \n")), "Malformed"),
        case("size in other digits", bare(TEXT.replace("\n5\n", "\n\u0665\n")), "Malformed"),
        case("size of 2**53", bare(TEXT.replace("\n5\n", f"\n{2**53}\n")), "Malformed"),
        case("size below nothing", bare(TEXT.replace("\n5\n", "\n-5\n")), "Malformed"),
        case("root of 31 bytes", bare(head(5, ROOT5[:31])), "Malformed"),
        case("root of 33 bytes", bare(head(5, ROOT5 + b"x")), "Malformed"),
        case("root in hex", bare(f"{ORIGIN}\n5\n{ROOT5.hex()}\n"), "Malformed"),
        case("another size than was signed", NOTE.replace("\n5\n", "\n4\n"), "signature_invalid"),
        case("another root than was signed", NOTE.replace(b64(ROOT5), b64(FOUR)), "signature_invalid"),
        case("an extension put in", NOTE.replace("\n\n", "\nmore\n\n"), "signature_invalid"),
        case("signed by nobody we know", f"{TEXT}\n{signed(TEXT, OTHER_SEED, 'other.example')}", "unknown_key"),
        case("signed by another under this name", f"{TEXT}\n{signed(TEXT, OTHER_SEED)}", "unknown_key"),
        case("cosigned alone", f"{TEXT}\n{cosigned(TEXT)}", "unknown_key"),
        case("signed as a cosignature", f"{TEXT}\n{cosigned(TEXT, LOG_SEED, ORIGIN)}", "unknown_key"),
        case("good and broken by one key", NOTE + signed(TEXT, body="x"), "signature_invalid"),
        case("of another log", bare(head(5, ROOT5, "other.example/log")), "wrong_origin"),
        case("a witness's cosignature of other text", NOTE + cosigned(head(4, FOUR)), "signature_invalid"),
        case("a witness's cosignature with another time", NOTE + cosigned(TEXT, said=SECONDS + 1), "signature_invalid"),
        case("a witness's time beyond the year 9999", NOTE + cosigned(TEXT, said=2**62), "Malformed"),
        case("a witness's plain signature", NOTE + _relabelled(), "Malformed"),
    ]


def _relabelled() -> str:
    """Return a plain signature that says it is a cosignature: eight bytes too short."""
    signature = Ed25519PrivateKey.from_private_bytes(WITNESS_SEED).sign(TEXT.encode())
    return f"\u2014 {WITNESS} {b64(key_hash(WITNESS, 4, WITNESS_SEED) + signature)}\n"


def proofs() -> list[dict[str, str]]:
    lines = [b64(LEAVES[3]), b64(PAIR0), b64(LEAVES[4])]

    def proof(index: str = "2", path: list[str] = lines, note: str = NOTE, extra: str = "") -> str:
        return "\n".join(["c2sp.org/tlog-proof@v1", *([extra] if extra else []), f"index {index}", *path, "", note])

    return [
        case("of entry 2", proof(), "valid"),
        case("with extra data", proof(extra=f"extra {b64(ENTRIES[2])}"), "valid"),
        case("with empty extra data", proof(extra="extra "), "valid"),
        case("of entry 2 in a cosigned log", proof(note=BOTH), "valid"),
        case("another header", proof().replace("@v1", "@v2"), "Malformed"),
        case("no header", proof().partition("\n")[2], "Malformed"),
        case("no index", proof().replace("index 2\n", ""), "Malformed"),
        case("index with a leading zero", proof("02"), "Malformed"),
        case("index below nothing", proof("-2"), "Malformed"),
        case("index with words", proof("2 of 5"), "Malformed"),
        case("extra behind the index", proof().replace("index 2", "index 2\nextra AAAA"), "Malformed"),
        case("extra twice", proof(extra="extra AAAA\nextra AAAA"), "Malformed"),
        case("extra in base64url", proof(extra="extra _-__"), "Malformed"),
        case("hash of 31 bytes", proof(path=[b64(LEAVES[3][:31]), *lines[1:]]), "Malformed"),
        case("hash in hex", proof(path=[LEAVES[3].hex(), *lines[1:]]), "Malformed"),
        case("64 hashes", proof(path=lines[:1] * 64), "Malformed"),
        case("no blank line", proof().replace("\n\n", "\n", 1), "Malformed"),
        case("no checkpoint", proof(note=""), "Malformed"),
        case("carriage returns", proof().replace("\n", "\r\n"), "Malformed"),
        case("another index", proof("3"), "not_included"),
        case("index of the size", proof("5"), "not_included"),
        case("hashes swapped", proof(path=[lines[1], lines[0], lines[2]]), "not_included"),
        case("a hash too few", proof(path=lines[:2]), "not_included"),
        case("a hash too many", proof(path=[*lines, lines[2]]), "not_included"),
        case("of another size", proof(note=bare(head(4, FOUR))), "not_included"),
        case("of a log that nobody signed", proof(note=NOTE.replace("\n5\n", "\n4\n")), "signature_invalid"),
        case("of another log", proof(note=bare(head(5, ROOT5, "o"))), "wrong_origin"),
    ]


def advances() -> list[dict[str, str]]:
    """From three entries to five."""
    lines = [b64(LEAVES[2]), b64(LEAVES[3]), b64(PAIR0), b64(LEAVES[4])]

    def advance(old: str = "3", proof: list[str] = lines, note: str = NOTE) -> str:
        return "\n".join([f"old {old}", *proof, "", note])

    forged = head(5, node(FOUR, LEAVES[3]))
    return [
        case("from three to five", advance(), "valid"),
        case("nothing new", advance(proof=[], note=bare(head(3, ROOT3))), "valid"),
        case("no old size", advance().partition("\n")[2], "Malformed"),
        case("old size with a leading zero", advance("03"), "Malformed"),
        case("old size in words", advance("three"), "Malformed"),
        case("64 hashes", advance(proof=lines[:1] * 64), "Malformed"),
        case("hash of 31 bytes", advance(proof=[b64(LEAVES[2][:31]), *lines[1:]]), "Malformed"),
        case("no blank line", advance().replace("\n\n", "\n", 1), "Malformed"),
        case("no checkpoint", advance(note=""), "Malformed"),
        case("from another size", advance("2"), "wrong_proof"),
        case("from nothing", advance("0", []), "wrong_proof"),
        case("a hash too few", advance(proof=lines[1:]), "not_consistent"),
        case("a hash too many", advance(proof=[*lines, lines[0]]), "not_consistent"),
        case("hashes swapped", advance(proof=[lines[1], lines[0], *lines[2:]]), "not_consistent"),
        case("no proof", advance(proof=[]), "not_consistent"),
        case("another root", advance(note=bare(forged)), "not_consistent"),
        case("fewer entries", advance(proof=[], note=bare(head(2, PAIR0))), "log_shrunk"),
        case("three other entries", advance(proof=[], note=bare(head(3, FOUR))), "split_view"),
        case("of a log that nobody signed", advance(note=NOTE.replace("\n5\n", "\n6\n")), "signature_invalid"),
    ]


def keys() -> list[dict[str, str]]:
    good, witness = vkey(ORIGIN, 1, LOG_SEED), vkey(WITNESS, 4, WITNESS_SEED)
    name, number, material = witness.split("+", 2)
    return [
        case("of a log", good, "valid"),
        case("of a witness", witness, "valid"),
        case("published with golang.org/x/mod/sumdb/note",
             "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "valid"),
        case("empty", "", "Malformed"),
        case("name alone", name, "Malformed"),
        case("no name", f"+{number}+{material}", "Malformed"),
        case("name with a space", f"a b+{number}+{material}", "Malformed"),
        case("another name", f"x{name}+{number}+{material}", "Malformed"),
        case("another hash", f"{name}+00000000+{material}", "Malformed"),
        case("hash in capitals", f"{name}+{number.upper()}+{material}", "Malformed"),
        case("another kind", vkey(WITNESS, 2, WITNESS_SEED), "Malformed"),
        case("key of 31 bytes", f"{name}+{number}+{b64(base64.b64decode(material)[:-1])}", "Malformed"),
        case("key in base64url", f"{name}+{number}+{'-' + material[1:]}", "Malformed"),
        case("line feed behind", witness + "\n", "Malformed"),
        case("of a thousand characters", "a" * 1000 + f"+{number}+{material}", "Malformed"),
    ]  # fmt: skip


def tiles() -> list[dict[str, str]]:
    good = ["tile/0/000", "tile/0/000.p/1", "tile/63/000.p/255", "tile/1/x001/x234/067", "tile/entries/x001/000.p/9"]
    bad = [
        "", "tile", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/000", "tile/0/x001",
        "tile/0/001/002", "tile/0/x01/002", "tile/0/xx01/002", "tile/00/000", "tile/64/000", "tile/-1/000",
        "tile/data/000",
        "tile/Entries/000", "tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/01", "tile/0/000.p/256",
        "tile/0/000.p/999", "tile/0/000.p/-1", "tile/0/000/", "/tile/0/000", "tile//000", "tile/0/../0/000",
        "tile/0/000\n",
        "tile/8/0/000", "tile/0/\u0660\u0660\u0660", "tile/0/" + "x999/" * 20 + "999",
        "tile/0/x999/x999/x999/x999/x999/999",
    ]  # fmt: skip
    return [case(text, text, "valid") for text in good] + [case(repr(text), text, "Malformed") for text in bad]


def main() -> None:
    document = {
        "format": 1,
        "keys": {"log": vkey(ORIGIN, 1, LOG_SEED), "witness": vkey(WITNESS, 4, WITNESS_SEED)},
        "seeds": {"log": LOG_SEED.hex(), "witness": WITNESS_SEED.hex()},
        "seconds": SECONDS,
        "entries": [entry.decode() for entry in ENTRIES],
        "remembered": bare(head(3, ROOT3)),
        "note": NOTE,
        "cosigned": BOTH,
        "checkpoint": checkpoints(),
        "proof": proofs(),
        "advance": advances(),
        "key": keys(),
        "tile": tiles(),
    }
    path = Path(__file__).parent / "vectors.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
