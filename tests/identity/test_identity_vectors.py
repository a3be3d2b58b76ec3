"""Vectors of docs/spec/identity.md: tokens, issuers' documents, keys, discovery documents; most of them bad."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import Malformed, Rejected
from cloister.identity import Issuer, IssuerKind, Issuers, Trusted, parse_keys, verify_bearer
from cloister.identity.discovery import parse_discovery

FOLDER = Path(__file__).parent.parent / "vectors" / "identity"
BEARER, ISSUER, KEYS, DISCOVERY = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("bearer", "issuer", "keys", "discovery")
)
NOW = datetime.fromisoformat(BEARER["now"])


def trusted(document: Any) -> Trusted:
    issuer = Issuer.parse(json.dumps(document).encode())
    assert issuer.keys is not None
    return Trusted(issuer=issuer, keys=parse_keys(issuer.kind, issuer.keys))


ISSUERS = Issuers(trusted(item) for item in BEARER["issuers"])


def cases(file: Any) -> Any:
    return pytest.mark.parametrize("case", file["cases"], ids=lambda case: case["name"])


@cases(BEARER)
def test_a_token_proves_whom_it_is_about_or_is_refused_with_every_reason(case: Any) -> None:
    token, expect = case["token"].encode(), case["expect"]
    if expect == "Malformed":
        with pytest.raises(Malformed):
            verify_bearer(token, ISSUERS, NOW)
    elif isinstance(expect, list):
        with pytest.raises(Rejected) as caught:
            verify_bearer(token, ISSUERS, NOW)
        assert sorted({reason.code for reason in caught.value.reasons}) == expect
    else:
        found = verify_bearer(token, ISSUERS, NOW)
        claims = expect.get("claims", {}).items()
        assert (found.issuer, found.kind.value, found.subject) == (expect["issuer"], expect["kind"], expect["subject"])
        assert found.claims == {name: tuple(item) if isinstance(item, list) else item for name, item in claims}
        assert found.expires_at > NOW


@cases(ISSUER)
def test_an_issuers_document_is_taken_and_comes_back_or_is_malformed(case: Any) -> None:
    data = json.dumps(case["document"]).encode()
    if case["expect"] == "Malformed":
        with pytest.raises(Malformed):
            Issuer.parse(data)
    else:
        issuer = Issuer.parse(data)
        assert Issuer.parse(issuer.dump()) == issuer
        assert case["document"].items() <= issuer.to_json().items()


@cases(KEYS)
def test_keys_of_an_issuer_are_taken_or_malformed(case: Any) -> None:
    data, kind = json.dumps(case["keys"]).encode(), IssuerKind(case["kind"])
    if case["expect"] == "Malformed":
        with pytest.raises(Malformed):
            parse_keys(kind, data)
    else:
        found = parse_keys(kind, data)
        assert found.tokens.keys or found.roots


@cases(DISCOVERY)
def test_a_discovery_document_leads_to_its_issuers_keys_or_nowhere(case: Any) -> None:
    data, issuer = json.dumps(case["document"]).encode(), DISCOVERY["issuer"]
    match case["expect"]:
        case "valid":
            assert parse_discovery(data, issuer=issuer) == case["document"]["jwks_uri"]
        case "Malformed":
            with pytest.raises(Malformed):
                parse_discovery(data, issuer=issuer)
        case code:
            with pytest.raises(Rejected) as caught:
                parse_discovery(data, issuer=issuer)
            assert caught.value.code == code
