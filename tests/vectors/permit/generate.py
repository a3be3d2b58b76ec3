"""Write the vectors of docs/spec/permit.md and of the note in docs/spec/share.md.

``python tests/vectors/permit/generate.py``. Spelled from the pages, without the code that reads them; signatures are by
keys that everybody can know.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).parent
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name).digest()) for name in (b"K", b"another"))
PERMIT, CHANGE = (f"application/vnd.cloister.{name}+json" for name in ("permit", "vault-change"))


def b64u(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def public(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public half."""
    return key.public_key().public_bytes_raw()


GOOD: dict[str, Any] = {
    "approved_by": "admin:tok-bbbbbbbbbbbbbbbb",
    "by": "admin:tok-aaaaaaaaaaaaaaaa",
    "custodian": b64u(public(KEY)),
    "digest": "cd" * 32,
    "epoch": 1,
    "expires_at": "2026-11-21T13:00:00Z",
    "holders": ["alice", "bob", "carol"],
    "issued_at": "2026-11-21T12:00:00Z",
    "need": 2,
    "of": 3,
    "operation": "key_export",
    "proposal": "prop-0011223344556677",
    "v": 1,
    "vault": "ab" * 32,
}
NOTE: dict[str, Any] = {
    "after": "ef" * 32,
    "at": "2026-11-21T12:00:00Z",
    "before": "ab" * 32,
    "custodian": b64u(public(KEY)),
    "holders": ["alice", "carol"],
    "need": 2,
    "of": 3,
    "split": "0" * 32,
    "v": 1,
}
BAD: dict[str, tuple[Any, ...]] = {
    "approved_by": ("", "bob", "admin:", "viewer:tok-b", "admin:tok b", GOOD["by"], 7, None),
    "by": ("", "alice", "auditor:tok-a", GOOD["approved_by"], None),
    "custodian": ("", "AAAA", "AA" * 22, b64u(bytes(32)), None),
    "digest": ("", "cd" * 31, "CD" * 32, None),
    "epoch": (0, -1, 1.5, "1", True, None),
    "expires_at": ("", "2026-11-21T12:00:00Z", "2026-11-21T11:00:00Z", "2026-11-21 13:00:00Z", 7, None),
    "holders": (
        [], "alice", ["alice", "bob"], ["alice", "alice", "bob"], ["alice", "bob", "carol", "dave"],
        ["alice", "bob", "Carol"], ["alice", "bob", ""], ["alice", "bob", 7], None,
    ),
    "issued_at": ("", "2026-11-21T13:00:00Z", "2026-11-21T14:00:00Z", None),
    "need": (0, 1, 4, 256, "2", True, None),
    "of": (0, 1, 2, 4, 256, "3", None),
    "operation": ("", "key_recovery", "policy", None),
    "proposal": ("", "prop-", "prop-001122334455667", "prop-00112233445566778", "prop-001122334455667G", None),
    "v": (0, 2, "1", True, None),
    "vault": ("", "ab" * 31, "AB" * 32, None),
}  # fmt: skip
BAD_NOTE: dict[str, tuple[Any, ...]] = {
    "after": ("", NOTE["before"], "EF" * 32, None),
    "at": ("", "2026-11-21", None),
    "before": ("", NOTE["after"], "ab" * 31, None),
    "custodian": ("", "AAAA", b64u(bytes(32)), None),
    "holders": ("alice", ["Alice"], ["a b"], [7], None),
    "need": (0, 1, 4, 256, "2", None),
    "of": (0, 1, 256, "3", None),
    "split": ("", "0" * 31, "0" * 33, "G" * 32, None),
    "v": (0, 2, "1", None),
}


def spell(value: Any) -> str:
    """Return canonical JSON: all of it is ASCII here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def payloads(good: dict[str, Any], bad: dict[str, tuple[Any, ...]]) -> list[dict[str, str]]:
    """Return payloads and what a reader says to each."""
    text = spell(good)
    found = [("good", text, "valid")]
    for name, values in bad.items():
        found += [(f"{name} of {value!r}", spell({**good, name: value}), "Malformed") for value in values]
        found.append((f"without {name}", spell({key: good[key] for key in good if key != name}), "Malformed"))
    found += [
        ("a member more", spell({**good, "note": "x"}), "Malformed"),
        ("a member twice", text[:-1] + ',"v":1}', "Malformed"),
        ("with spaces", json.dumps(good, sort_keys=True), "Malformed"),
        ("with a line end", text + "\n", "Malformed"),
        ("cut", text[:-1], "Malformed"),
        ("empty", "", "Malformed"),
        ("an array", "[]", "Malformed"),
    ]
    return [{"name": name, "text": text, "expect": want} for name, text, want in found]


def statement(payload: str, *, key: Ed25519PrivateKey = KEY, label: str = PERMIT, shown: str | None = None) -> str:
    """Return a signed statement; ``shown`` puts another payload type on it than the one that is signed."""
    data = payload.encode()
    signature = key.sign(b"DSSEv1 %d %b %d %b" % (len(label), label.encode(), len(data), data))
    name = hashlib.sha256(public(key)).hexdigest()[:32]
    return spell(
        {
            "payload": b64u(data), "payloadType": shown or label,
            "signatures": [{"keyid": name, "sig": b64u(signature)}],
        }
    )  # fmt: skip


WANTED: dict[str, Any] = {
    "epoch": 1, "holders": GOOD["holders"], "need": 2, "now": "2026-11-21T12:30:00Z", "of": 3, "vault": GOOD["vault"],
}  # fmt: skip


def signed() -> list[dict[str, Any]]:
    """Return statements, what they are shown for, and what comes of it: ``valid`` or codes."""
    good = statement(spell(GOOD))
    altered = {**json.loads(good), "payload": b64u(spell({**GOOD, "need": 3}).encode())}
    wrong = {**WANTED, "epoch": 2, "vault": "00" * 32}
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("good", good, WANTED, "valid"),
        ("the last moment", good, {**WANTED, "now": "2026-11-21T12:59:59.999999Z"}, "valid"),
        ("the first moment", good, {**WANTED, "now": GOOD["issued_at"]}, "valid"),
        ("its end", good, {**WANTED, "now": GOOD["expires_at"]}, "permit_expired"),
        ("before it was issued", good, {**WANTED, "now": "2026-11-21T11:59:59Z"}, "permit_expired"),
        ("another vault file", good, {**WANTED, "vault": "00" * 32}, "permit_mismatch"),
        ("another epoch", good, {**WANTED, "epoch": 2}, "permit_mismatch"),
        ("fewer needed", good, {**WANTED, "need": 3}, "permit_mismatch"),
        ("more shares", good, {**WANTED, "of": 4, "holders": [*GOOD["holders"], "dave"]},
         "permit_mismatch permit_mismatch"),
        ("another holder", good, {**WANTED, "holders": ["alice", "bob", "mallory"]}, "permit_mismatch"),
        ("the same holders in another order", good, {**WANTED, "holders": ["bob", "alice", "carol"]},
         "permit_mismatch"),
        ("no holders", good, {**WANTED, "holders": []}, "permit_mismatch"),
        ("all of it wrong, and late", good, {**wrong, "now": "2026-12-01T00:00:00Z"},
         "permit_mismatch permit_mismatch permit_expired"),
        ("altered", spell(altered), WANTED, "signature_invalid"),
        ("by another key", statement(spell(GOOD), key=OTHER), WANTED, "unknown_key"),
        ("of another custodian's, signed by this one", statement(spell({**GOOD, "custodian": b64u(public(OTHER))})),
         WANTED, "permit_mismatch"),
        ("another kind of statement", statement(spell(GOOD), label=CHANGE), WANTED, "wrong_statement"),
        ("another kind, relabelled", statement(spell(GOOD), label=CHANGE, shown=PERMIT), WANTED, "signature_invalid"),
        ("signed, and for an operation that is not this", statement(spell({**GOOD, "operation": "policy"})), WANTED,
         "Malformed"),
        ("signed, of one person", statement(spell({**GOOD, "approved_by": GOOD["by"]})), WANTED, "Malformed"),
        ("cut", good[:-1], WANTED, "Malformed"),
        ("without signatures", spell({**json.loads(good), "signatures": []}), WANTED, "Malformed"),
        ("signed twice", spell({**json.loads(good), "signatures": json.loads(good)["signatures"] * 2}), WANTED,
         "Malformed"),
        ("empty", "", WANTED, "Malformed"),
    ]  # fmt: skip
    return [
        {"name": name, "statement": text, "wanted": copy.deepcopy(wanted), "expect": want}
        for name, text, wanted, want in cases
    ]


def main() -> None:
    """Write both files."""
    key = public(KEY).hex()
    permits = {"format": 1, "custodian": key, "payloads": payloads(GOOD, BAD), "statements": signed()}
    changes = {"format": 1, "payloads": payloads(NOTE, BAD_NOTE)}
    (ROOT / "permits.json").write_text(json.dumps(permits, indent=1) + "\n")
    (ROOT / "changes.json").write_text(json.dumps(changes, indent=1) + "\n")


if __name__ == "__main__":
    main()
