"""Beside the peer, OpenSSF's own ``model-signing``: what it signs holds here, and what it refuses is refused here.

The peer judges folders, so each attack is made on files. Where we are stricter it is said and shown: the peer 1.1
counts certificates at the beginning of their own life, and takes one for web servers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import oms_kit as kit
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from model_signing import hashing, signing, verifying

from cloister.errors import Malformed, Rejected
from cloister.sealed.oms import parse_makers, verify_files, verify_maker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)


class Maker:
    """One maker with the peer's tools: a folder, a key, certificates."""

    def __init__(self, place: Path, curve: ec.EllipticCurve | None = None) -> None:
        self.model, self.place = place / "model", place
        for path, data in (kit.FILES | {".gitattributes": b"*.bin lfs", "sub/deep/er/x": b""}).items():
            self.write(path, data)
        self.key = kit.key(7, curve)
        self.signature = self.model / "model.sig"
        (place / "private.pem").write_bytes(kit.private_pem(self.key))
        (place / "public.pem").write_bytes(kit.public_pem(self.key))
        self.trusted = place / "public.pem"

    def write(self, path: str, data: bytes) -> None:
        """Put a file into the model."""
        (self.model / path).parent.mkdir(parents=True, exist_ok=True)
        (self.model / path).write_bytes(data)

    def certify(self, **other: Any) -> None:
        """From now on sign with a certificate, by a chain of two."""
        times = {"begins": BEGINS, "ends": BEGINS + timedelta(days=3650)}
        root = kit.certificate("root", kit.ROOT_KEY, "root", kit.ROOT_KEY, authority=True, **times)
        between = kit.certificate("between", kit.BETWEEN_KEY, "root", kit.ROOT_KEY, authority=True, **times)
        leaf = kit.certificate("maker", self.key, "between", kit.BETWEEN_KEY, **(times | other))
        for name, found in {"root": root, "between": between, "leaf": leaf}.items():
            (self.place / f"{name}.pem").write_bytes(kit.pem(found))
        self.trusted = self.place / "root.pem"

    def sign(self, model: Path | None = None, **how: Any) -> None:
        """Let the peer sign."""
        ignored = [self.signature.name, *how.pop("ignored", ())]
        config = hashing.Config().set_ignored_paths(paths=ignored)
        if how:
            config.use_file_serialization(**how) if "shard_size" not in how else config.use_shard_serialization(**how)
        maker = signing.Config().set_hashing_config(config)
        if self.trusted.name == "root.pem":
            maker.use_certificate_signer(
                private_key=self.place / "private.pem", signing_certificate=self.place / "leaf.pem",
                certificate_chain=[self.place / "between.pem"],
            )  # fmt: skip
        else:
            maker.use_elliptic_key_signer(private_key=self.place / "private.pem")
        maker.sign(model or self.model, self.signature)

    def peer(self, model: Path | None = None) -> bool:
        """Tell whether the peer believes it."""
        config = verifying.Config()
        if self.trusted.name == "root.pem":
            config.use_certificate_verifier(certificate_chain=[self.trusted])
        else:
            config.use_elliptic_key_verifier(public_key=self.trusted)
        try:
            config.verify(model or self.model, self.signature)
        except Exception:  # noqa: BLE001 - the peer raises what its libraries raise
            return False
        return True

    def ours(self, model: Path | None = None, now: datetime = BEGINS + timedelta(days=1)) -> str:
        """Return ``ok`` or why not, as sealing does: what the maker passed over is left out."""
        found = model or self.model
        try:
            made = verify_maker(self.signature.read_bytes(), parse_makers(self.trusted.read_bytes()), now)
            files = [found] if found.is_file() else [item for item in found.rglob("*") if item.is_file()]
            names = {found.name if found.is_file() else item.relative_to(found).as_posix(): item for item in files}
            left = {path: item for path, item in names.items() if not made.statement.passes_over(path)}
            digests = {path: hashlib.sha256(item.read_bytes()).digest() for path, item in left.items()}
            verify_files(made.statement, digests)
        except Malformed:
            return "malformed"
        except Rejected as refusal:
            return refusal.code
        return "ok"


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_the_peer_signs_by_key_holds_here(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    maker = Maker(tmp_path, curve)
    maker.sign()
    assert maker.peer()
    assert maker.ours() == "ok"


def test_what_the_peer_signs_by_certificate_holds_here(maker: Maker) -> None:
    maker.certify()
    maker.sign()
    assert maker.peer()
    assert maker.ours() == "ok"


def test_what_the_peer_signs_as_one_file_holds_here(maker: Maker) -> None:
    maker.signature = maker.place / "one.sig"
    one = maker.model / "config.json"
    maker.sign(one)
    assert maker.peer(one)
    assert maker.ours(one) == "ok"
    one.write_bytes(b"other")
    assert not maker.peer(one)
    assert maker.ours(one) == "signed_otherwise"


def test_what_the_maker_passed_over_is_known_to_both(maker: Maker) -> None:
    maker.write("notes/draft.txt", b"not for you")
    maker.sign(ignored=["notes"])
    maker.write("notes/more.txt", b"later")
    maker.write(".git/config", b"later too")
    assert maker.peer()
    assert maker.ours() == "ok"


ATTACKS: dict[str, Callable[[Maker], object]] = {
    "a byte of a file": lambda maker: maker.write("config.json", b"{]"),
    "a file cut": lambda maker: maker.write("sub/weights.bin", bytes(range(255))),
    "a file emptied": lambda maker: maker.write("sub/weights.bin", b""),
    "a file added": lambda maker: maker.write("evil.pkl", b"x"),
    "an empty file added": lambda maker: maker.write("sub/deep/er/y", b""),
    "a file removed": lambda maker: (maker.model / "config.json").unlink(),
    "a file renamed": lambda maker: (maker.model / "config.json").rename(maker.model / "Config.json"),
    "a file moved": lambda maker: (maker.model / "config.json").rename(maker.model / "sub" / "config.json"),
    "another maker's key": lambda maker: maker.trusted.write_bytes(kit.public_pem(kit.key(8))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_the_peer_refuses_is_refused_here(maker: Maker, attack: str) -> None:
    maker.sign()
    ATTACKS[attack](maker)
    assert not maker.peer()
    assert maker.ours() != "ok"


def _members(value: Any, way: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the way to every member of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for name, inner in items for found in ((*way, name), *_members(inner, (*way, name)))]


def _replaced(document: Any, way: tuple[str | int, ...], value: object) -> Any:
    copy = json.loads(json.dumps(document))
    inner = copy
    for part in way[:-1]:
        inner = inner[part]
    if value is ...:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return copy


@pytest.mark.parametrize("certified", [False, True], ids=["key", "certificate"])
def test_every_member_of_a_bundle_damaged_in_turn_is_never_believed_here_alone(
    maker: Maker, *, certified: bool
) -> None:
    if certified:
        maker.certify()
    maker.sign()
    honest = json.loads(maker.signature.read_bytes())
    both = alone = 0
    for way in _members(honest):
        for value in (..., None, "", "AAAA", 1, [], {}):
            maker.signature.write_text(json.dumps(_replaced(honest, way, value)))
            peer, ours = maker.peer(), maker.ours() == "ok"
            assert peer or not ours or way[-1] in {"keyid", "tlogEntries", "publicKey", "hint"}, (way, value)
            both, alone = both + (peer and ours), alone + (peer and not ours)
    assert both > 0
    assert alone < 30  # the peer reads more forms than we do


def test_statements_signed_anew_after_damage_are_never_believed_here_alone(maker: Maker) -> None:
    maker.sign()
    bundle = json.loads(maker.signature.read_bytes())
    honest = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    agreed = 0
    for way in _members(honest):
        for value in (..., None, "", "AAAA", "00" * 32, 1, True, [], {}, ["sub"]):
            payload = kit.text(_replaced(honest, way, value))
            maker.signature.write_bytes(kit.text(kit.bundle(payload, maker.key)))
            peer, ours = maker.peer(), maker.ours() == "ok"
            # What only the peer wants: a word on links, of which a sealed model has none, and a name that says nothing.
            assert peer or not ours or way[-1] in {"allow_symlinks", "name", "ignore_paths"}, (way, value)
            agreed += peer == ours
    assert agreed > 150


def test_random_damage_is_never_believed_here_alone(maker: Maker) -> None:
    maker.sign()
    honest = maker.signature.read_bytes()
    rng = random.Random(5)
    for _ in range(150):
        damaged = bytearray(honest)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        maker.signature.write_bytes(bytes(damaged))
        assert maker.ours() != "ok" or maker.peer()


def test_other_ways_to_hash_are_refused_by_name_here(maker: Maker) -> None:
    for how in ({"hashing_algorithm": "blake2"}, {"hashing_algorithm": "blake3"}, {"shard_size": 64}):
        maker.sign(**how)
        assert maker.ours() == "unsupported_signature"


def test_an_expired_certificate_and_one_for_web_servers_are_refused_here_and_by_newer_peers(maker: Maker) -> None:
    maker.certify(ends=BEGINS + timedelta(days=30))
    maker.sign()
    assert maker.ours() == "ok"
    assert maker.ours(now=BEGINS + timedelta(days=31)) == "cert_expired"
    maker.certify(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))
    maker.sign()
    assert maker.ours() == "chain_invalid"
