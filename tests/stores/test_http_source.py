"""A sealed model behind a web server that fails in every way: refused or asked for again, never believed."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostile_server import HostileServer
from sealed_kit import PLAIN, SEGMENT, noise, seal
from stores_kit import DEAF, HASTY, small_model, tls_files

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed.directory import DirectorySource
from cloister.sealed.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from cloister.sealed.open import DirectSource, RandomAccess, open_model, verify_manifest
from cloister.sealed.parts import read_parts
from cloister.stores import Access, Patience, open_source, parse_place, read_access
from cloister.stores.http import HttpSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealed_kit import Sealed

PART = "blobs/" + "0" * 32
BODY = noise(10_000)
MAY_PASS = ["short", "fewer", "reset", "stall", "silence", "hang up", "garbage", "endless header", "endless headers",
            "endless chunk size", "busy", "busy for ever"]  # fmt: skip
REFUSED = ["whole", "redirect", "gone", "forbidden", "no such range", "not modified", "other range", "no range",
           "unknown size", "huge size", "compressed", "more", "multipart"]  # fmt: skip


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer({PART: BODY}) as running:
        yield running


def source_at(server: HostileServer, patience: Patience = HASTY, access: Access | None = None) -> HttpSource:
    place = parse_place(server.url)
    assert not isinstance(place, Path)
    return HttpSource(place, access=access, patience=patience)


def open_at(url: str, model: Sealed, **how: Patience) -> dict[str, bytes]:
    """Open everything from a URL, as an enclave does."""
    with open_source(url, patience=how.get("patience", HASTY)) as source:
        parts = read_parts(source)
        verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [model.publisher.verify_key])
        with open_model(source, verified, model.dek) as opened:
            return {path: opened.read(path, 0, len(model.plain[path])) for path in opened.files}


def test_a_whole_model_opens_over_http_and_connections_are_used_again() -> None:
    model = small_model()
    with HostileServer(model.source.parts) as server:
        assert open_at(server.url, model) == model.plain
        assert server.connections < len(server.seen) / 2


def test_a_whole_model_opens_while_every_kind_of_failure_comes_and_passes() -> None:
    model = small_model()
    with HostileServer(model.source.parts, orders=[word for one in MAY_PASS for word in (one, "", "")]) as server:
        assert open_at(server.url, model, patience=DEAF) == model.plain


def test_one_file_of_a_big_model_costs_its_own_segments_only() -> None:
    plain = {"a.bin": noise(40 * PLAIN), "b.bin": noise(40 * PLAIN, 2)}
    model = seal(plain)
    with HostileServer(model.source.parts) as server, source_at(server) as source:
        with RandomAccess(source, model.verified(), model.dek, "b.bin") as access:
            opened = source.traffic.body_bytes
            assert access.read(3 * PLAIN + 10, 2 * PLAIN) == plain["b.bin"][3 * PLAIN + 10 : 5 * PLAIN + 10]
        assert opened == 2 + 40 * 32  # a byte each to learn the sizes of blob and leaves, then the leaves
        assert source.traffic.body_bytes - opened == 3 * SEGMENT
        touched = {request.name for request in server.seen}
        assert touched == {model.blob("b.bin"), model.leaves("b.bin")}


@pytest.mark.parametrize("order", ["chunked", "closes", "old", "behind", *MAY_PASS])
def test_what_may_pass_is_asked_for_again_and_nothing_is_lost(server: HostileServer, order: str) -> None:
    with source_at(server, DEAF) as source:
        assert source.size(PART) == len(BODY)
        server.orders = [order]
        assert source.read(PART, 5, 9000) == BODY[5:9005]


def test_what_arrived_before_a_break_is_not_asked_for_twice(server: HostileServer) -> None:
    with source_at(server) as source:
        source.size(PART)
        server.orders = ["short"]
        source.read(PART, 0, 9000)
    begins = [request.headers["range"] for request in server.seen]
    assert begins == ["bytes=0-0", "bytes=0-8999", "bytes=4500-8999"]


@pytest.mark.parametrize("order", MAY_PASS)
def test_what_never_passes_ends_in_one_error_after_a_bounded_number_of_tries(server: HostileServer, order: str) -> None:
    server.always = order
    with source_at(server, replace(HASTY, silence_s=0.05)) as source, pytest.raises(Unavailable, match="4 times"):
        source.size(PART)
    assert source.traffic.requests == 4


@pytest.mark.parametrize("size", [10, 9000])
@pytest.mark.parametrize("order", ["behind", "closes", "old"])
def test_nothing_that_came_behind_an_answer_becomes_the_next(server: HostileServer, order: str, size: int) -> None:
    with source_at(server) as source:
        source.size(PART)
        server.orders = [order]
        for place in (100, 200, 300):
            assert source.read(PART, place, size) == BODY[place : place + size]
    assert server.connections == 2  # the one that answered so was not used again


@pytest.mark.parametrize("size", [10, 9000, 40_000])
def test_nothing_that_came_behind_an_answer_in_tls_becomes_the_next(tmp_path: Path, size: int) -> None:
    """What is left of a TLS record is in no socket's buffer any more, and must not be overlooked."""
    served, data = tls_files(tmp_path / "a"), noise(50_000)
    with (
        HostileServer({PART: data}, tls=served) as server,
        source_at(server, access=Access(ca=tmp_path / "a" / "ca.pem")) as source,
    ):
        source.size(PART)
        server.orders = ["behind"]
        for place in (100, 200, 300):
            assert source.read(PART, place, size) == data[place : place + size]
        assert server.connections == 2


@pytest.mark.parametrize("order", ["drip", "endless hints"])
def test_a_server_that_is_never_silent_is_held_to_the_deadline(server: HostileServer, order: str) -> None:
    server.always = order
    with source_at(server, replace(HASTY, deadline_s=0.3)) as source, pytest.raises(Unavailable):
        source.size(PART)


@pytest.mark.parametrize("order", REFUSED)
def test_an_answer_to_something_else_is_refused_at_once(server: HostileServer, order: str) -> None:
    with source_at(server) as source:
        source.size(PART)
        server.orders = [order]
        with pytest.raises(Unavailable, match=PART):
            source.read(PART, 0, 9000)
    assert len(server.seen) == 2


@pytest.mark.parametrize("order", [*REFUSED, "other range"])
def test_a_wrong_first_answer_is_refused_too(server: HostileServer, order: str) -> None:
    server.orders = [order]
    with source_at(server) as source, pytest.raises(Unavailable):
        source.size(PART)


@pytest.mark.parametrize("order", ["other tag", "no tag"])
def test_a_part_that_changes_between_two_reads_is_refused(server: HostileServer, order: str) -> None:
    with source_at(server) as source:
        source.read(PART, 0, 10)
        server.orders = [order]
        with pytest.raises(Unavailable, match="changed while it was read"):
            source.read(PART, 10, 10)


def test_the_server_is_asked_to_refuse_for_us_what_changed(server: HostileServer) -> None:
    with source_at(server) as source:
        source.read(PART, 0, 10)
        server.tags[PART] = '"two"'
        with pytest.raises(Unavailable, match="changed while it was read"):
            source.read(PART, 10, 10)
    assert [request.headers.get("if-match") for request in server.seen] == [None, '"one"', '"one"']


def test_a_part_that_grows_between_two_reads_is_refused(server: HostileServer) -> None:
    with source_at(server) as source:
        source.read(PART, 0, 10)
        server.parts = {PART: BODY + b"x"}
        with pytest.raises(Unavailable, match="changed while it was read"):
            source.read(PART, 10, 10)


def test_no_more_memory_is_taken_than_was_asked_for(server: HostileServer) -> None:
    """A server that says a part has a tebibyte, or sends without end, costs nothing."""
    server.parts = {PART: b"x"}
    with source_at(server) as source:
        assert source.read(PART, 0, 1 << 40) == b"x"
        server.always = "endless header"
        tracemalloc.start()
        with pytest.raises(Unavailable):
            source.read_into(PART, 0, memoryview(bytearray(10)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_manifest_too_large_is_refused_before_it_is_fetched(server: HostileServer) -> None:
    server.parts = {MANIFEST_NAME: bytes(MAX_MANIFEST_BYTES + 1)}
    with source_at(server) as source:
        with pytest.raises(Malformed, match="want at most"):
            read_parts(source)
        assert source.traffic.body_bytes == 1


def test_altered_bytes_are_refused_whoever_sent_them() -> None:
    model = small_model()
    blob = model.blob("weights/one.bin")
    body = model.source.parts[blob]
    altered = model.edit(blob, bytes([body[0] ^ 1]) + body[1:])
    with HostileServer(altered.source.parts) as server, pytest.raises(Rejected, match="digest_mismatch"):
        open_at(server.url, altered)


def test_a_cut_blob_is_truncated_before_anything_is_read_of_it() -> None:
    model = small_model()
    blob = model.blob("weights/one.bin")
    cut = model.edit(blob, model.source.parts[blob][:-1])
    with HostileServer(cut.source.parts) as server:
        with pytest.raises(Rejected, match="truncated"):
            open_at(server.url, cut)
        assert sum(request.name == blob for request in server.seen) == 1


def test_reads_end_where_the_part_ends(server: HostileServer) -> None:
    with source_at(server) as source:
        assert source.read(PART, len(BODY) - 3, 100) == BODY[-3:]
        assert source.read(PART, len(BODY), 100) == b""
        assert source.read(PART, len(BODY) + 7, 100) == b""


def test_names_that_are_no_parts_are_never_asked_for(server: HostileServer) -> None:
    with source_at(server) as source, pytest.raises(UsageError):
        source.size("../secret")
    assert server.seen == []


def test_tls_is_verified_by_the_authority_named_and_no_other(tmp_path: Path) -> None:
    served, trusted, other = tls_files(tmp_path / "a"), tmp_path / "a" / "ca.pem", tmp_path / "b" / "ca.pem"
    tls_files(tmp_path / "b")
    with HostileServer({PART: BODY}, tls=served) as server:
        with source_at(server, access=Access(ca=trusted)) as source:
            assert source.read(PART, 0, 100) == BODY[:100]
        for access in (Access(ca=other), Access()):
            with source_at(server, access=access) as source, pytest.raises(Unavailable, match="tls failed"):
                source.size(PART)
    (tmp_path / "none.pem").write_text("no certificate\n")
    for place in ("none.pem", "nowhere.pem"):
        with pytest.raises(UsageError, match=place):
            HttpSource(parse_place("https://host"), access=Access(ca=tmp_path / place))  # type: ignore[arg-type]


def test_a_token_goes_to_its_server_and_into_no_message_or_repr(server: HostileServer, tmp_path: Path) -> None:
    server.token = "a-secret-token"  # noqa: S105 - no secret
    place = tmp_path / "token"
    place.touch(mode=0o600)
    place.write_text("a-secret-token\n")
    for access in (
        read_access(ca=None, token_file=place, environment={"CLOISTER_MODEL_TOKEN": "another"}),
        read_access(ca=None, token_file=None, environment={"CLOISTER_MODEL_TOKEN": "a-secret-token"}),
        read_access(ca=None, token_file=None, environment={"CLOISTER_MODEL_TOKEN_FILE": str(place)}),
    ):
        with source_at(server, access=access) as source:
            assert source.read(PART, 0, 10) == BODY[:10]
        assert "secret" not in repr(access)
    with source_at(server) as source, pytest.raises(Unavailable, match="not let in"):
        source.size(PART)


def test_a_token_travels_in_no_clear_and_rests_in_no_open_file(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="in the clear") as caught,
        open_source("http://models.example/m", access=Access(token="a-secret-token")),  # noqa: S106
    ):
        pass
    assert "a-secret" not in str(caught.value)
    place = tmp_path / "token"
    place.write_text("a-secret-token\n")
    place.chmod(0o644)
    with pytest.raises(UsageError, match="0600"):
        read_access(ca=None, token_file=place, environment={})
    place.chmod(0o600)
    for bad in ("two\nlines\n", "", "x" * 9000):
        place.write_text(bad)
        with pytest.raises(UsageError, match="token"):
            read_access(ca=None, token_file=place, environment={})


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@host/m",
        "https://s3cret@host/m",
        "https://host/m?X-Amz-Signature=s3cret",
        "https://host/m#s3cret",
        "https://host/m?",
        "ftp://host/m",
        "file:///etc/s3cret",
        "https:///s3cret",
        "https://host:0/s3cret",
        "https://host:99999/s3cret",
        "https://host/../s3cret",
        "https://host/a/%2e%2e/s3cret",
        "https://host//s3cret",
        "https://host/a\\s3cret",
        "https://host/a s3cret",
        "https://host/s3cret\n",
        "https://ho\u0455t/s3cret",
        "https://host/" + "s3cret" * 1000,
    ],
)
def test_a_url_that_is_unfit_or_holds_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_place(url)
    assert "s3cret" not in str(caught.value) + str(caught.value.hint)
    assert caught.value.__cause__ is None


def test_places_are_paths_or_urls(tmp_path: Path) -> None:
    assert parse_place("m", base=tmp_path) == tmp_path / "m"
    assert str(parse_place("HTTPS://Host:8443/a/b/")) == "https://host:8443/a/b"
    assert str(parse_place("http://[::1]:80")) == "http://[::1]:80"


def test_a_folder_is_a_source_too(tmp_path: Path) -> None:
    with open_source(tmp_path) as source:
        assert isinstance(source, DirectorySource)
    with open_source(str(tmp_path)) as source:
        assert isinstance(source, DirectSource)
