"""Write the vectors of docs/spec/key-status.md: ``python tests/vectors/key-status/generate.py``.

Spelled from the page, without the message's own code.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
FIRST, SECOND, THIRD = (f"kek:{digit * 32}" for digit in "abc")
BEHIND = {"dead_at": "2026-11-21T12:05:00Z", "instance": "ab" * 32, "key_epoch": 2, "loan": "loan-" + "a" * 16}
GOOD: dict[str, Any] = {
    "behind": [BEHIND],
    "behind_count": 1,
    "custodian": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    "issued_at": "2026-11-21T12:00:00Z",
    "key_epoch": 3,
    "keys": [
        {"kek_id": THIRD, "key_epoch": 3},
        {
            "destroyed_at": "2026-11-20T00:00:00Z",
            "kek_id": SECOND,
            "key_epoch": 2,
            "retired_at": "2026-11-19T00:00:00Z",
        },
        {"kek_id": FIRST, "key_epoch": 1, "retired_at": "2026-11-18T00:00:00Z"},
    ],
    "live": 2,
    "models": 4,
    "stuck": [{"cause": "wrong_key", "model": "cd" * 32}],
    "stuck_count": 1,
    "v": 1,
}
ALL_MOVED = {**GOOD, "behind": [], "behind_count": 0, "stuck": [], "stuck_count": 0}
FRESH = {**ALL_MOVED, "key_epoch": 1, "keys": [{"kek_id": FIRST, "key_epoch": 1}]}


def spell(value: Any) -> str:
    """Return canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def without(name: str) -> dict[str, Any]:
    """Return a status without a member."""
    return {key: value for key, value in GOOD.items() if key != name}


def inside(place: str, index: int, **changes: Any) -> dict[str, Any]:
    """Return a status with one entry changed; None takes a member away."""
    made = copy.deepcopy(GOOD)
    for name, value in changes.items():
        if value is None:
            del made[place][index][name]
        else:
            made[place][index][name] = value
    return made


def bad() -> dict[str, str]:
    """Return payloads that are wrong in one way each."""
    text = spell(GOOD)
    spelled = {
        "empty": "",
        "no object": "[]",
        "a space": text.replace(":", ": ", 1),
        "a line end": text + "\n",
        "cut": text[:-1],
        "twice": text + text,
        "double member": text[:-1] + ',"v":1}',
    }
    members = {f"no {name}": without(name) for name in GOOD}
    changed = {
        "unknown member": {**GOOD, "x": 1},
        "another version": {**GOOD, "v": 2},
        "a short key": {**GOOD, "custodian": "AAEC"},
        "a time of no zone": {**GOOD, "issued_at": "2026-11-21T12:00:00"},
        "epoch 0": {**FRESH, "key_epoch": 0},
        "a negative count": {**ALL_MOVED, "live": -1},
        "a count as text": {**GOOD, "live": "2"},
        "a count as fraction": {**GOOD, "models": 1.5},
        "no keys": {**ALL_MOVED, "keys": []},
        "1001 keys": {**ALL_MOVED, "keys": GOOD["keys"] * 334},
        "none in use": inside("keys", 0, retired_at="2026-11-20T00:00:00Z"),
        "two in use": inside("keys", 2, retired_at=None),
        "the key in use is of another epoch": {**GOOD, "key_epoch": 4},
        "a retired key is newer": inside("keys", 2, key_epoch=4),
        "an epoch twice": inside("keys", 2, key_epoch=2),
        "destroyed and not retired": inside("keys", 1, retired_at=None),
        "destroyed before it was retired": inside("keys", 1, destroyed_at="2026-11-18T00:00:00Z"),
        "a kek id of no digest": inside("keys", 0, kek_id="kek:1"),
        "a kek id in capitals": inside("keys", 0, kek_id="kek:" + "A" * 32),
        "a kek in the open": inside("keys", 0, wrapped="AAAA"),
        "more behind than live": {**GOOD, "live": 0},
        "fewer listed than counted": {**GOOD, "behind_count": 2},
        "more listed than counted": {**GOOD, "behind_count": 0},
        "behind and of the newest epoch": inside("behind", 0, key_epoch=3),
        "behind and of a later epoch": inside("behind", 0, key_epoch=9),
        "behind and dead": inside("behind", 0, dead_at="2026-11-21T12:00:00Z"),
        "an instance twice": {**GOOD, "behind": [BEHIND, BEHIND], "behind_count": 2},
        "an instance of no digest": inside("behind", 0, instance="ab"),
        "a loan of no name": inside("behind", 0, loan="../loan"),
        "behind without an end": inside("behind", 0, dead_at=None),
        "fewer stuck than counted": {**GOOD, "stuck_count": 2},
        "more stuck than counted": {**GOOD, "stuck_count": 0},
        "a stuck model twice": {**GOOD, "stuck": GOOD["stuck"] * 2, "stuck_count": 2},
        "stuck for no cause": inside("stuck", 0, cause=None),
        "stuck for a cause that is none": inside("stuck", 0, cause="bad_luck"),
        "stuck for a cause in capitals": inside("stuck", 0, cause="WRONG_KEY"),
        "a stuck model of no digest": inside("stuck", 0, model="cd"),
        "a stuck key in the open": inside("stuck", 0, wrapped="AAAA"),
        "unknown member behind": inside("behind", 0, token="x"),  # noqa: S106 - of a vector
    }
    return spelled | {name: spell(value) for name, value in (members | changed).items()}


def main() -> None:
    """Write them."""
    due = {**ALL_MOVED, "stuck": [{"cause": "due", "model": "cd" * 32}], "stuck_count": 1}
    good = {"good": GOOD, "all moved": ALL_MOVED, "never rotated": FRESH, "a model moves at the next sweep": due}
    cases = [{"name": name, "text": spell(value), "expect": "valid"} for name, value in good.items()]
    cases += [{"name": name, "text": text, "expect": "Malformed"} for name, text in bad().items()]
    (ROOT / "messages.json").write_text(json.dumps({"format": 1, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
