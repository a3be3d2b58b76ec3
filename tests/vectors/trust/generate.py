"""Write the vectors of the trust file's demands on the contract: a few good ones, and each wrong in one way.

Run by hand after a change of format: ``python tests/vectors/trust/generate.py``. Nothing is random.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloister.attest.software import SoftwareManifest
from cloister.crypto.sign import SigningKey
from cloister.testing.simulated import simulated_policy

CUSTODIAN, BORROWER, ROOT = (SigningKey(bytes([n]) * 32).verify_key.dump() for n in range(1, 4))
DIGEST = "ab" * 32
POLICY = simulated_policy(SoftwareManifest(code="11" * 32, python="3.11", packages={}, settings={}))
PLAIN: dict[str, Any] = {
    "custodian": {"ca_pem": None, "key": CUSTODIAN, "url": "https://custodian.example"},
    "models": {"pinned": {"digits": "cd" * 32}},
    "operator": {"one_of": ["Clinic"]},
    "policy": POLICY.to_json(),
    "simulated_root": ROOT,
    "tls": {"ca_pem": None},
    "v": 1,
}
UNSAID = {"not_checked": "any version that both have signed"}


def case(name: str, expect: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "text": json.dumps({**PLAIN, **members}), "expect": expect}


def doubled(name: str, *members: str) -> dict[str, Any]:
    text = json.dumps(PLAIN)
    return {"name": name, "text": text[:-1] + ", " + ", ".join(members) + "}", "expect": "Malformed"}


CASES = [
    case("a contract and whose signature", "valid", contract={"digest": DIGEST}, borrower={"key": BORROWER}),
    case("no contract, and why", "valid", contract=UNSAID),
    *(
        case(name, "Malformed", contract=value)
        for name, value in {
            "a contract that is null": None,
            "a contract that is a digest alone": DIGEST,
            "a list of contracts": [{"digest": DIGEST}],
            "an empty contract": {},
            "a digest that is null": {"digest": None},
            "a digest that is a number": {"digest": 1},
            "several digests": {"digest": [DIGEST, "cd" * 32]},
            "an empty digest": {"digest": ""},
            "a short digest": {"digest": DIGEST[:-2]},
            "a long digest": {"digest": DIGEST + "ab"},
            "an odd digest": {"digest": DIGEST[:-1]},
            "an upper-case digest": {"digest": DIGEST.upper()},
            "a digest in base64url": {"digest": BORROWER},
            "a digest with a prefix": {"digest": "sha256:" + DIGEST},
            "a digest and why it is not compared": {"digest": DIGEST, **UNSAID},
            "no reason": {"not_checked": ""},
            "a reason that is true": {"not_checked": True},
            "a long reason": {"not_checked": "x" * 201},
            "an unknown demand": {"digest": DIGEST, "version": 2},
        }.items()
    ),
    *(
        case(name, "Malformed", borrower=value)
        for name, value in {
            "a borrower that is null": None,
            "an empty borrower": {},
            "a short key": {"key": BORROWER[:-2]},
            "a key that nobody can own": {"key": "A" * 43},
            "a key and why it is not compared": {"key": BORROWER, **UNSAID},
        }.items()
    ),
    doubled("two contracts", f'"contract": {{"digest": "{DIGEST}"}}', '"contract": {"not_checked": "x"}'),
    doubled("two digests", f'"contract": {{"digest": "{DIGEST}", "digest": "{DIGEST}"}}'),
]

(Path(__file__).parent / "trusts.json").write_text(json.dumps({"format": 1, "cases": CASES}, indent=1) + "\n")
