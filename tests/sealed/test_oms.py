"""Model signatures: vectors (most of them bad), ten thousand mutations of each parser, and attacks by name."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import make_oms_vectors
import oms_kit as kit
import pytest

from cloister.errors import Malformed, Rejected
from cloister.sealed.oms import Bundle, Maker, MakerKind, Statement, parse_makers, verify_files, verify_maker
from cloister.sealed.oms.bundle import MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES
from cloister.wire import dump_b64u
from mutations import mutated

VECTORS = Path(__file__).parents[1] / "vectors" / "model-signature" / "bundles.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())


def judge(case: dict[str, Any]) -> None:
    """Do what a reader does with a case."""
    makers = [Maker.from_json(item) for item in case["makers"]]
    made = verify_maker(case["bundle"].encode(), makers, datetime.fromisoformat(case["now"]))
    verify_files(made.statement, {path: bytes.fromhex(digest) for path, digest in case["files"].items()})


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["why"]))
def test_model_signature_vector(case: dict[str, Any]) -> None:
    match case["expect"]:
        case "ok":
            judge(case)
        case "malformed":
            with pytest.raises(Malformed):
                judge(case)
        case code:
            with pytest.raises(Rejected) as caught:
                judge(case)
            assert caught.value.code == code


def test_the_vectors_are_those_that_are_made_by_hand_and_most_are_bad() -> None:
    assert make_oms_vectors.vectors() == VECTORS.read_text()
    assert len({case["why"] for case in CASES}) == len(CASES)
    assert sum(case["expect"] != "ok" for case in CASES) > len(CASES) * 0.6


def test_mutated_bundles_are_malformed_or_refused_and_never_believed() -> None:
    honest = kit.text(kit.bundle(kit.text(kit.statement(kit.FILES)), kit.LEAF_KEY, (kit.LEAF, kit.BETWEEN)))
    makers, payload = [kit.root_maker(kit.ROOT)], Bundle.parse(honest).payload
    believed = 0
    for damaged in mutated(honest):
        try:
            made = verify_maker(damaged, makers, kit.NOW)
        except (Malformed, Rejected):
            continue
        believed += 1  # what is not signed may change: spaces, the hint for the key
        assert Bundle.parse(damaged).payload == payload
        assert made.statement.files == Statement.parse(payload).files
    assert believed < 1000


def test_mutated_statements_are_malformed_and_nothing_else() -> None:
    honest = kit.text(kit.statement(kit.FILES))
    for damaged in mutated(honest):
        try:
            statement = Statement.parse(damaged)
        except Malformed:
            continue
        assert len(statement.files) <= len(kit.FILES) or statement.method != "files"


def test_mutated_makers_are_malformed_and_nothing_else() -> None:
    for honest in (kit.public_pem(kit.key()), kit.pem(kit.ROOT, kit.BETWEEN)):
        for damaged in mutated(honest, count=5000):
            try:
                assert all(Maker.from_json(maker.to_json()) == maker for maker in parse_makers(damaged))
            except Malformed:
                continue


def test_sizes_are_bounded_before_anything_is_decoded() -> None:
    with pytest.raises(Malformed, match="want at most"):
        Bundle.parse(b" " * (MAX_BUNDLE_BYTES + 1))
    large = kit.bundle(b"x" * (MAX_PAYLOAD_BYTES + 3), kit.key())
    with pytest.raises(Malformed, match="payload"):
        Bundle.parse(kit.text(large))
    with pytest.raises(Malformed, match="want at most"):
        Statement.parse(b" " * (MAX_PAYLOAD_BYTES + 1))
    many = {f"{number:04}": b"" for number in range(1025)}
    with pytest.raises(Malformed, match="at most 1024"):
        Statement.parse(kit.text(kit.statement(many)))


def test_the_largest_model_fits_a_bundle() -> None:
    many = {f"{'folder/' * 10}{number:0180}": b"" for number in range(1024)}
    payload = kit.text(kit.statement(many))
    bundle = kit.text(kit.bundle(payload, kit.LEAF_KEY, (kit.LEAF, kit.BETWEEN, kit.ROOT)))
    made = verify_maker(bundle, [kit.root_maker(kit.ROOT)], kit.NOW)
    verify_files(made.statement, kit.digests(many))


def test_every_file_that_is_not_as_signed_is_named() -> None:
    statement = Statement.parse(kit.text(kit.statement(kit.FILES)))
    found = {"config.json": b"other", "new": b"", "newer": b""}
    with pytest.raises(Rejected) as caught:
        verify_files(statement, kit.digests(found))
    got = [(reason.code, reason.subject) for reason in caught.value.reasons]
    assert got == [
        ("file_unsigned", "new"),
        ("file_unsigned", "newer"),
        ("file_missing", "sub/weights.bin"),
        ("signed_otherwise", "config.json"),
    ]


def test_a_maker_is_told_by_pem_and_shown_by_fingerprint_or_name() -> None:
    (mine,) = parse_makers(kit.public_pem(kit.key()))
    assert mine == kit.maker(kit.key())
    assert mine.shown == f"key {mine.fingerprint}"
    roots = parse_makers(kit.pem(kit.ROOT, kit.BETWEEN))
    assert [maker.kind for maker in roots] == [MakerKind.ROOT, MakerKind.ROOT]
    assert roots[0].shown == "root CN=Makers' root"
    made = verify_maker(
        kit.text(kit.bundle(kit.text(kit.statement(kit.FILES)), kit.LEAF_KEY, (kit.LEAF, kit.BETWEEN))), roots, kit.NOW
    )
    assert (made.signer, made.maker) == ("CN=A maker of models", roots[1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        kit.private_pem(kit.key()),
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA" + b"A" * 43 + b"=\n-----END PUBLIC KEY-----\n",  # Ed25519
        kit.pem(*[kit.ROOT] * 9),
        b"-----BEGIN CERTIFICATE-----" + b"A" * (64 << 10),
        b"-----BEGIN PUBLIC KEY-----" + b"A" * (64 << 10),
    ],
    ids=["empty", "private key", "another curve", "nine roots", "certificates too large", "key too large"],
)
def test_what_is_no_maker_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_makers(data)


@pytest.mark.parametrize(
    ("kind", "der"),
    [("key", b""), ("key", bytes(300)), ("root", b"0"), ("both", b""), ("key", kit.maker(kit.key()).der + b"\0")],
)
def test_a_pinned_maker_that_is_none_is_malformed(kind: str, der: bytes) -> None:
    with pytest.raises(Malformed):
        Maker.from_json({"der": dump_b64u(der), "kind": kind})
