"""Write the vectors of docs/spec/identity.md: ``python tests/vectors/identity/generate.py``.

Spelled from the page, with PyJWT and cryptography and none of the code under test. Keys are fresh at every run.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT.parents[1] / "identity"))

from identity_kit import (  # noqa: E402 - after the path was set
    AT,
    AUDIENCE,
    DOMAIN,
    ISSUER,
    NOW,
    Authority,
    Cluster,
    Domain,
    Provider,
    b64u,
    jwk,
    raw_token,
)

SITE, OTHER = Provider(), Provider("https://other.example")
RSA, ED = Provider("https://rsa.example", "RS256", "rsa-1"), Provider("https://ed.example", "EdDSA", "ed-1")
CLUSTER, SPIFFE = Cluster(), Domain()
YEAR = 365 * 86_400
THUMBPRINT = b64u(bytes(range(32)))
ISSUERS = [
    SITE.document(),
    RSA.document(authorized_parties={"not_checked": "the site has one client"}),
    ED.document(),
    CLUSTER.document(),
    SPIFFE.document(),
]


def public(provider: Provider) -> bytes:
    """Return a provider's public key as PEM."""
    return provider.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hmac(secret: bytes, algorithm: str = "HS256") -> bytes:
    """Return a token under a secret that everybody knows: the issuer's public key."""
    body = raw_token({"alg": algorithm, "kid": RSA.kid, "typ": "at+jwt"}, RSA.claims(), b"").rstrip(b".")
    return body + b"." + b64u(hmac.new(secret, body, hashlib.sha256).digest()).encode()


def header(**members: Any) -> bytes:
    """Return a token of the site with other members in its header."""
    return SITE.token(header=members)


def good() -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return tokens that prove somebody."""
    site = {"issuer": ISSUER, "kind": "oidc", "subject": "user-7"}
    prod = {"issuer": CLUSTER.name, "kind": "kubernetes", "subject": "system:serviceaccount:prod:api"}
    svid = {"issuer": DOMAIN, "kind": "jwt-svid", "subject": f"{DOMAIN}/ns/prod/api"}
    pod = {"/kubernetes.io/namespace": "prod"}
    below = {"/spiffe/below": ["/ns", "/ns/prod", "/ns/prod/api"]}
    mine = [OTHER.jwks()["keys"][0], "https://other.example/keys"]
    return [
        ("an access token", SITE.token(), site),
        ("typ with application/ and capitals", header(typ="application/AT+JWT"), site),
        ("no kid: the one key that fits", header(kid=None), site),
        ("several audiences, ours among them", SITE.token(aud=["https://x.example", AUDIENCE]), site),
        ("client_id for azp", SITE.token(azp=None, client_id="cloister-cli"), site),
        ("a clock five seconds ahead", SITE.token(iat=AT + 5, nbf=AT + 5), site),
        ("rsa, party not checked", RSA.token(azp="anybody"), {**site, "issuer": RSA.name}),
        ("ed25519", ED.token(), {**site, "issuer": ED.name}),
        ("jwk in the header, not read", header(jwk=mine[0]), site),
        ("jku and x5u in the header, not read", header(jku=mine[1], x5u=mine[1]), site),
        ("a service account", CLUSTER.token(), {**prod, "claims": pod}),
        ("a jwt-svid", SPIFFE.token(), {**svid, "claims": below}),
        ("a jwt-svid without iat that ends soon", SPIFFE.token(iat=None), {**svid, "claims": below}),
        ("bound to a certificate", SITE.token(cnf={"x5t#S256": THUMBPRINT}), site),
        ("bound to a key", SITE.token(cnf={"jkt": THUMBPRINT}), site),
    ]


def unsigned() -> list[tuple[str, bytes, Any]]:
    """Return tokens that nobody who is trusted signed."""
    none = {"kid": SITE.kid, "typ": "at+jwt"}
    body, _, signature = SITE.token().rpartition(b".")
    return [
        ("alg none", raw_token({**none, "alg": "none"}, SITE.claims(), b""), ["algorithm_not_allowed"]),
        ("alg nOnE", raw_token({**none, "alg": "nOnE"}, SITE.claims(), b""), ["algorithm_not_allowed"]),
        ("no alg", raw_token(none, SITE.claims(), b""), ["algorithm_not_allowed"]),
        ("hs256 under the public key", by_hmac(public(RSA)), ["algorithm_not_allowed"]),
        ("hs256 under the public key, no line end", by_hmac(public(RSA).strip()), ["algorithm_not_allowed"]),
        ("hs256 under an empty secret", by_hmac(b""), ["algorithm_not_allowed"]),
        ("rs256 said, hmac made", by_hmac(public(RSA), "RS256"), ["signature_invalid"]),
        ("no signature", body + b".", ["signature_invalid"]),
        ("another token's signature", body + b"." + SITE.token(sub="x").rpartition(b".")[2], ["signature_invalid"]),
        ("an all-zero signature", body + b"." + b64u(bytes(64)).encode(), ["signature_invalid"]),
        ("another issuer's key", OTHER.token(iss=ISSUER, header={"kid": SITE.kid}), ["signature_invalid"]),
        ("an issuer's key for another issuer", ED.token(iss=ISSUER), ["algorithm_not_allowed"]),
        ("its own key in the header", OTHER.token(iss=ISSUER, header={"kid": SITE.kid, "jwk": jwk(OTHER.key)}),
         ["signature_invalid"]),
        ("a kid of nobody", header(kid="key-2"), ["unknown_key"]),
        ("a kid that climbs", header(kid="../../../../dev/null"), ["unknown_key"]),
        ("a kid that is a url", header(kid="https://other.example/key"), ["unknown_key"]),
        ("a kid in sql", header(kid="x' UNION SELECT 'secret"), ["unknown_key"]),
        ("a kid with a line end", raw_token({**none, "alg": "ES256", "kid": "a\nb"}, SITE.claims(), b"x" * 64),
         "Malformed"),
        ("a kid that is a number", raw_token({**none, "alg": "ES256", "kid": 1}, SITE.claims(), b"x" * 64),
         "Malformed"),
        ("crit", header(crit=["exp"]), ["unsupported_format"]),
        ("an id token's neighbour: logout", header(typ="logout+jwt"), ["token_type_wrong"]),
        ("typ dpop+jwt", header(typ="dpop+jwt"), ["token_type_wrong"]),
        ("no typ where one is wanted", header(typ=None), ["token_type_wrong"]),
        ("cut", body, "Malformed"),
        ("five parts", b".".join([b"e30"] * 5), "Malformed"),
        ("a signature with stray bits", body + b"." + signature[:-1] + b"_", "Malformed"),
        ("empty", b"", "Malformed"),
        ("not ascii", "é.é.é".encode(), "Malformed"),
        ("a line end behind it", SITE.token() + b"\n", "Malformed"),
        ("too long", SITE.token(x="y" * 16_384), "Malformed"),
    ]  # fmt: skip


def wrong() -> list[tuple[str, bytes, Any]]:
    """Return tokens that an issuer signed and that are not for us, not now, or not about a caller."""
    return [
        ("of an issuer nobody trusts", OTHER.token(), ["issuer_unknown"]),
        ("an issuer with a slash more", SITE.token(iss=ISSUER + "/"), ["issuer_unknown"]),
        ("an issuer in capitals", SITE.token(iss=ISSUER.upper()), ["issuer_unknown"]),
        ("an issuer that is an array", SITE.token(iss=None, issuers=[ISSUER]), ["issuer_unknown"]),
        ("no issuer", SITE.token(iss=None), ["issuer_unknown"]),
        ("for somebody else", SITE.token(aud="https://other.example"), ["audience_mismatch"]),
        ("for ours and a letter more", SITE.token(aud=AUDIENCE + "x"), ["audience_mismatch"]),
        ("for nobody", SITE.token(aud=None), ["audience_mismatch"]),
        ("for an empty list", SITE.token(aud=[]), ["audience_mismatch"]),
        ("for a number", SITE.signed(json.dumps({**SITE.claims(), "aud": 7}).encode()), "Malformed"),
        ("another client's", SITE.token(azp="other"), ["party_not_allowed"]),
        ("nobody's client", SITE.token(azp=None), ["party_not_allowed"]),
        ("two clients, one of them ours", SITE.token(client_id="other"), ["party_not_allowed"]),
        ("a client that is an array", SITE.token(azp=["cloister-cli"]), ["party_not_allowed"]),
        ("ended this second", SITE.token(exp=AT), ["token_expired"]),
        ("ended a year ago", SITE.token(exp=AT - YEAR, iat=AT - YEAR - 300), ["token_expired", "token_too_old"]),
        ("without an end", SITE.token(exp=None), ["claim_missing"]),
        ("an end that is text", SITE.token(exp="2030-01-01"), "Malformed"),
        ("an end that is true", SITE.token(exp=True), "Malformed"),
        ("an end beyond the calendar", SITE.token(exp=10**18), "Malformed"),
        ("starts in a minute", SITE.token(nbf=AT + 60), ["token_not_yet_valid"]),
        ("issued in a minute", SITE.token(iat=AT + 60), ["token_not_yet_valid"]),
        ("issued at the end of the calendar", SITE.token(iat=253402300799), ["token_not_yet_valid"]),
        ("issued a year ago, ends in a year", SITE.token(iat=AT - YEAR, exp=AT + YEAR), ["token_too_old"]),
        ("never issued", SITE.token(iat=None), ["claim_missing"]),
        ("about nobody", SITE.token(sub=None), ["claim_missing"]),
        ("about the empty name", SITE.token(sub=""), ["claim_missing"]),
        ("about a name with a line end", SITE.token(sub="user-7\nadmin"), ["subject_invalid"]),
        ("about a name of 3,000 letters", SITE.token(sub="x" * 3000), ["subject_invalid"]),
        ("a logout token", SITE.token(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
         ["token_type_wrong"]),
        ("bound to a kid", SITE.token(cnf={"kid": "x"}), ["confirmation_unsupported"]),
        ("bound to two things", SITE.token(cnf={"jkt": THUMBPRINT, "x5t#S256": THUMBPRINT}),
         ["confirmation_unsupported"]),
        ("bound to a short digest", SITE.token(cnf={"jkt": "AAAA"}), "Malformed"),
        ("everything at once", SITE.token(aud="x", azp="x", exp=AT - 1, sub=None),
         ["audience_mismatch", "claim_missing", "party_not_allowed", "token_expired"]),
        ("claims twice", SITE.signed(b'{"sub":"a","sub":"b"}'), "Malformed"),
        ("claims that are an array", raw_token({"alg": "ES256"}, [], b"x" * 64), "Malformed"),
        ("claims nested deep", raw_token({"alg": "ES256"}, nested(40), b"x" * 64), "Malformed"),
        ("a service account's other name", CLUSTER.token(sub="system:serviceaccount:prod:root"), ["subject_invalid"]),
        ("a service account of no namespace", CLUSTER.token(**{"kubernetes.io": {}}), ["subject_invalid"]),
        ("a cluster's user", CLUSTER.token(sub="admin"), ["subject_invalid"]),
        ("a legacy service account: no end", CLUSTER.token(exp=None), ["claim_missing"]),
        ("a namespace that is an object", CLUSTER.token(**{"kubernetes.io": {"namespace": {}}}), ["subject_invalid"]),
        ("a jwt-svid of another domain", SPIFFE.token(sub="spiffe://other.example/api"), ["issuer_unknown"]),
        ("a jwt-svid about the domain itself", SPIFFE.token(sub=DOMAIN), "Malformed"),
        ("a jwt-svid that climbs", SPIFFE.token(sub=f"{DOMAIN}/ns/../admin"), "Malformed"),
        ("a jwt-svid with an empty name", SPIFFE.token(sub=f"{DOMAIN}/ns//api"), "Malformed"),
        ("a jwt-svid without iat that lives long", SPIFFE.token(iat=None, exp=AT + YEAR), ["token_too_old"]),
        ("a spiffe id that an oidc key signed", SITE.token(iss=None, azp=None, sub=f"{DOMAIN}/ns/prod/api",
         header={"typ": "JWT"}), ["unknown_key"]),
    ]  # fmt: skip


def nested(depth: int) -> Any:
    """Return an object in an object, ``depth`` times."""
    value: Any = {}
    for _ in range(depth):
        value = {"x": value}
    return value


def documents() -> list[dict[str, Any]]:
    """Return issuers' documents, most of them bad."""
    rule = {"grants": {"role": "lender"}, "subject": "user-7"}
    valid = {
        "oidc": SITE.document(),
        "keys by discovery": SITE.document(keys=None),
        "keys elsewhere": SITE.document(keys=None, jwks_uri="https://keys.example/jwks"),
        "a party that is not looked at": SITE.document(authorized_parties={"not_checked": "one client"}),
        "a namespaced claim": SITE.document(rules=[{**rule, "claims": {"/https:~1~1x.example~1roles": "a"}}]),
        "claims of every type": SITE.document(rules=[{**rule, "claims": {"/a": 1, "/b": True, "/c/d": "x"}}]),
        "a person": SITE.document(rules=[{"grants": {"person": "bob", "role": "lender"}, "subject": "x"}]),
        "no rules: nobody": SITE.document(rules=[]),
        "plain http to this machine": SITE.document(issuer="http://127.0.0.1:4000"),
        "kubernetes": CLUSTER.document(),
        "spiffe": SPIFFE.document(),
        "certificates": Authority().document(),
        "a consumer with a loan": SITE.document(rules=[{"grants": {"consumer": "a", "loan": "b"}, "subject": "x"}]),
    }
    changed: dict[str, dict[str, Any]] = {
        "unknown member": {"x": 1},
        "unknown kind": {"kind": "saml"},
        "no audience": {"audiences": []},
        "an empty audience": {"audiences": [""]},
        "audiences missing": {"audiences": None},
        "no algorithm": {"algorithms": []},
        "algorithm none": {"algorithms": ["none"]},
        "algorithm hs256": {"algorithms": ["ES256", "HS256"]},
        "no party": {"authorized_parties": []},
        "parties missing": {"authorized_parties": None},
        "a party not looked at without a reason": {"authorized_parties": {"not_checked": " "}},
        "plain http": {"issuer": "http://login.example"},
        "an issuer with a user": {"issuer": "https://a@login.example"},
        "an issuer with a query": {"issuer": "https://login.example?x=1"},
        "an issuer with a fragment": {"issuer": "https://login.example#x"},
        "an issuer in capitals": {"issuer": "https://LOGIN.example"},
        "an issuer that is a file": {"issuer": "file:///etc/passwd"},
        "keys at a file": {"jwks_uri": "file:///etc/passwd"},
        "keys over plain http": {"jwks_uri": "http://169.254.169.254/latest"},
        "a port out of range": {"issuer": "https://login.example:70000"},
        "an age of ten years": {"max_age_s": 10 * YEAR},
        "an age of no time": {"max_age_s": 0},
        "a leeway of an hour": {"leeway_s": 3600},
        "no type": {"types": []},
        "rules missing": {"rules": None},
        "a rule that names nobody": {"rules": [{"grants": {"role": "admin"}}]},
        "a rule with empty claims": {"rules": [{"claims": {}, "grants": {"role": "admin"}}]},
        "a rule with the empty subject": {"rules": [{**rule, "subject": ""}]},
        "a rule with an empty value": {"rules": [{**rule, "claims": {"/a": ""}}]},
        "a rule with a list": {"rules": [{**rule, "claims": {"/a": ["x"]}}]},
        "a rule with null": {"rules": [{**rule, "claims": {"/a": None}}]},
        "a rule with a fraction": {"rules": [{**rule, "claims": {"/a": 1.5}}]},
        "a claim without a slash": {"rules": [{**rule, "claims": {"groups": "x"}}]},
        "a claim of no name": {"rules": [{**rule, "claims": {"/": "x"}}]},
        "a claim with a tilde": {"rules": [{**rule, "claims": {"/a~2": "x"}}]},
        "a rule that grants nothing": {"rules": [{"grants": {}, "subject": "x"}]},
        "a rule that grants two things": {"rules": [{"grants": {"consumer": "a", "role": "b"}, "subject": "x"}]},
        "a person in capitals": {"rules": [{"grants": {"person": "Bob", "role": "lender"}, "subject": "x"}]},
        "a person with a consumer": {"rules": [{"grants": {"consumer": "a", "person": "bob"}, "subject": "x"}]},
        "a role with a line end": {"rules": [{"grants": {"role": "admin\n"}, "subject": "x"}]},
        "an unknown member of a rule": {"rules": [{**rule, "unless": "x"}]},
    }
    spiffe = {
        "a trust domain with a path": SPIFFE.document(issuer=f"{DOMAIN}/x"),
        "a trust domain in capitals": SPIFFE.document(issuer="spiffe://Example.org"),
        "a trust domain with a port": SPIFFE.document(issuer="spiffe://example.org:80"),
        "a trust domain without keys": SPIFFE.document(keys=None),
        "parties of a trust domain": SPIFFE.document(authorized_parties=["x"]),
        "certificates under a url": Authority().document(issuer=ISSUER),
        "certificates without authorities": Authority().document(authorities=None),
        "certificates with audiences": Authority().document(audiences=["x"]),
    }
    bad = {name: SITE.document(**members) for name, members in changed.items()}
    found = [{"name": name, "document": item, "expect": "valid"} for name, item in valid.items()]
    return found + [{"name": name, "document": item, "expect": "Malformed"} for name, item in (bad | spiffe).items()]


def keys() -> list[dict[str, Any]]:
    """Return keys of issuers, most of them bad."""
    (svid, authority), (plain,) = SPIFFE.bundle()["keys"], SITE.jwks()["keys"]
    leaf = base64.b64encode(Authority().der).decode()
    cases: list[tuple[str, str, Any, str]] = [
        ("a jwks", "oidc", SITE.jwks(), "valid"),
        ("keys of other kinds beside it", "oidc", {"keys": [plain, {"kty": "oct", "k": "AAAA"}]}, "valid"),
        ("a key that runs out by its certificate", "oidc", {"keys": [{**plain, "x5c": [leaf]}]}, "valid"),
        ("a bundle", "spiffe", SPIFFE.bundle(), "valid"),
        ("a bundle of jwt-svids alone", "spiffe", {"keys": [svid]}, "valid"),
        ("a bundle of x509-svids alone", "spiffe", {"keys": [authority]}, "valid"),
        ("no key", "oidc", {"keys": []}, "Malformed"),
        ("shared secrets alone", "oidc", {"keys": [{"kty": "oct", "k": "AAAA"}]}, "Malformed"),
        ("a key to encrypt with", "oidc", {"keys": [{**plain, "use": "enc"}]}, "Malformed"),
        ("a key that may not verify", "oidc", {"keys": [{**plain, "key_ops": ["sign"]}]}, "Malformed"),
        ("a point off the curve", "oidc", {"keys": [{**plain, "x": plain["y"]}]}, "Malformed"),
        ("keys that are an object", "oidc", {"keys": plain}, "Malformed"),
        ("a bundle without uses", "spiffe", {"keys": [plain]}, "Malformed"),
        ("a bundle with the use of a jwks", "spiffe", {"keys": [{**plain, "use": "sig"}]}, "Malformed"),
        ("a jwt-svid key without kid", "spiffe", {"keys": [{**svid, "kid": None}]}, "Malformed"),
        ("an authority without certificate", "spiffe", {"keys": [{**authority, "x5c": None}]}, "Malformed"),
        ("an authority with two", "spiffe", {"keys": [{**authority, "x5c": [leaf, leaf]}]}, "Malformed"),
        ("an authority of no base64", "spiffe", {"keys": [{**authority, "x5c": ["!"]}]}, "Malformed"),
        ("an authority of no certificate", "spiffe", {"keys": [{**authority, "x5c": ["AAAA"]}]}, "Malformed"),
        ("a jwks for certificates", "certificates", SITE.jwks(), "Malformed"),
    ]
    return [{"name": name, "kind": kind, "keys": item, "expect": want} for name, kind, item, want in cases]


def discovery() -> list[dict[str, Any]]:
    """Return discovery documents, most of them bad."""
    honest = {"issuer": ISSUER, "jwks_uri": "https://login.example/realms/site/keys", "x": [1]}
    cases: list[tuple[str, Any, str]] = [
        ("honest", honest, "valid"),
        ("another issuer's", {**honest, "issuer": "https://other.example"}, "issuer_mismatch"),
        ("a slash more", {**honest, "issuer": ISSUER + "/"}, "issuer_mismatch"),
        ("keys at another host", {**honest, "jwks_uri": "https://other.example/keys"}, "issuer_mismatch"),
        ("keys at another port", {**honest, "jwks_uri": "https://login.example:8443/keys"}, "issuer_mismatch"),
        ("keys inside", {**honest, "jwks_uri": "https://169.254.169.254/keys"}, "issuer_mismatch"),
        ("keys over plain http", {**honest, "jwks_uri": "http://login.example/keys"}, "Malformed"),
        ("keys at a file", {**honest, "jwks_uri": "file:///etc/passwd"}, "Malformed"),
        ("keys behind a user", {**honest, "jwks_uri": "https://login.example@other.example/keys"}, "Malformed"),
        ("keys with a backslash", {**honest, "jwks_uri": "https://login.example\\@other.example/keys"}, "Malformed"),
        ("keys with a space", {**honest, "jwks_uri": "https://login.example/ keys"}, "Malformed"),
        ("no keys", {"issuer": ISSUER}, "Malformed"),
        ("no issuer", {"jwks_uri": honest["jwks_uri"]}, "Malformed"),
        ("an array", [honest], "Malformed"),
    ]
    return [{"name": name, "document": item, "expect": want} for name, item, want in cases]


def main() -> None:
    """Write them."""
    bearers = [{"name": name, "token": token.decode(), "expect": want} for name, token, want in good()]
    bearers += [{"name": name, "token": token.decode(), "expect": want} for name, token, want in unsigned() + wrong()]
    files: dict[str, dict[str, Any]] = {
        "bearer.json": {"now": NOW.isoformat(), "issuers": ISSUERS, "cases": bearers},
        "issuer.json": {"cases": documents()},
        "keys.json": {"cases": keys()},
        "discovery.json": {"issuer": ISSUER, "cases": discovery()},
    }
    for name, content in files.items():
        (ROOT / name).write_text(json.dumps({"format": 1, **content}, indent=1) + "\n")


if __name__ == "__main__":
    main()
