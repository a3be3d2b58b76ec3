"""Writes tests/vectors/model-signature anew, byte for byte the same each time.

    python tests/sealed/make_oms_vectors.py

Statements and bundles are put together by hand in ``oms_kit``, without the code that reads them; signatures of the
peer are in ``test_oms_peer``. Each bad one says why it must be refused.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import oms_kit as kit
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

if TYPE_CHECKING:
    from cryptography import x509

    from cloister.sealed.oms import Maker

VECTORS = Path(__file__).parents[1] / "vectors" / "model-signature"
Case = dict[str, Any]
HONEST = kit.statement(kit.FILES)
MINE = kit.key()


def case(
    why: str,
    expect: str,
    bundle: object,
    *,
    makers: tuple[Maker, ...] = (kit.maker(MINE),),
    files: dict[str, bytes] = kit.FILES,
    now: datetime = kit.NOW,
) -> Case:
    """Return one case; a bundle that is no text is written as JSON."""
    return {
        "bundle": bundle if isinstance(bundle, str) else json.dumps(bundle),
        "expect": expect,
        "files": {path: digest.hex() for path, digest in kit.digests(files).items()},
        "makers": [maker.to_json() for maker in makers],
        "now": now.isoformat(),
        "why": why,
    }


def changed(path: str, value: Any, of: Any = None) -> Any:
    """Return a copy of an honest bundle (or ``of``) with one member replaced, or taken out by ``...``."""
    found = copy.deepcopy(kit.bundle(kit.text(HONEST), MINE) if of is None else of)
    *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    inner = found
    for part in way:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return found


def signed(path: str, value: Any) -> Any:
    """Return a bundle over a statement with one member replaced, honestly signed."""
    return kit.bundle(kit.text(changed(path, value, HONEST)), MINE)


def good() -> list[Case]:
    """Return what holds."""
    alone = {"toy.onnx": b"a model of one file"}
    other = kit.key(2)
    cases = [
        case("a key on P-256", "ok", kit.bundle(kit.text(HONEST), MINE)),
        case(
            "one of several pinned keys",
            "ok",
            kit.bundle(kit.text(HONEST), MINE),
            makers=(kit.maker(other), kit.maker(MINE)),
        ),
        case("no hint: the pinned keys are tried", "ok", changed("verificationMaterial/publicKey/hint", ...)),
        case("no list of log entries", "ok", changed("verificationMaterial/tlogEntries", ...)),
        case("no key id", "ok", changed("dsseEnvelope/signatures/0/keyid", ...)),
        case(
            "a key that lies in the bundle is passed over",
            "ok",
            changed("verificationMaterial/publicKey", {"rawBytes": "", "keyDetails": "X"}),
        ),
        case("members that are not known yet", "ok", signed("predicate/card", {"license": "MIT"})),
        case("nothing ignored", "ok", signed("predicate/serialization/ignore_paths", ...)),
        case(
            "a model of one file",
            "ok",
            kit.bundle(kit.text(kit.statement({".": alone["toy.onnx"]})), MINE),
            files=alone,
        ),
    ]
    for curve in (ec.SECP384R1(), ec.SECP521R1()):
        mine = kit.key(3, curve)
        cases.append(
            case(f"a key on {curve.name}", "ok", kit.bundle(kit.text(HONEST), mine), makers=(kit.maker(mine),))
        )
    return cases


def forged() -> list[Case]:
    """Return what an attacker tries with the signature."""
    other, payload = kit.key(2), kit.text(HONEST)
    honest = kit.bundle(payload, MINE)
    flipped = kit.b64(payload.replace(b"config", b"Config"))
    sig = "dsseEnvelope/signatures/0/sig"
    return [
        case("signed by another key", "unknown_key", kit.bundle(payload, other)),
        case(
            "signed by another key under the maker's hint",
            "signature_invalid",
            changed(sig, kit.b64(kit.sign(payload, other))),
        ),
        case(
            "signed by another key without a hint",
            "signature_invalid",
            changed("verificationMaterial/publicKey", {}, kit.bundle(payload, other)),
        ),
        case("no maker pinned", "unknown_key", honest, makers=()),
        case("a root pinned and a key signs", "unknown_key", honest, makers=(kit.root_maker(kit.ROOT),)),
        case("payload altered", "signature_invalid", changed("dsseEnvelope/payload", flipped)),
        case(
            "signature of the bare payload",
            "signature_invalid",
            changed(sig, kit.b64(MINE.sign(payload, ec.ECDSA(kit.hashes.SHA256(), deterministic_signing=True)))),
        ),
        case(
            "signed under another payload type",
            "signature_invalid",
            changed(sig, kit.b64(kit.sign(payload, MINE, kind="text/plain"))),
        ),
        case(
            "signed as before 1.0, under DSSEV1",
            "signature_invalid",
            changed(sig, kit.b64(kit.sign(payload, MINE, head=b"DSSEV1"))),
        ),
        case("empty signature", "signature_invalid", changed(sig, "")),
        case("signature is no der", "signature_invalid", changed(sig, kit.b64(bytes(64)))),
        case(
            "keyless",
            "unsupported_signature",
            changed(
                "verificationMaterial", {"certificate": {"rawBytes": kit.b64(kit.der(kit.LEAF))}, "tlogEntries": []}
            ),
        ),
    ]


def by_certificate() -> list[Case]:
    """Return signatures with certificates, good and bad."""
    payload, roots = kit.text(HONEST), (kit.root_maker(kit.ROOT),)
    chain = (kit.LEAF, kit.BETWEEN)
    stranger = kit.certificate("Makers' root", kit.key(20), "Makers' root", kit.key(20), authority=True)

    def leaf(**other: Any) -> tuple[x509.Certificate, ...]:
        return (
            kit.certificate("A maker of models", kit.LEAF_KEY, "Makers of 2026", kit.BETWEEN_KEY, **other),
            kit.BETWEEN,
        )

    def of(why: str, expect: str, found: tuple[x509.Certificate, ...], **other: Any) -> Case:
        by = other.pop("by", kit.LEAF_KEY)
        return case(why, expect, kit.bundle(payload, by, found), **({"makers": roots} | other))

    server = (ExtendedKeyUsageOID.SERVER_AUTH,)
    no_authority = kit.certificate("Makers of 2026", kit.BETWEEN_KEY, "Makers' root", kit.ROOT_KEY)
    old = kit.certificate(
        "Makers of 2026",
        kit.BETWEEN_KEY,
        "Makers' root",
        kit.ROOT_KEY,
        authority=True,
        ends=kit.NOW - timedelta(days=1),
    )
    return [
        of("a chain", "ok", chain),
        of("the root came along", "ok", (*chain, kit.ROOT)),
        of("certificates in another order", "ok", (kit.LEAF, kit.ROOT, kit.BETWEEN)),
        of("key usage alone", "ok", leaf(purposes=None)),
        of("code signing alone", "ok", leaf(usage=None)),
        of("any purpose", "ok", leaf(purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))),
        of("another root of the same name", "untrusted_root", chain, makers=(kit.root_maker(stranger),)),
        of("a key pinned and a certificate signs", "untrusted_root", chain, makers=(kit.maker(kit.LEAF_KEY),)),
        of("the root it brought is not believed", "untrusted_root", (*chain, kit.ROOT), makers=()),
        of("intermediate missing", "untrusted_root", chain[:1]),
        of("signed by another key than the certificate's", "signature_invalid", chain, by=kit.key(2)),
        of("expired", "cert_expired", chain, now=kit.NOW + timedelta(days=31)),
        of("not yet valid", "cert_not_yet_valid", chain, now=kit.NOW - timedelta(days=31)),
        of("intermediate expired", "cert_expired", (kit.LEAF, old)),
        of("intermediate is no authority", "chain_invalid", (kit.LEAF, no_authority)),
        of("certificate of a web server", "chain_invalid", leaf(purposes=server)),
        of("key usage is not for signing", "chain_invalid", leaf(usage="agree")),
        of("for no purpose at all", "chain_invalid", leaf(usage=None, purposes=None)),
        of("no certificate", "malformed", chain)
        | {"bundle": json.dumps(changed("verificationMaterial", {"x509CertificateChain": {"certificates": []}}))},
    ]


def other_files() -> list[Case]:
    """Return honest signatures over other files than are there."""
    honest = kit.bundle(kit.text(HONEST), MINE)
    one = kit.bundle(kit.text(kit.statement({".": b"a model of one file"})), MINE)
    git = kit.FILES | {".git/hooks/post-checkout": b"run me"}
    return [
        case("a file altered", "signed_otherwise", honest, files=kit.FILES | {"config.json": b"{ }"}),
        case("a file missing", "file_missing", honest, files={"config.json": b"{}"}),
        case("a file added", "file_unsigned", honest, files=kit.FILES | {"evil.onnx": b"x"}),
        case("a file added where the maker looks away", "file_unsigned", honest, files=git),
        case(
            "two files swapped",
            "signed_otherwise",
            honest,
            files=dict(zip(kit.FILES, reversed(kit.FILES.values()), strict=True)),
        ),
        case(
            "a file renamed",
            "file_unsigned",
            honest,
            files={"config.jsn": b"{}", "sub/weights.bin": kit.FILES["sub/weights.bin"]},
        ),
        case("a model of one file, altered", "signed_otherwise", one, files={"toy.onnx": b"another"}),
        case(
            "a model of one file, and one beside it",
            "file_unsigned",
            one,
            files={"toy.onnx": b"a model of one file", "more": b""},
        ),
    ]


def out_of_form() -> list[Case]:
    """Return what does not parse, or says what is not read here."""
    twice = '{"mediaType":"x","mediaType":"x"}'
    honest = json.dumps(kit.bundle(kit.text(HONEST), MINE))
    resources = HONEST["predicate"]["resources"]
    payload = kit.b64(kit.text(HONEST))
    bundles: dict[str, Any] = {
        "no json": "model",
        "a member twice": twice,
        "cut": honest[:-1],
        "of another version": changed("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.2"),
        "unknown member": changed("more", 1),
        "no material": changed("verificationMaterial", {}),
        "material of two kinds": changed("verificationMaterial/certificate", {"rawBytes": ""}),
        "no signature": changed("dsseEnvelope/signatures", []),
        "two signatures": changed("dsseEnvelope/signatures", [{"sig": ""}, {"sig": ""}]),
        "payload of another type": changed("dsseEnvelope/payloadType", "text/plain"),
        "payload is no base64": changed("dsseEnvelope/payload", "?"),
        "payload in base64url": changed("dsseEnvelope/payload", "_-__"),
        "payload without padding": changed(
            "dsseEnvelope/payload", payload.rstrip("=") + ("" if "=" in payload else "A")
        ),
        "hint is a number": changed("verificationMaterial/publicKey/hint", 1),
    }
    statements: dict[str, Any] = {
        "statement of another type": signed("_type", "https://in-toto.io/Statement/v0.1"),
        "predicate before 1.0": signed("predicateType", "https://model_signing/Digests/v0.1"),
        "no subject": signed("subject", []),
        "digest of another list": signed("subject/0/digest/sha256", "00" * 32),
        "resources in another order than the digest": signed("predicate/resources", resources[::-1]),
        "no resources": signed("predicate/resources", []),
        "a path twice": signed("predicate/resources", [*resources, resources[0]]),
        "a path that leads out": signed("predicate/resources/0/name", "../config.json"),
        "an absolute path": signed("predicate/resources/0/name", "/config.json"),
        "a path with two spellings": signed("predicate/resources/0/name", "./config.json"),
        "one file that is the model, and another": signed("predicate/resources/0/name", "."),
        "a digest of another hash": signed("predicate/resources/0/algorithm", "blake2"),
        "everything ignored": signed("predicate/serialization/ignore_paths", ["./"]),
        "a digest too short": signed("predicate/resources/0/digest", "00"),
        "payload is no json": kit.bundle(b"model", MINE),
        "a member of the statement twice": kit.bundle(b'{"_type":1,"_type":1}', MINE),
    }
    refused = {
        "in shards": signed("predicate/serialization/method", "shards"),
        "by blake2": signed("predicate/serialization/hash_type", "blake2"),
    }
    return [case(why, "malformed", bundle) for why, bundle in (bundles | statements).items()] + [
        case(why, "unsupported_signature", bundle) for why, bundle in refused.items()
    ]


def vectors() -> str:
    """Return the text of the vector file."""
    cases = good() + forged() + by_certificate() + other_files() + out_of_form()
    return json.dumps(cases, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    VECTORS.mkdir(exist_ok=True)
    (VECTORS / "bundles.json").write_text(vectors())
