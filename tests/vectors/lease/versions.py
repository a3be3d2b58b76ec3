"""Write the vectors of newer versions of a model: ``python tests/vectors/lease/versions.py``.

Spelled from docs/spec/lease.md (section 3 and 11) and docs/spec/release.md, without the messages' own code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
NEW, OLD, OLDEST = (digit * 64 for digit in "abc")
B32 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
MODEL: dict[str, Any] = {"digest": NEW, "metered": True, "name": "digits", "replaces": [OLD, OLDEST]}
KEY: dict[str, Any] = {"ciphertext": "AAAA", "enc": "AAAA", "key_version": 3, "model": NEW}
LEASE: dict[str, Any] = {
    "balances": {"loan": 1},
    "block_version": 3,
    "consumers": None,
    "epoch": 2,
    "instance": "ab" * 32,
    "limits": {"loan": 12},
    "models": [NEW, OLD],
    "policy_digest": "cd" * 32,
    "req_digest": B32,
    "seq": 7,
    "ttl_s": 60,
    "v": 1,
}


def spell(value: Any) -> str:
    """Return canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object without a member."""
    return {key: item for key, item in value.items() if key != name}


def many(count: int) -> list[str]:
    """Return so many digests."""
    return [f"{number:064x}" for number in range(count)]


def lists(good: list[str], *, cap: int) -> dict[str, Any]:
    """Return lists of digests that are wrong in one way each."""
    return {
        "null": None,
        "a digest and no list": good[0],
        "an object": {"0": good[0]},
        "a number in it": [1],
        "null in it": [None],
        "a list in it": [[good[0]]],
        "one digest short": [*good, "d" * 63],
        "one digest long": [*good, "d" * 65],
        "one in capitals": [*good, "D" * 64],
        "one with its algorithm": [*good, "sha256:" + "d" * 64],
        "one with a line end": [*good, "d" * 64 + "\n"],
        "one empty": [*good, ""],
        "too many": many(cap + 1),
    }


def models() -> list[dict[str, str]]:
    """Return terms of one model."""
    good = {
        "two versions before": MODEL,
        "one version before": {**MODEL, "replaces": [OLD]},
        "31 versions before": {**MODEL, "replaces": many(31)},
        "none": without(MODEL, "replaces"),
        "with tickets": {**MODEL, "ticketed": True},
    }
    bad = {f"replaces: {name}": {**MODEL, "replaces": value} for name, value in lists([OLD, OLDEST], cap=31).items()}
    bad |= {
        "replaces: a version twice": {**MODEL, "replaces": [OLD, OLDEST, OLD]},
        "replaces: empty": {**MODEL, "replaces": []},
        "replaces: itself": {**MODEL, "replaces": [OLD, NEW]},
        "replaces: itself alone": {**MODEL, "replaces": [NEW]},
        "replaced_by": {**without(MODEL, "replaces"), "replaced_by": OLD},
        "no digest": without(MODEL, "digest"),
    }
    return told("model-terms", good, bad)


def keys() -> list[dict[str, str]]:
    """Return released keys: one names one version, and none before it."""
    good = {"of the newest version": KEY, "first of its version": {**KEY, "key_version": 1}}
    bad = {f"no {name}": without(KEY, name) for name in KEY}
    bad |= {
        "with the versions before": {**KEY, "replaces": [OLD]},
        "with none before": {**KEY, "replaces": []},
        "for two versions": {**KEY, "model": [NEW, OLD]},
        "for a model by its name": {**KEY, "model": "digits"},
        "for null": {**KEY, "model": None},
        "version 0": {**KEY, "key_version": 0},
        "version as text": {**KEY, "key_version": "3"},
        "version as fraction": {**KEY, "key_version": 1.5},
        "a key in the open": {**KEY, "dek": "AAAA"},
        "padded": {**KEY, "enc": "AA=="},
        "a long ciphertext": {**KEY, "ciphertext": "A" * 344},
    }
    return told("released-key", good, bad)


def leases() -> list[dict[str, str]]:
    """Return leases while instances change over."""
    good = {
        "newest and the one before": LEASE,
        "the newest alone": {**LEASE, "models": [NEW]},
        "the one before alone": {**LEASE, "models": [OLD]},
        "64 digests": {**LEASE, "models": many(64)},
    }
    bad = {f"models: {name}": {**LEASE, "models": value} for name, value in lists([NEW, OLD], cap=64).items()}
    bad["with the versions before"] = {**LEASE, "replaces": [OLD]}
    return told("lease", good, bad)


def told(kind: str, good: dict[str, Any], bad: dict[str, Any]) -> list[dict[str, str]]:
    """Return cases with what to expect."""
    found = [{"name": name, "format": kind, "text": spell(value), "expect": "valid"} for name, value in good.items()]
    return found + [
        {"name": name, "format": kind, "text": spell(value), "expect": "Malformed"} for name, value in bad.items()
    ]


def main() -> None:
    """Write them."""
    cases = [*models(), *keys(), *leases()]
    (ROOT / "versions.json").write_text(json.dumps({"format": 1, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
