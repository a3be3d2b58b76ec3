"""Write the vectors of share files: good ones, and each wrong in one way.

A bad file's checksum is right where that is not the fault. Run by hand after a change of format:
``python tests/vectors/share/generate.py``. ``shamir.json`` is not written here: its parts were made by pyshamir 1.1.0,
a port of HashiCorp Vault's scheme, and are ours to read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
SEED = b"cloister/vectors/share"
VAULT_FILE = b'{"a vault file":1}'
KEY = hashlib.sha256(SEED + b"key").digest()


class Stream:
    """Bytes that look random and are the same each time."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        self.count += 1
        return hashlib.shake_256(SEED + bytes([self.count])).digest(size)


def dump(members: dict[str, Any]) -> str:
    """Return canonical JSON: all of it is ASCII here, and no number is large."""
    return json.dumps(members, sort_keys=True, separators=(",", ":"))


def spelled(members: dict[str, Any]) -> str:
    """Return the file of these members, with its checksum."""
    digest = hashlib.sha256(b"cloister/vault-share/v1" + dump(members).encode()).hexdigest()
    return dump({**members, "checksum": digest})


BAD = {
    "id": (0, 6, -1, 256, 1.5, "1", True, None),
    "need": (0, 1, 6, -1, 256, "3", True, None),
    "of": (0, 2, 256, "5", True, None),
    "part": ("", "AA", "AAAA", "!" * 43, "A" * 42, "A" * 44, 7, None),
    "split": ("", "AA", "A" * 21, "A" * 23, 7, None),
    "v": (0, 2, "1", True, None),
    "vault": ("", "AB" * 32, "ab" * 31, "ab" * 33, 7, None),
}
BAD_HOLDERS = ("", "Alice", "alice smith", "-alice", "al\u00efce", "a" * 129, 7, None)


def files(good: dict[str, Any]) -> list[dict[str, str]]:
    """Return share files and what a reader says to each."""
    text = spelled(good)
    found = [("good", text, "valid")]
    for name, values in BAD.items():
        found += [(f"{name} of {value!r}", spelled({**good, name: value}), "Malformed") for value in values]
        rest = {key: value for key, value in good.items() if key != name}
        found.append((f"without {name}", spelled(rest), "Malformed"))
    whole = json.loads(text)
    found += [
        ("without checksum", dump(good), "Malformed"),
        ("a member more", spelled({**good, "note": "x"}), "Malformed"),
        ("a checksum of zeros", dump({**whole, "checksum": "00" * 32}), "Malformed"),
        ("a checksum in capitals", dump({**whole, "checksum": whole["checksum"].upper()}), "Malformed"),
        ("another place under the old checksum", dump({**whole, "id": 2}), "Malformed"),
        ("a part with one bit more, under the old checksum", _flipped(text, whole["part"]), "Malformed"),
        ("with spaces", json.dumps(whole, sort_keys=True), "Malformed"),
        ("with a line end", text + "\n", "Malformed"),
        ("members in another order", json.dumps(dict(reversed(whole.items())), separators=(",", ":")), "Malformed"),
        ("a member twice", text[:-1] + ',"v":1}', "Malformed"),
        ("cut", text[:-1], "Malformed"),
        ("empty", "", "Malformed"),
        ("an array", "[]", "Malformed"),
        ("too long", spelled({**good, "part": "A" * 2000}), "Malformed"),
    ]
    found += _named({**good, "v": 2})
    return [{"name": name, "text": text, "expect": want} for name, text, want in found]


def _named(good: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return files of version 2, which say whose they are."""
    found = [
        ("version 2, with its holder", spelled({**good, "holder": "alice@example.org"}), "valid"),
        ("version 2 without a holder", spelled(good), "Malformed"),
        ("version 1 with a holder", spelled({**good, "holder": "alice", "v": 1}), "Malformed"),
        ("version 3 with a holder", spelled({**good, "holder": "alice", "v": 3}), "Malformed"),
        (
            "another holder under the old checksum",
            spelled({**good, "holder": "alice"}).replace("alice", "bob"),
            "Malformed",
        ),
    ]
    return found + [(f"holder of {name!r}", spelled({**good, "holder": name}), "Malformed") for name in BAD_HOLDERS]


def _flipped(text: str, part: str) -> str:
    return text.replace(part, ("A" if part[0] != "A" else "B") + part[1:])


def sets() -> list[dict[str, Any]]:
    """Return sets of shares of one vault file, and what combining them comes to."""
    stream = Stream()
    one = _shares(3, 5, stream)
    other = _shares(3, 5, stream)
    a, b, c, d, e = one
    strange = {**json.loads(c), "vault": "ab" * 32}
    strange.pop("checksum")
    forged = {**json.loads(c), "part": json.loads(d)["part"]}
    forged.pop("checksum")
    cases = [
        ("the first three", [a, b, c], "key"),
        ("the last three, backwards", [e, d, c], "key"),
        ("all five", one, "key"),
        ("two", [a, b], "UsageError"),
        ("none", [], "UsageError"),
        ("one twice", [a, b, b], "wrong_share"),
        ("three and one of them twice", [a, b, c, c], "wrong_share"),
        ("one of another split", [a, b, other[2]], "wrong_share"),
        ("one of another vault file", [a, b, spelled(strange)], "wrong_share"),
        ("one forged among three: another key", [a, b, spelled(forged)], "another key"),
        ("one forged among four", [a, b, spelled(forged), e], "wrong_share"),
        ("one forged and not needed", [a, b, e, spelled(forged)], "wrong_share"),
    ]
    return [{"name": name, "shares": shares, "expect": want} for name, shares, want in cases]


def _shares(need: int, of: int, rng: Stream) -> list[str]:
    from cloister.custodian.vaults.shares import Division, share_key  # noqa: PLC0415 - bad files need no code of ours

    made = share_key(KEY, Division(need=need, of=of), vault_file=VAULT_FILE, rng=rng)
    return [share.dump().decode() for share in made]


def main() -> None:
    """Write both files."""
    good = json.loads(_shares(3, 5, Stream())[0])
    good.pop("checksum")
    everything = {
        "format": 1,
        "key": KEY.hex(),
        "vault_file": VAULT_FILE.decode(),
        "files": files(good),
        "sets": sets(),
    }
    (ROOT / "shares.json").write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
