"""At every single thing that sealing and opening a model do to the world: fail, half-fail, crash.

Whatever happens there is a whole package or none, and doing it again succeeds; an opened model leaves nothing
in memory where opening failed.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import resume_kit
from sealed_kit import CREATED, DEK, PLAIN, PUBLISHER, SEGMENT

from cloister.errors import Unavailable, UsageError
from cloister.sealed.directory import DirectorySource, read_envelope, read_package, write_envelope
from cloister.sealed.envelope import Envelope, Recipient
from cloister.sealed.manifest import MANIFEST_NAME
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.seal import seal_model
from fail_points import FailPoints, Fault, ProcessEnded

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS = list(Fault)
MOST_POINTS = 300


def source(tmp_path: Path) -> Path:
    """Return a model of two files, one of them of several segments."""
    folder = tmp_path / "plain"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(range(256)) * (3 * PLAIN // 256 + 1))
    (folder / "sub" / "card.txt").write_bytes(b"card")
    return folder


def seal(plain: Path, out: Path) -> None:
    seal_model(plain, out, name="m", dek=DEK, signer=PUBLISHER, card={}, created=CREATED, segment_bytes=SEGMENT)


def opened(out: Path) -> bytes:
    """Open the package and return all of its plaintext."""
    package = read_package(out)
    verified = verify_manifest(package.manifest_bytes, package.signature_bytes, [PUBLISHER.verify_key])
    with open_model(DirectorySource(out), verified, DEK) as model:
        return b"".join(model.read(entry.path, 0, entry.size) for entry in verified.manifest.files)


def enumerate_points(
    operation: str, fault: Fault, run: Callable[[], None], after: Callable[[FailPoints, bool], None]
) -> None:
    """Let each point go wrong once; ``after`` proves what is left, being told whether the operation said yes."""
    met: list[str] = []
    for at in range(1, MOST_POINTS):
        points, through = FailPoints(at, fault), True
        try:
            with points.standing():
                run()
        except Unavailable:
            through = False
        except ProcessEnded:
            assert fault is Fault.CRASH
            through = False
        if points.met is None:
            assert through
            break
        met.append(points.met)
        after(points, through)
    else:
        pytest.fail(f"{operation} does not come to an end of its points")
    print(f"{operation}, {fault.value}: {len(met)} points: {', '.join(met)}")  # noqa: T201 - the result
    assert met


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_a_sealed_model_is_there_whole_or_not_at_all(tmp_path: Path, fault: Fault) -> None:
    plain, out = source(tmp_path), tmp_path / "sealed"
    seal(plain, tmp_path / "reference")
    want = opened(tmp_path / "reference")

    def left(points: FailPoints, through: bool) -> None:  # noqa: FBT001 - told, not chosen
        if out.exists():
            assert through or fault is Fault.CRASH, f"{points.met} failed, and there is a package"
            assert opened(out) == want
            with pytest.raises(UsageError, match="there already"):
                seal(plain, out)
            shutil.rmtree(out)
        else:
            assert not through
        over = [place for place in tmp_path.iterdir() if place.name not in ("plain", "reference")]
        if fault is not Fault.CRASH:  # a folder that was made and reported not made has a name that nobody knows
            assert all(points.met == "mkdir" and not any(place.iterdir()) for place in over), "something is left over"
        for place in over:
            shutil.rmtree(place)
        seal(plain, out)
        assert opened(out) == want
        shutil.rmtree(out)

    enumerate_points("seal", fault, lambda: seal(plain, out), left)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_a_sealing_goes_on_from_every_point_where_it_failed(tmp_path: Path, fault: Fault) -> None:
    plain, out, vault = source(tmp_path), tmp_path / "sealed", resume_kit.Vault()
    want = {str(path.relative_to(plain)): path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    went_on = 0

    def left(points: FailPoints, through: bool) -> None:  # noqa: FBT001 - told, not chosen
        nonlocal went_on
        if out.exists():
            assert through or fault is Fault.CRASH, f"{points.met} failed, and there is a package"
            assert resume_kit.opened(out, vault) == want
            shutil.rmtree(out)
        else:
            assert not through
        told = resume_kit.Told()
        resume_kit.seal(plain, out, vault=vault, told=told)
        went_on += bool(told.found)
        assert resume_kit.opened(out, vault) == want
        assert sorted(place.name for place in tmp_path.iterdir()) == ["plain", "sealed"], "something is left over"
        shutil.rmtree(out)

    enumerate_points("seal resumably", fault, lambda: only_seal(plain, out, vault), left)
    assert went_on > 0


def only_seal(plain: Path, out: Path, vault: resume_kit.Vault) -> None:
    resume_kit.seal(plain, out, vault=vault)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_an_envelope_is_the_old_one_or_the_new_one(tmp_path: Path, fault: Fault) -> None:
    out = tmp_path / "sealed"
    seal(source(tmp_path), out)
    first, second = envelope("a"), envelope("b")
    write_envelope(out, first)

    def left(_points: FailPoints, through: bool) -> None:  # noqa: FBT001 - told, not chosen
        assert read_envelope(out) in ((second,) if through else (first, second))
        write_envelope(out, second)
        assert read_envelope(out) == second
        write_envelope(out, first)

    enumerate_points("write the envelope", fault, lambda: write_envelope(out, second), left)


def envelope(name: str) -> Envelope:
    recipient = Recipient(kid=name * 32, key_version=1, kek_id="k", wrapped=bytes(60))
    return Envelope(manifest_digest="a" * 64, recipients=(recipient,))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_a_model_is_opened_whole_or_leaves_no_memory_open(tmp_path: Path, fault: Fault) -> None:
    out = tmp_path / "sealed"
    seal(source(tmp_path), out)
    want, package = opened(out), sorted(place.name for place in out.rglob("*"))

    def left(_points: FailPoints, _through: bool) -> None:  # noqa: FBT001 - told, not chosen
        if fault is not Fault.CRASH:
            assert not [name for name in descriptors() if "memfd" in name], "plaintext is left in memory"
        assert opened(out) == want
        assert sorted(place.name for place in out.rglob("*")) == package, "opening wrote to the package"

    enumerate_points("open", fault, lambda: demand(opened(out) == want), left)
    assert (out / MANIFEST_NAME).is_file()


def demand(fits: bool) -> None:  # noqa: FBT001 - a verdict
    assert fits


def descriptors() -> list[str]:
    """Return what every open descriptor of this process leads to."""
    found = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(number.readlink()))
    return found
