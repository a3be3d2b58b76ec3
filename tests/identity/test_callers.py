"""Rules and memory: who is what, and what was proven already."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from identity_kit import AT, ISSUER, NOW, Provider

from cloister.errors import Malformed, Rejected, UsageError
from cloister.identity import Callers, Grants, Issuer, Issuers, Trusted, parse_keys, verify_bearer
from cloister.identity.discovery import parse_discovery
from cloister.identity.identity import verify_confirmation
from mutations import mutated

SITE = Provider()
SOURCE = Path(__file__).parents[2] / "src" / "cloister"


def issuers(*documents: dict[str, Any]) -> Issuers:
    def trusted(document: dict[str, Any]) -> Trusted:
        issuer = Issuer.parse(json.dumps(document).encode())
        return Trusted(issuer=issuer, keys=parse_keys(issuer.kind, issuer.keys or b""))

    return Issuers(trusted(item) for item in documents)


def granted(rules: list[Any], **claims: Any) -> Grants:
    return Callers(issuers(SITE.document(rules=rules))).prove(SITE.token(**claims), NOW).grants


def rule(role: str, subject: str | None = None, **claims: Any) -> dict[str, Any]:
    named = {"subject": subject} if subject else {}
    return {"claims": claims, "grants": {"role": role}, **named}


def test_the_first_rule_that_holds_counts() -> None:
    rules = [rule("admin", **{"/groups": "admins"}), rule("lender", "user-7"), rule("auditor", "user-7")]
    assert granted(rules, groups=["staff", "admins"]).role == "admin"
    assert granted(rules, groups=["staff"]).role == "lender"


def test_all_that_a_rule_names_must_hold() -> None:
    rules = [rule("admin", "user-7", **{"/groups": "admins", "/email_verified": True})]
    assert granted(rules, groups=["admins"], email_verified=True).role == "admin"
    for claims in (
        {"groups": ["admins"], "email_verified": False},
        {"groups": ["admins"]},
        {"groups": ["admins"], "email_verified": True, "sub": "user-8"},
        {"groups": ["admin"], "email_verified": True},
    ):
        with pytest.raises(Rejected) as caught:
            granted(rules, **claims)
        assert caught.value.code == "identity_not_mapped"


@pytest.mark.parametrize(
    ("want", "got"),
    [
        *[("admins", got) for got in ("admin", "admins ", "Admins", "x admins")],
        *[(1, True), (True, 1), (1, "1"), ("1", 1), ("true", True), ("a", "a b")],
    ],
)
def test_a_claim_is_compared_whole_and_by_type(want: Any, got: Any) -> None:
    with pytest.raises(Rejected):
        granted([rule("admin", **{"/x": want})], x=got)


def test_a_pointer_reaches_names_with_slashes_tildes_and_dots() -> None:
    claims = {"https://x.example/roles": ["a"], "k.io": {"a~b": "c"}}
    assert granted([rule("admin", **{"/https:~1~1x.example~1roles": "a"})], **claims).role == "admin"
    assert granted([rule("admin", **{"/k.io/a~0b": "c"})], **claims).role == "admin"


def test_scope_is_a_list_with_spaces_between() -> None:
    assert granted([rule("admin", **{"/scope": "cloister:admin"})], scope="openid cloister:admin").role == "admin"
    with pytest.raises(Rejected):
        granted([rule("admin", **{"/scope": "cloister:admin"})], scope="openid cloister:administer")


@pytest.mark.parametrize("value", [{"a": 1}, [1], [["a"]], 1.5, ["x\n"], ["x"] * 257, "x" * 2049])
def test_a_claim_that_no_rule_could_name_is_malformed(value: Any) -> None:
    with pytest.raises(Malformed):
        granted([rule("admin", **{"/x": "a"})], x=value)


def test_a_claim_that_no_rule_asks_about_is_not_kept() -> None:
    token = SITE.token(email="a@b.example", groups=["x"])
    found = verify_bearer(token, issuers(SITE.document(rules=[rule("admin", **{"/groups": "x"})])), NOW)
    assert found.claims == {"/groups": ("x",)}


def test_no_rule_is_nobody() -> None:
    with pytest.raises(Rejected):
        granted([])


def test_the_name_in_a_log_holds_no_name_and_is_of_issuer_and_subject() -> None:
    names = set()
    for provider in (SITE, Provider("https://other.example")):
        for subject in ("alice@example.org", "bob@example.org"):
            found = verify_bearer(provider.token(sub=subject), issuers(provider.document()), NOW)
            assert re.fullmatch(r"idn-[0-9a-f]{32}", found.id)
            names.add(found.id)
    assert len(names) == 4


# memory


def test_what_was_proven_is_not_proven_again_until_it_ends() -> None:
    callers, token = Callers(issuers(SITE.document())), SITE.token()
    first = callers.prove(token, NOW)
    assert callers.prove(token, NOW + timedelta(seconds=299)) is first
    with pytest.raises(Rejected) as caught:
        callers.prove(token, NOW + timedelta(seconds=300))
    assert caught.value.code == "token_expired"


def test_a_clock_set_back_proves_anew() -> None:
    callers, token = Callers(issuers(SITE.document())), SITE.token(nbf=AT)
    callers.prove(token, NOW)
    with pytest.raises(Rejected):
        callers.prove(token, NOW - timedelta(minutes=5))


def test_the_age_that_an_issuer_allows_ends_what_is_remembered() -> None:
    callers, token = Callers(issuers(SITE.document(max_age_s=60))), SITE.token()
    assert callers.prove(token, NOW).identity.expires_at == NOW + timedelta(seconds=60)
    with pytest.raises(Rejected) as caught:
        callers.prove(token, NOW + timedelta(seconds=60))
    assert caught.value.code == "token_too_old"


def test_other_keys_or_rules_make_everybody_be_proven_anew() -> None:
    callers, token = Callers(issuers(SITE.document())), SITE.token()
    callers.prove(token, NOW)
    callers.trust(issuers(SITE.document(rules=[rule("auditor", "user-7")])))
    assert callers.prove(token, NOW).grants.role == "auditor"
    callers.trust(issuers(SITE.document(keys=Provider().jwks())))
    with pytest.raises(Rejected) as caught:
        callers.prove(token, NOW)
    assert caught.value.code == "signature_invalid"
    callers.trust(Issuers(()))
    with pytest.raises(Rejected):
        callers.prove(token, NOW)


def test_memory_is_bounded_holds_no_token_and_no_refusal() -> None:
    callers = Callers(issuers(SITE.document()), capacity=3)
    tokens = [SITE.token(jti=str(number)) for number in range(5)]
    for token in tokens:
        callers.prove(token, NOW)
    with pytest.raises(Rejected):
        callers.prove(SITE.token(aud="x"), NOW)
    known = callers._proven.known
    assert len(known) == 3
    assert all(len(digest) == 32 for digest in known)
    assert not any(token in repr(callers._proven).encode() for token in tokens)


def test_many_threads_prove_at_once() -> None:
    callers = Callers(issuers(SITE.document()), capacity=4)
    tokens, failed = [SITE.token(jti=str(number)) for number in range(16)], []

    def work() -> None:
        try:
            for token in tokens * 4:
                assert callers.prove(token, NOW).identity.subject == "user-7"
        except Exception as exc:  # noqa: BLE001 - told below
            failed.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# bound tokens


def test_a_bound_token_needs_what_it_is_bound_to() -> None:
    digest, other = bytes(range(32)), bytes(32)
    thumbprint = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    proven = issuers(SITE.document())
    for member, name in (("x5t#S256", "certificate_sha256"), ("jkt", "key_thumbprint")):
        found = verify_bearer(SITE.token(cnf={member: thumbprint}), proven, NOW)
        verify_confirmation(found, **{name: digest})
        for got, code in (({}, "confirmation_missing"), ({name: other}, "confirmation_mismatch")):
            with pytest.raises(Rejected) as caught:
                verify_confirmation(found, **got)
            assert caught.value.code == code
    verify_confirmation(verify_bearer(SITE.token(), proven, NOW))


# the room


def test_two_issuers_of_one_name_or_too_many_are_refused() -> None:
    with pytest.raises(UsageError):
        issuers(SITE.document(), SITE.document())
    one = next(iter(issuers(SITE.document())))
    with pytest.raises(UsageError):
        Issuers([one] * 257)


def test_identities_are_made_by_the_verifiers_alone() -> None:
    texts = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    ours = {name: text for name, text in texts.items() if "cloister.identity" in text}
    makers = {name for name, text in ours.items() if re.search(r"(?<![\w.])Identity\(", text)}
    assert makers == {"identity/bearer.py", "identity/certificate.py"}


def test_documents_that_are_too_large_are_malformed() -> None:
    one = {"grants": {"role": "lender"}, "subject": "user-7"}
    with pytest.raises(Malformed):
        Issuer.parse(json.dumps(SITE.document(rules=[one] * 257)).encode())
    with pytest.raises(Malformed):
        Issuer.parse(json.dumps(SITE.document(keys=SITE.jwks() | {"x": "y" * 600_000})).encode())
    with pytest.raises(Malformed):
        issuers(SITE.document(keys={"keys": SITE.jwks()["keys"] * 65}))
    with pytest.raises(Malformed):
        parse_discovery(json.dumps({"issuer": ISSUER, "x": "y" * 65_536}).encode(), issuer=ISSUER)


def test_10_000_damaged_tokens_are_refused_or_prove_the_same() -> None:
    known, token = issuers(SITE.document()), SITE.token()
    want = verify_bearer(token, known, NOW)
    for data in mutated(token):
        try:
            assert verify_bearer(data, known, NOW) == want
            assert data == token
        except (Malformed, Rejected):
            continue


def test_10_000_damaged_documents_are_malformed_or_taken() -> None:
    for data in mutated(json.dumps(SITE.document()).encode()):
        try:
            Issuer.parse(data)
        except Malformed:
            continue
