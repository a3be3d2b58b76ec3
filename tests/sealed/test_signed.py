"""A model that its maker signed: sealed only as it was signed, opened only as it was signed (T98)."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import oms_kit as kit
import pytest
import resume_kit
from sealed_kit import CREATED, DEK, PUBLISHER, MemorySource, Sealed, memory_files, noise, seal

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed import memfd
from cloister.sealed.digest import OrderedDigest
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.manifest import MakerClaim, Manifest
from cloister.sealed.oms import MadeBy, Maker, verify_maker
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.paths import parse_path
from cloister.sealed.reuse import OldPackage
from cloister.sealed.seal import seal_model
from cloister.sealed.signed import signed_tree

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.sealed.signed import SignedTree

SIGNATURE = parse_path("model.sig")
FILES = {"config.json": b"{}", "empty": b"", "weights.bin": noise(50_000)}
ROOTS = (kit.root_maker(kit.ROOT),)
MINE = (kit.maker(kit.key()),)


def signature(files: dict[str, bytes] = FILES, **how: Any) -> bytes:
    return kit.text(kit.bundle(kit.text(kit.statement(files)), how.pop("by", kit.key()), **how))


def held(data: bytes, makers: tuple[Maker, ...] = MINE) -> tuple[MakerClaim, MadeBy]:
    return MakerClaim(signature=SIGNATURE, trusted=makers), verify_maker(data, makers, CREATED)


def sealed(files: dict[str, bytes] = FILES) -> Sealed:
    """Seal a model with its maker's signature into memory."""
    return seal(files | {SIGNATURE: signature(files)}, maker=held(signature(files)))


def thief(files: dict[str, bytes], data: bytes, claim: MakerClaim | None = None) -> Sealed:
    """Seal as somebody does who holds the publisher's key and verifies nothing."""
    package = seal(files | {SIGNATURE: data})
    return package.resign(replace(package.manifest, maker=claim or MakerClaim(signature=SIGNATURE, trusted=MINE)))


def refused(package: Sealed) -> str:
    """Return why it does not open; nothing of it stays in memory."""
    before = memory_files()
    with pytest.raises(Rejected) as caught:
        package.open()
    assert memory_files() == before
    return caught.value.code


def test_what_was_signed_opens_and_says_who_made_it() -> None:
    with sealed().open() as opened:
        assert {path: bytes(opened.view(path)) for path in opened.files if path != SIGNATURE} == FILES
        assert opened.made is not None
        assert opened.made.maker == MINE[0]
        assert opened.verify_maker(MINE).signer == f"key {MINE[0].fingerprint}"
    with seal(FILES).open() as opened:
        assert opened.made is None


def test_t98_files_that_the_maker_did_not_sign_are_not_opened() -> None:
    data = signature()
    assert refused(thief(FILES | {"weights.bin": noise(50_000, seed=2)}, data)) == "signed_otherwise"
    assert refused(thief(FILES | {"evil.onnx": b"x"}, data)) == "file_unsigned"
    assert refused(thief(FILES | {".git/evil.onnx": b"x"}, data)) == "file_unsigned"
    assert refused(thief({"config.json": b"{}", "empty": b""}, data)) == "file_missing"


def test_t98_another_makers_signature_in_its_place_is_not_opened() -> None:
    other = kit.key(2)
    assert refused(thief(FILES, signature(by=other))) == "unknown_key"
    claim = MakerClaim(signature=SIGNATURE, trusted=(kit.maker(other),))
    package = thief(FILES, signature(by=other), claim)
    with package.open() as opened, pytest.raises(Rejected) as caught:
        opened.verify_maker(MINE)  # whoever sealed it pins whom it likes; who pins makers of its own is not misled
    assert caught.value.code == "unknown_key"


def test_t98_a_signature_that_was_stripped_is_missed_by_who_wants_one() -> None:
    package = thief(FILES, signature())
    bare = package.resign(replace(package.manifest, maker=None))
    with bare.open() as opened, pytest.raises(Rejected) as caught:
        opened.verify_maker(MINE)
    assert caught.value.code == "model_unsigned"


def test_a_signature_out_of_form_is_not_opened() -> None:
    before = memory_files()
    with pytest.raises(Malformed):
        thief(FILES, b"{}").open()
    assert memory_files() == before


def test_certificates_count_at_the_time_of_sealing() -> None:
    chain = (kit.LEAF, kit.BETWEEN)
    data = signature(by=kit.LEAF_KEY, chain=chain)
    package = seal(FILES | {SIGNATURE: data}, maker=held(data, ROOTS))
    with package.open() as opened:  # the certificates ended long ago on this machine's clock, or will
        assert opened.made is not None
        assert opened.made.signer == "CN=A maker of models"
    late = package.resign(replace(package.manifest, created=CREATED.replace(year=2027)))
    assert refused(late) == "cert_expired"


@pytest.mark.parametrize("straight", [False, True], ids=["written", "straight"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_store_that_fails_on_the_way_changes_no_digest(
    monkeypatch: pytest.MonkeyPatch, every: int, *, straight: bool
) -> None:
    monkeypatch.setattr(memfd, "_HUGE_BYTES", 1)
    monkeypatch.setattr(memfd, "huge_pages", lambda: straight)
    package = sealed()
    source = Breaking(package.source.parts, every)
    with open_model(source, package.verified(), DEK, again=lambda _: True) as opened:
        assert bytes(opened.view("weights.bin")) == FILES["weights.bin"]
        assert opened.made is not None
    with pytest.raises(Unavailable):
        open_model(Breaking(package.source.parts, every), package.verified(), DEK)


class Breaking(MemorySource):
    """A source that fails at every so manyth read of a blob, in whichever thread."""

    def __init__(self, parts: dict[str, bytes], every: int) -> None:
        super().__init__(parts)
        self._count, self._every = itertools.count(1), every

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes, or nothing at all."""
        if name.startswith("blobs/") and not name.endswith(".leaves") and next(self._count) % self._every == 0:
            msg = "gone"
            raise Unavailable(msg)
        return super().read(name, offset, size)


# --- sealing a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a signed model with things beside it that its maker passed over."""
    for path, data in (FILES | {".gitattributes": b"x", ".git/config": b"y", "model.sig": signature()}).items():
        (tmp_path / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / path).write_bytes(data)
    return tmp_path / "model"


def seal_folder(folder: Path, place: Path | None = None, out: str = "sealed", **how: Any) -> Manifest:
    signed = signed_tree(folder, place or folder / "model.sig", MINE, CREATED)
    return seal_model(
        folder, folder.parent / out, name="m", dek=DEK, signer=PUBLISHER, card={}, created=CREATED, signed=signed, **how
    ).manifest


def paths(manifest: Manifest) -> list[str]:
    return [entry.path for entry in manifest.files]


def test_only_what_was_signed_and_the_signature_are_sealed(folder: Path) -> None:
    assert signed_tree(folder, folder / "model.sig", MINE, CREATED).left_out == (".git/config", ".gitattributes")
    manifest = seal_folder(folder)
    assert paths(manifest) == [*sorted(FILES)[:2], "model.sig", "weights.bin"]
    assert manifest.maker == MakerClaim(signature=SIGNATURE, trusted=MINE)
    parts = read_package(folder.parent / "sealed")
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    with open_model(DirectorySource(folder.parent / "sealed"), verified, DEK) as opened:
        assert opened.made is not None


def test_a_signature_from_elsewhere_is_carried_under_the_same_name(folder: Path) -> None:
    elsewhere = folder.parent / "theirs.json"
    (folder / "model.sig").rename(elsewhere)
    assert "model.sig" in paths(seal_folder(folder, elsewhere))


def test_a_model_of_one_file_is_carried_with_its_signature(folder: Path) -> None:
    one = folder / "weights.bin"
    place = folder.parent / "one.sig"
    place.write_bytes(signature({".": FILES["weights.bin"]}))
    assert paths(seal_folder(one, place)) == ["model.sig", "weights.bin"]


@pytest.mark.parametrize(
    ("path", "data", "code"),
    [
        ("weights.bin", noise(50_000, seed=3), "signed_otherwise"),
        ("more", b"", "file_unsigned"),
        ("empty", None, "file_missing"),
    ],
)
def test_t98_a_folder_that_is_not_as_signed_is_not_sealed(
    folder: Path, path: str, data: bytes | None, code: str
) -> None:
    if data is None:
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(data)
    with pytest.raises(Rejected) as caught:
        seal_folder(folder)
    assert caught.value.code == code
    assert not (folder.parent / "sealed").exists()
    assert not list(folder.parent.glob(".sealed*"))


def test_files_taken_over_from_an_older_version_are_held_to_the_signature_too(folder: Path) -> None:
    seal_folder(folder, out="old")
    root, other = folder.parent / "old", bytes(range(32))

    def old() -> OldPackage:
        parts = read_package(root)
        verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
        return OldPackage(root=root, source=DirectorySource(root), verified=verified, dek=DEK)

    signed = signed_tree(folder, folder / "model.sig", MINE, CREATED)
    how: dict[str, Any] = {"name": "m", "dek": other, "signer": PUBLISHER, "card": {}, "created": CREATED}
    again = old()
    seal_model(folder, folder.parent / "new", **how, signed=signed, old=again)
    assert len(again.taken) == 4
    (folder / "model.sig").write_bytes(signature(FILES | {"weights.bin": b"other"}))
    signed = signed_tree(folder, folder / "model.sig", MINE, CREATED)
    with pytest.raises(Rejected) as caught:
        seal_model(folder, folder.parent / "newer", **how, signed=signed, old=old())
    assert caught.value.code == "signed_otherwise"


def test_a_sealing_that_is_gone_on_with_is_held_to_the_signature_over_every_byte(folder: Path) -> None:
    vault, out = resume_kit.Vault(), folder.parent / "sealed"

    def signed() -> SignedTree:
        return signed_tree(folder, folder / "model.sig", MINE, CREATED)

    resume_kit.interrupt(folder, out, vault=vault, at=20_000, signed=signed())
    (folder / "model.sig").write_bytes(signature(FILES | {"weights.bin": b"other"}))
    with pytest.raises(Rejected) as caught:
        resume_kit.seal(folder, out, vault=vault, signed=signed())
    assert caught.value.code == "signed_otherwise"
    assert not out.exists()
    (folder / "model.sig").write_bytes(signature())
    told = resume_kit.Told()
    resume_kit.seal(folder, out, vault=vault, told=told, signed=signed())
    assert told.found[0][0] > 20_000
    assert set(resume_kit.opened(out, vault)) == {*FILES, "model.sig"}


def test_what_cannot_be_the_signature_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        signed_tree(folder, folder / ".git", MINE, CREATED)
    (folder / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(Malformed, match="at most"):
        signed_tree(folder, folder / "large", MINE, CREATED)
    (folder / "large").unlink()
    listed = FILES | {"model.sig": b"a file"}
    (folder / "model.sig").write_bytes(b"a file")
    (folder.parent / "theirs").write_bytes(signature(listed))
    statement = kit.statement(listed, ignore_paths=[])
    (folder.parent / "theirs").write_bytes(kit.text(kit.bundle(kit.text(statement), kit.key())))
    with pytest.raises(UsageError, match="where its signature goes"):
        signed_tree(folder, folder.parent / "theirs", MINE, CREATED)


# --- the manifest's word


def test_a_claim_that_cannot_be_is_malformed() -> None:
    package = sealed()
    claim = package.manifest.maker
    assert claim is not None
    assert Manifest.parse(package.manifest.dump()) == package.manifest
    for wrong in (
        replace(claim, trusted=()),
        replace(claim, trusted=MINE * 2),
        replace(claim, trusted=tuple(kit.maker(kit.key(number)) for number in range(1, 10))),
        replace(claim, signature=parse_path("not-there")),
    ):
        with pytest.raises(UsageError):
            replace(package.manifest, maker=wrong).dump()
    alone = seal({SIGNATURE: signature()})
    with pytest.raises(UsageError, match="maker"):
        replace(alone.manifest, maker=claim).dump()
    large = seal(FILES | {SIGNATURE: bytes((1 << 20) + 1)}, segment=1 << 20)
    with pytest.raises(UsageError, match="maker"):
        replace(large.manifest, maker=claim).dump()


# --- hashing in turn


def test_segments_from_many_threads_are_hashed_in_order() -> None:
    parts = [noise(1000, seed=index) for index in range(64)]
    digest = OrderedDigest()
    digest.begin()
    turns = iter(range(64))
    lock = threading.Lock()

    def walk() -> None:
        while True:
            with lock:
                index = next(turns, None)
            if index is None:
                return
            assert digest.add(index, memoryview(parts[index]))

    threads = [threading.Thread(target=walk) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digest.digest() == kit.digests({"": b"".join(parts)})[""]


def test_who_waits_for_a_segment_that_does_not_come_is_let_go() -> None:
    digest, said = OrderedDigest(), list[bool]()
    stop = digest.begin()
    waiting = threading.Thread(target=lambda: said.append(digest.add(1, memoryview(b"second"))))
    waiting.start()
    stop()
    waiting.join()
    assert said == [False]
    digest.begin()
    assert digest.add(0, memoryview(b"first"))
    assert digest.add(1, memoryview(b"second"))
    assert digest.digest() == kit.digests({"": b"firstsecond"})[""]


@pytest.mark.parametrize("run", range(3))
def test_a_source_file_that_cannot_be_read_ends_the_sealing_of_a_signed_model(folder: Path, run: int) -> None:
    large = noise(6 << 20, seed=run)
    (folder / "weights.bin").write_bytes(large)
    (folder / "model.sig").write_bytes(signature(FILES | {"weights.bin": large}))
    signed = signed_tree(folder, folder / "model.sig", MINE, CREATED)
    (folder / "weights.bin").write_bytes(large[: 3 << 20])
    with pytest.raises(UsageError, match="changed while"):
        seal_model(
            folder, folder.parent / "out", name="m", dek=DEK, signer=PUBLISHER, card={}, created=CREATED, signed=signed
        )
    assert not (folder.parent / "out").exists()
