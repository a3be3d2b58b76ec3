"""A real registry, and one that plays tricks: push once, overwrite nothing, give credentials to nobody else."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import oras.client
import pytest
from hostile_server import HostileServer
from registry_kit import Relay, Tricks, start_registry, write_login
from sealed_kit import PLAIN, SEGMENT, noise, seal
from stores_kit import HASTY, parts_of, small_model, tls_files, with_envelope, write_folder

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.sealed.directory import DirectorySource
from cloister.sealed.manifest import MANIFEST_NAME, model_digest
from cloister.sealed.open import RandomAccess, open_model
from cloister.stores import Access, oci_upload, open_source, open_target, parse_place, pull, push
from cloister.stores.oci_artifact import Artifact, Blob, parse_reference
from cloister.stores.oci_login import parse_challenge
from cloister.stores.registry import Registry
from mutations import mutated

if TYPE_CHECKING:
    from sealed_kit import Sealed

    from cloister.stores import ModelUrl, Pushed

NUMBERS = itertools.count()
CASES = json.loads((Path(__file__).parent.parent / "vectors" / "stores" / "artifacts.json").read_text())["cases"]


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the credentials of whoever runs this out of it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


def fresh(host: str) -> str:
    return f"oci://{host}/models/digits-{next(NUMBERS)}:v1"


def url_of(text: str) -> ModelUrl:
    place = parse_place(text)
    assert not isinstance(place, Path)
    return place


def pushed(folder: Path, url: str, **how: bool) -> Pushed:
    with open_target(url, patience=HASTY) as target:
        return push(DirectorySource(folder), target, **how)


def opened(url: str, model: Sealed) -> dict[str, bytes]:
    with (
        open_source(url, patience=HASTY) as source,
        open_model(source, model.verified(), model.dek) as found,
    ):
        return {path: found.read(path, 0, len(data)) for path, data in model.plain.items()}


def test_a_model_goes_into_a_registry_and_opens_from_there(registry: str, tmp_path: Path) -> None:
    model, url = with_envelope(small_model()), fresh(registry)
    result = pushed(write_folder(tmp_path / "m", model), url)
    assert result.written == len(model.source.parts)
    assert opened(url, model) == model.plain
    with open_source(url) as source:
        assert pull(source, tmp_path / "again").envelope
    assert parts_of(tmp_path / "again") == model.source.parts


def test_another_program_fetches_what_we_pushed(registry: str, tmp_path: Path) -> None:
    """ORAS, which knows nothing of us, gets the package as files of their names."""
    model, url = small_model(), fresh(registry)
    pushed(write_folder(tmp_path / "m", model), url)
    client = oras.client.OrasClient(insecure=True)
    client.pull(target=url.removeprefix("oci://"), outdir=str(tmp_path / "theirs"))
    assert parts_of(tmp_path / "theirs") == model.source.parts
    manifest = client.get_manifest(url.removeprefix("oci://"))
    assert manifest["config"]["digest"] == f"sha256:{model_digest(model.source.parts[MANIFEST_NAME])}"


def test_one_file_of_a_big_model_costs_its_own_segments_only(registry: str, tmp_path: Path) -> None:
    model, url = seal({"a.bin": noise(40 * PLAIN), "b.bin": noise(40 * PLAIN, 2)}), fresh(registry)
    pushed(write_folder(tmp_path / "m", model), url)
    with Registry(url_of(url)) as source, RandomAccess(source, model.verified(), model.dek, "b.bin") as access:
        before = source.traffic.body_bytes
        assert access.read(3 * PLAIN + 10, 2 * PLAIN) == model.plain["b.bin"][3 * PLAIN + 10 : 5 * PLAIN + 10]
        assert source.traffic.body_bytes - before == 3 * SEGMENT


def test_a_push_again_writes_nothing_and_another_tag_shares_the_blobs(registry: str, tmp_path: Path) -> None:
    model, url = with_envelope(small_model()), fresh(registry)
    folder = write_folder(tmp_path / "m", model)
    pushed(folder, url)
    assert pushed(folder, url).written == 0
    other = url.removesuffix(":v1") + ":v2"
    assert pushed(folder, other).written == 0
    assert opened(other, model) == model.plain


def test_an_artifact_is_found_by_its_digest_too(registry: str, tmp_path: Path) -> None:
    model, url = small_model(), fresh(registry)
    pushed(write_folder(tmp_path / "m", model), url)
    parts = {
        name: Blob(digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
        for name, data in model.source.parts.items()
    }
    digest = hashlib.sha256(Artifact(parts=parts).dump()).hexdigest()
    by_digest = f"{url.removesuffix(':v1')}@sha256:{digest}"
    assert opened(by_digest, model) == model.plain
    with pytest.raises(UsageError, match="want a tag"):
        pushed(tmp_path / "m", by_digest)


def test_another_model_under_its_tag_is_never_overwritten(registry: str, tmp_path: Path) -> None:
    first, second, url = small_model(), small_model(), fresh(registry)
    pushed(write_folder(tmp_path / "one", first), url)
    with pytest.raises(UsageError, match="nothing is overwritten"):
        pushed(write_folder(tmp_path / "two", second), url)
    assert opened(url, first) == first.plain


def test_an_image_under_its_tag_is_never_overwritten(registry: str, tmp_path: Path) -> None:
    url = fresh(registry)
    (tmp_path / "file").write_text("x")
    oras.client.OrasClient(insecure=True).push(
        target=url.removeprefix("oci://"), files=[str(tmp_path / "file")], disable_path_validation=True
    )
    with pytest.raises(UsageError, match="nothing is overwritten"):
        pushed(write_folder(tmp_path / "m", small_model()), url)
    with open_source(url) as source, pytest.raises(Malformed, match="oci manifest"):
        pull(source, tmp_path / "again")


def test_an_envelope_is_replaced_only_where_somebody_says_so(registry: str, tmp_path: Path) -> None:
    model, url = small_model(), fresh(registry)
    pushed(write_folder(tmp_path / "one", with_envelope(model)), url)
    rotated = write_folder(tmp_path / "two", with_envelope(model, 2))
    with pytest.raises(UsageError, match="nothing is overwritten"):
        pushed(rotated, url)
    assert pushed(rotated, url, replace_envelope=True).written == 1
    with open_source(url) as source:
        pull(source, tmp_path / "again")
    assert parts_of(tmp_path / "again") == parts_of(rotated)


def test_a_package_that_rotted_is_not_published(registry: str, tmp_path: Path) -> None:
    model, url = small_model(), fresh(registry)
    body = model.source.parts[model.blob("weights/one.bin")]
    folder = write_folder(tmp_path / "m", model.edit(model.blob("weights/one.bin"), body[:-1] + bytes([body[-1] ^ 1])))
    with pytest.raises(Rejected, match="digest_mismatch"):
        pushed(folder, url)
    with open_source(url, patience=HASTY) as source, pytest.raises(Unavailable, match="not there"):
        source.size(MANIFEST_NAME)


@pytest.mark.parametrize("cuts", [[15_000], [30_000, 45_000], [4000, 60_000, 90_000]])
def test_a_push_over_connections_that_break_arrives_whole(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: list[int]
) -> None:
    monkeypatch.setattr(oci_upload, "CHUNK_BYTES", 3 * SEGMENT)
    model, url = seal({"a.bin": noise(20 * PLAIN)}), fresh(registry)
    folder = write_folder(tmp_path / "m", model)
    with Relay(int(registry.rsplit(":", 1)[1]), list(cuts)) as relay:
        pushed(folder, url.replace(registry, relay.host))
        assert relay.done == len(cuts)
    assert opened(url, model) == model.plain


def test_basic_credentials_come_from_the_file_of_container_tools(
    closed_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, url = small_model(), fresh(closed_registry)
    folder = write_folder(tmp_path / "m", model)
    with pytest.raises(Unavailable, match="not let in"):
        pushed(folder, url)
    monkeypatch.setenv("DOCKER_CONFIG", str(write_login(tmp_path / "login", closed_registry)))
    pushed(folder, url)
    assert opened(url, model) == model.plain
    monkeypatch.setenv("DOCKER_CONFIG", str(write_login(tmp_path / "wrong", closed_registry, ("somebody", "wrong"))))
    with open_source(url, patience=HASTY) as source, pytest.raises(Unavailable, match="not let in") as caught:
        source.size(MANIFEST_NAME)
    assert "wrong" not in str(caught.value)


def test_tls_is_spoken_where_an_authority_is_named(tmp_path: Path) -> None:
    tls_files(tmp_path / "tls")
    (tmp_path / "registry").mkdir()
    running = start_registry(tmp_path / "registry", certificate=tmp_path / "tls" / "server.pem")
    host = next(running)
    try:
        model, url, access = small_model(), fresh(host), Access(ca=tmp_path / "tls" / "ca.pem")
        with open_target(url, access=access) as target:
            push(DirectorySource(write_folder(tmp_path / "m", model)), target)
        with open_source(url, access=access) as source:
            pull(source, tmp_path / "again")
        tls_files(tmp_path / "other")
        access = Access(ca=tmp_path / "other" / "ca.pem")
        with open_source(url, access=access, patience=HASTY) as source, pytest.raises(Unavailable, match="tls failed"):
            source.size(MANIFEST_NAME)
    finally:
        running.close()
    assert parts_of(tmp_path / "again") == model.source.parts


@pytest.mark.parametrize("text", ["", "[]", '{"auths": []}', '{"auths": {"HOST": {"auth": "s3cret"}}}', "{" * 100000])
def test_a_file_that_holds_no_credentials_is_refused_and_not_repeated(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    place = tmp_path / "auth.json"
    place.touch(mode=0o600)
    place.write_text(text.replace("HOST", registry))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(place))
    with pytest.raises(UsageError) as caught:
        Registry(url_of(fresh(registry)))
    assert "s3cret" not in str(caught.value)
    write_login(tmp_path / "open", registry)
    (tmp_path / "open" / "config.json").chmod(0o644)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "open" / "config.json"))
    with pytest.raises(UsageError, match="0600"):
        Registry(url_of(fresh(registry)))


def tricks_of(model: Sealed) -> tuple[Tricks, dict[str, str]]:
    """Return a registry that holds the artifact of ``model``, and the path of each part's blob."""
    tricks = Tricks()
    parts = {
        name: Blob(digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
        for name, data in model.source.parts.items()
    }
    tricks.answers["/v2/m/manifests/v1"] = (200, {}, Artifact(parts=parts).dump())
    return tricks, {name: f"/v2/m/blobs/{blob.digest}" for name, blob in parts.items()}


def test_a_token_is_fetched_where_the_registry_says_and_goes_to_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model()
    tricks, paths = tricks_of(model)
    with HostileServer(model.source.parts) as storage, tricks.running() as host:
        for name, path in paths.items():
            tricks.answers[path] = (307, {"Location": f"{storage.url}/{name}?signed=yes"}, b"")
        tricks.token = "a-fetched-token"  # noqa: S105 - no secret
        tricks.challenge = f'Bearer realm="http://{host}/token",service="here",scope="repository:m:pull"'
        tricks.answers["/token"] = (200, {}, b'{"token": "a-fetched-token"}')
        monkeypatch.setenv("DOCKER_CONFIG", str(write_login(tmp_path / "login", host)))
        assert opened(f"oci://{host}/m:v1", model) == model.plain
    asked = [(path, credential) for path, credential in tricks.seen if path.startswith("/token")]
    assert len(asked) == 1
    assert "service=here&scope=repository%3Am%3Apull" in asked[0][0]
    assert (asked[0][1] or "").startswith("Basic ")
    assert all("authorization" not in request.headers for request in storage.seen)


@pytest.mark.parametrize(
    "realm",
    [
        "https://elsewhere.example/token",
        "http://elsewhere.example/token",
        "http://user@127.0.0.1/token",
        "file:///etc/passwd",
        "",
        "http://[/token",
    ],
)
def test_credentials_are_not_sent_to_where_a_registry_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, realm: str
) -> None:
    tricks, _ = tricks_of(small_model())
    tricks.token, tricks.challenge = "t", f'Bearer realm="{realm}"'
    with tricks.running() as host:
        monkeypatch.setenv("DOCKER_CONFIG", str(write_login(tmp_path / "login", host)))
        with open_source(f"oci://{host}/m:v1", patience=HASTY) as source, pytest.raises(Unavailable):
            source.size(MANIFEST_NAME)
        assert [credential for _, credential in tricks.seen] == [None]


@pytest.mark.parametrize(
    "location",
    ["http://elsewhere.example/blob", "ftp://127.0.0.1/blob", "//host/blob", "/blob", "", "https://me:x@host/b"],
)
def test_a_blob_is_not_followed_to_anywhere(location: str) -> None:
    model = small_model()
    tricks, paths = tricks_of(model)
    for path in paths.values():
        tricks.answers[path] = (307, {"Location": location}, b"")
    with (
        tricks.running() as host,
        open_source(f"oci://{host}/m:v1", patience=HASTY) as source,
        pytest.raises(Unavailable, match="elsewhere"),
    ):
        source.size(MANIFEST_NAME)


def test_a_blob_is_followed_once() -> None:
    model = small_model()
    tricks, paths = tricks_of(model)
    with tricks.running() as host:
        for path in paths.values():
            tricks.answers[path] = (307, {"Location": f"http://{host}{path}"}, b"")
        with open_source(f"oci://{host}/m:v1", patience=HASTY) as source, pytest.raises(Unavailable, match="redirect"):
            source.size(MANIFEST_NAME)


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"x" * (2 << 20)), (200, b"{}"), (302, b""), (401, b""), (403, b""), (200, b"\xff")]
)
def test_an_artifact_that_is_none_is_refused(status: int, body: bytes) -> None:
    tricks = Tricks()
    tricks.answers["/v2/m/manifests/v1"] = (status, {"Location": "https://elsewhere.example/"}, body)
    with (
        tricks.running() as host,
        open_source(f"oci://{host}/m:v1", patience=HASTY) as source,
        pytest.raises((Malformed, Unavailable)),
    ):
        source.size(MANIFEST_NAME)


def test_another_artifact_than_the_digest_names_is_refused() -> None:
    tricks, _ = tricks_of(small_model())
    asked = "sha256:" + "0" * 64
    tricks.answers[f"/v2/m/manifests/{asked}"] = tricks.answers["/v2/m/manifests/v1"]
    with (
        tricks.running() as host,
        open_source(f"oci://{host}/m@{asked}", patience=HASTY) as source,
        pytest.raises(Unavailable, match="another artifact"),
    ):
        source.size(MANIFEST_NAME)


def test_an_upload_that_a_registry_wants_elsewhere_is_not_followed() -> None:
    for location in ("http://elsewhere.example/upload", "upload", "", "//elsewhere.example/upload"):
        upload = oci_upload.Upload(None, url_of("http://127.0.0.1:1"), HASTY, "part")  # type: ignore[arg-type]

        class Head:
            """Says where to go."""

            place = location

            def header(self, _: str) -> str:
                return self.place

        with pytest.raises(Unavailable, match="elsewhere"):
            upload._follow(Head())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "oci://host/m",
        "oci://host/M:v1",
        "oci://host/m:",
        "oci://host/m:" + "v" * 129,
        "oci://host/m@sha256:0",
        "oci://host/m@sha512:" + "0" * 64,
        "oci://host/m:v1@sha256:" + "0" * 64,
        "oci://host/:v1",
        "oci://host/-m:v1",
        "oci://host" + "/m" * 17 + ":v1",
    ],
)
def test_what_names_no_artifact_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(url_of(url))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vectors_of_artifacts(case: dict[str, str]) -> None:
    data = case["artifact"].encode()
    if case["expect"] == "ok":
        assert Artifact.parse(data).model == case["model"]
    else:
        with pytest.raises(Malformed):
            Artifact.parse(data)


def test_ten_thousand_mutations_of_an_artifact_raise_malformed_or_parse() -> None:
    honest = next(case for case in CASES if case["expect"] == "ok")["artifact"].encode()
    for data in mutated(honest, count=10_000):
        try:
            Artifact.parse(data)
        except Malformed:
            continue


@pytest.mark.parametrize(
    "text", ["", "Basic", "Bearer realm", 'Bearer realm="a', 'Bearer realm="a",realm="b"', "Bearer " + "a" * 5000]
)
def test_challenges_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_challenge(text)


def test_a_challenge_is_read() -> None:
    assert parse_challenge('Basic realm="x y"') == ("basic", {"realm": "x y"})
    assert parse_challenge('BEARER realm="https://h/t", service="s"') == (
        "bearer",
        {"realm": "https://h/t", "service": "s"},
    )
