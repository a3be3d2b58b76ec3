"""A bucket as moto plays S3, and as a hostile server does: push once, overwrite nothing, believe nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bucket_kit import S3, at_endpoint
from hostile_server import HostileServer
from sealed_kit import PLAIN, SEGMENT, noise, seal
from stores_kit import DEAF, HASTY, parts_of, small_model, tls_files, with_envelope, write_folder

from cloister.errors import Rejected, Unavailable, UsageError
from cloister.sealed.directory import DirectorySource
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME
from cloister.sealed.open import RandomAccess, open_model
from cloister.stores import Access, bucket, open_source, open_target, parse_place, pull, push
from cloister.stores.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.stores import Pushed

REFUSED = ["whole", "other range", "more", "gone", "no range", "unknown size", "other tag"]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    """Yield an endpoint that plays a bucket of one package."""
    model = small_model()
    parts = {f"models/m/{name}": data for name, data in model.source.parts.items()}
    with HostileServer(parts, dated=True) as server:
        at_endpoint(monkeypatch, server.url)
        yield server


def pushed(folder: Path, url: str, **how: bool) -> Pushed:
    with open_target(url, patience=HASTY) as target:
        return push(DirectorySource(folder), target, **how)


def test_a_model_goes_into_a_bucket_and_opens_from_there(s3: S3, tmp_path: Path) -> None:
    model = with_envelope(small_model())
    result = pushed(write_folder(tmp_path / "m", model), s3.url)
    assert (result.written, result.kept) == (len(model.source.parts), 0)
    assert s3.names() == set(model.source.parts)
    with open_source(s3.url) as source, open_model(source, model.verified(), model.dek) as opened:
        assert {path: opened.read(path, 0, len(data)) for path, data in model.plain.items()} == model.plain
    with open_source(s3.url) as source:
        assert pull(source, tmp_path / "again").envelope
    assert parts_of(tmp_path / "again") == model.source.parts


def test_one_file_of_a_big_model_costs_its_own_segments_only(s3: S3, tmp_path: Path) -> None:
    model = seal({"a.bin": noise(40 * PLAIN), "b.bin": noise(40 * PLAIN, 2)})
    pushed(write_folder(tmp_path / "m", model), s3.url)
    place = parse_place(s3.url)
    with Bucket(place) as source, RandomAccess(source, model.verified(), model.dek, "b.bin") as access:  # type: ignore[arg-type]
        before = source.traffic.body_bytes
        assert access.read(3 * PLAIN + 10, 2 * PLAIN) == model.plain["b.bin"][3 * PLAIN + 10 : 5 * PLAIN + 10]
        assert (before, source.traffic.body_bytes - before) == (40 * 32, 3 * SEGMENT)


def test_a_push_again_writes_nothing_and_one_after_a_loss_what_is_missing(s3: S3, tmp_path: Path) -> None:
    model = with_envelope(small_model())
    folder = write_folder(tmp_path / "m", model)
    pushed(folder, s3.url)
    assert pushed(folder, s3.url).written == 0
    for name in (model.blob("weights/one.bin"), MANIFEST_NAME):
        s3.remove(name)
    assert pushed(folder, s3.url).written == 2
    assert s3.names() == set(model.source.parts)


def test_the_manifest_comes_last_and_without_it_there_is_no_model(s3: S3, tmp_path: Path) -> None:
    model = small_model()
    with open_target(s3.url) as target:
        order: list[str] = []

        class Watched:
            """Lets everything through."""

            def __getattr__(self, name: str) -> object:
                return getattr(target, name)

            def put(self, part: object, *, replace: bool = False) -> None:
                order.append(part.name)  # type: ignore[attr-defined]
                target.put(part, replace=replace)  # type: ignore[arg-type]

        push(DirectorySource(write_folder(tmp_path / "m", model)), Watched())  # type: ignore[arg-type]
    assert order[-2:] == ["manifest.sig", MANIFEST_NAME]
    s3.remove(MANIFEST_NAME)
    with open_source(s3.url) as source, pytest.raises(Unavailable, match="not there"):
        pull(source, tmp_path / "again")


def test_another_model_in_its_place_is_never_overwritten(s3: S3, tmp_path: Path) -> None:
    first, second = small_model(), small_model()
    pushed(write_folder(tmp_path / "one", first), s3.url)
    with pytest.raises(UsageError, match="nothing is overwritten"):
        pushed(write_folder(tmp_path / "two", second), s3.url)
    assert s3.names() == set(first.source.parts)  # refused before a byte of the second was written


def test_two_pushes_at_once_do_not_overwrite_each_other(s3: S3, tmp_path: Path) -> None:
    """The place was free when it was looked at, and is taken when the manifest is written: If-None-Match decides."""
    model = small_model()
    write_folder(tmp_path / "m", model)
    with open_target(s3.url) as target:
        manifest = next(part for part in parts(tmp_path / "m") if part.name == MANIFEST_NAME)
        target.put(manifest)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="nothing is overwritten"):
            target.put(manifest)  # type: ignore[arg-type]


def parts(folder: Path) -> tuple[object, ...]:
    from cloister.sealed.manifest import Manifest  # noqa: PLC0415
    from cloister.sealed.parts import read_parts  # noqa: PLC0415
    from cloister.stores.part import parts_of as listed  # noqa: PLC0415

    source = DirectorySource(folder)
    package = read_parts(source)
    return listed(source, Manifest.parse(package.manifest_bytes), package, None)


def test_an_envelope_is_replaced_only_where_somebody_says_so(s3: S3, tmp_path: Path) -> None:
    model = small_model()
    pushed(write_folder(tmp_path / "one", with_envelope(model)), s3.url)
    rotated = write_folder(tmp_path / "two", with_envelope(model, 2))
    with pytest.raises(UsageError, match=ENVELOPE_NAME):
        pushed(rotated, s3.url)
    assert pushed(rotated, s3.url, replace_envelope=True).written == 1
    assert pushed(rotated, s3.url).written == 0


def test_a_package_that_rotted_is_not_published(s3: S3, tmp_path: Path) -> None:
    model = small_model()
    body = model.source.parts[model.blob("weights/one.bin")]
    folder = write_folder(tmp_path / "m", model.edit(model.blob("weights/one.bin"), body[:-1] + bytes([body[-1] ^ 1])))
    with pytest.raises(Rejected, match="digest_mismatch"):
        pushed(folder, s3.url)
    assert MANIFEST_NAME not in s3.names()
    assert model.blob("weights/one.bin") not in s3.names()


def test_a_big_blob_goes_in_several_uploads_and_a_broken_one_leaves_nothing(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = seal({"a.bin": noise(11 << 20)}, segment=1 << 20)
    folder = write_folder(tmp_path / "m", model)
    monkeypatch.setattr(bucket, "_CHUNK_BYTES", 5 << 20)  # the least that S3 takes

    def interrupt(done: int, _: int) -> None:
        if done > 8 << 20:
            raise KeyboardInterrupt

    with open_target(s3.url) as target, pytest.raises(KeyboardInterrupt):
        push(DirectorySource(folder), target, progress=interrupt)
    assert s3.names() == {model.leaves("a.bin")}
    assert s3.uploads() == 0
    assert pushed(folder, s3.url).kept == 1
    with open_source(s3.url) as source, open_model(source, model.verified(), model.dek) as opened:
        assert opened.read("a.bin", 0, 11 << 20) == model.plain["a.bin"]


@pytest.mark.parametrize("order", ["short", "reset", "stall", "hang up", "busy", "garbage", "endless header"])
def test_what_may_pass_is_asked_for_again(hostile: HostileServer, order: str) -> None:
    name = next(name for name in hostile.parts if name.endswith(".leaves")).removeprefix("models/m/")
    with open_source("s3://models/m", patience=DEAF) as source:
        source.size(name)
        hostile.orders = [order]
        assert source.read(name, 0, 1000) == hostile.parts[f"models/m/{name}"][:1000]


@pytest.mark.parametrize("order", REFUSED)
def test_an_answer_to_something_else_is_not_believed(hostile: HostileServer, order: str) -> None:
    name = next(name for name in hostile.parts if not name.endswith((".leaves", ".json", ".sig")))
    part = name.removeprefix("models/m/")
    hostile.parts = {**hostile.parts, name: noise(9000)}
    with open_source("s3://models/m", patience=HASTY) as source:
        source.size(part)
        hostile.always = order
        out = bytearray(8000)
        with pytest.raises(Unavailable):
            source.read_into(part, 0, memoryview(out))


def test_a_part_that_changes_between_two_reads_is_refused(hostile: HostileServer) -> None:
    with open_source("s3://models/m", patience=HASTY) as source:
        source.read(MANIFEST_NAME, 0, 10)
        hostile.tags[f"models/m/{MANIFEST_NAME}"] = '"two"'
        with pytest.raises(Unavailable, match="changed while it was read"):
            source.read(MANIFEST_NAME, 10, 10)


def test_a_store_that_never_answers_well_is_asked_a_bounded_number_of_times(hostile: HostileServer) -> None:
    hostile.always = "busy"
    with open_source("s3://models/m", patience=HASTY) as source:
        source.size(MANIFEST_NAME)
        with pytest.raises(Unavailable, match="4 times") as caught:
            source.read(MANIFEST_NAME, 0, 10)
    assert "a-secret" not in str(caught.value) + repr(caught.value.__cause__)
    assert len(hostile.seen) == 5


def test_no_credentials_no_entry_and_none_in_the_message(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    del s3
    with HostileServer({}, always="forbidden") as server:
        at_endpoint(monkeypatch, server.url)
        with open_source("s3://models/m", patience=HASTY) as source, pytest.raises(Unavailable) as caught:
            source.size(MANIFEST_NAME)
    assert "a-secret" not in str(caught.value)


def test_a_bearer_token_is_never_shown_to_a_bucket(hostile: HostileServer) -> None:
    with open_source("s3://models/m", access=Access(token="a-token"), patience=HASTY) as source:  # noqa: S106
        source.read(MANIFEST_NAME, 0, 10)
    assert all("a-token" not in request.headers["authorization"] for request in hostile.seen)


def test_a_bucket_is_believed_by_the_authority_named_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served = tls_files(tmp_path / "tls")
    tls_files(tmp_path / "other")
    with HostileServer({"models/m/manifest.json": b"x" * 100}, tls=served, dated=True) as server:
        at_endpoint(monkeypatch, server.url)
        with open_source("s3://models/m", access=Access(ca=tmp_path / "tls" / "ca.pem"), patience=HASTY) as source:
            assert source.read(MANIFEST_NAME, 0, 10) == b"x" * 10
        other = Access(ca=tmp_path / "other" / "ca.pem")
        with open_source("s3://models/m", access=other, patience=HASTY) as source, pytest.raises(Unavailable):
            source.size(MANIFEST_NAME)


def test_a_bucket_elsewhere_is_not_asked_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    at_endpoint(monkeypatch, "http://models.invalid:9")
    with pytest.raises((UsageError, Unavailable)), open_source("s3://models/m", patience=HASTY) as source:
        source.size(MANIFEST_NAME)


@pytest.mark.parametrize("url", ["./folder", "https://host/m"])
def test_places_that_take_no_models_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="takes models"), open_target(url):
        pass


@pytest.mark.parametrize("url", ["s3://bucket:80/m", "s3://id:s3cret@bucket/m", "s3:///m", "gs://bucket/../m"])
def test_unfit_bucket_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_place(url)
    assert "s3cret" not in str(caught.value)


def test_buckets_of_other_clouds_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "YS1zZWNyZXQ=")
    for url in ("az://container/m", "gs://bucket/m"):
        with open_source(url) as source:
            assert isinstance(source, Bucket)
