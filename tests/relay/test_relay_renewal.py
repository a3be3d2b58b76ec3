"""A relay's own renewal: when it asks, what it takes, and what it leaves as it is."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from mtls_kit import Door, Identity, csr_text, forge, mtls_bench, new_key

from cloister.errors import UsageError
from cloister.relay import renewal
from cloister.relay.gateway import renewal_of
from cloister.relay.metrics import RelayMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from custodian_kit import Bench

    from cloister.relay.renewal import Renewal


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with mtls_bench(tmp_path_factory.mktemp("custodian")) as bench, Door(bench).listening() as made:
        yield made


def _renewal(folder: Path, door: Door, *, renewable: bool = True) -> Renewal:
    """Return what renews a relay's certificate that lies in ``folder``."""
    key = new_key()
    body = {"csr": csr_text(key), "kind": "relay", "name": "relay-1", "renewable": renewable, "life_s": 3600}
    bench: Bench = door.bench
    answer = bench.client.post("/v1/certificates", json=body, headers=bench.admin).json()
    own = Identity(certificate=x509.load_pem_x509_certificate(answer["certificate"].encode()), key=key)
    for name, data in (("relay.pem", own.pem), ("peers.pem", b"before"), ("ca.pem", door.ca_pem.encode())):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(data)
    made = renewal_of(
        f"https://localhost:{door.port}", ca=folder / "ca.pem", certificate=folder / "relay.pem", key=None,
        authorities=folder / "peers.pem",
    )  # fmt: skip
    assert made is not None
    return made


def _now(seconds: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _codes(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [item.get("code", item["event"]) for item in lines if item["event"].startswith("certificate_")]


def test_in_the_last_half_of_its_life_it_is_replaced_with_its_key_and_the_authorities(
    tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _renewal(tmp_path, door)
    before = made.certificate.read_bytes()
    asyncio.run(made.tick(_now(1700)))
    assert made.certificate.read_bytes() == before, "the first half is not its end"
    asyncio.run(made.tick(_now(1801)))
    after = made.certificate.read_bytes()
    leaf = x509.load_pem_x509_certificate(after)
    assert leaf.serial_number != x509.load_pem_x509_certificate(before).serial_number
    assert load_pem_private_key(after, password=None).public_key() == leaf.public_key()
    assert made.certificate.stat().st_mode & 0o777 == 0o600
    assert made.authorities.read_text() == door.bench.service.certificates.pem
    assert _codes(capsys) == ["certificate_renewed"]


def test_what_a_try_that_was_cut_short_left_behind_is_in_nobodys_way(
    tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _renewal(tmp_path, door)
    before = made.certificate.read_bytes()
    for name in ("relay.pem.new", "peers.pem.new"):
        (tmp_path / name).write_bytes(b"half of it")
    asyncio.run(made.tick(_now(1801)))
    assert _codes(capsys) == ["certificate_renewed"]
    assert made.certificate.read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "peers.pem", "relay.pem"]


def test_a_no_of_the_custodian_leaves_everything_as_it_is_and_is_asked_again_a_minute_later(
    tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _renewal(tmp_path, door, renewable=False)
    before = made.certificate.read_bytes()
    for seconds in (1801, 1850, 1862):
        asyncio.run(made.tick(_now(seconds)))
    assert (made.certificate.read_bytes(), made.authorities.read_bytes()) == (before, b"before")
    assert _codes(capsys) == ["refused", "refused"]


def test_another_custodian_than_the_pinned_one_is_asked_nothing(
    tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _renewal(tmp_path, door)
    other = forge(None, common_name="another", ca=True, uses=()).certificate.public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(other)
    before = made.certificate.read_bytes()
    asyncio.run(made.tick(_now(1801)))
    assert made.certificate.read_bytes() == before
    assert _codes(capsys) == ["unavailable"]


@pytest.mark.parametrize("data", [b"", b"no certificate", None])
def test_a_file_that_is_no_use_is_said_and_ends_nothing(
    tmp_path: Path, door: Door, data: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _renewal(tmp_path, door)
    if data is None:
        made.certificate.unlink()
    else:
        made.certificate.write_bytes(data)
    asyncio.run(made.tick(_now(1801)))
    assert len(_codes(capsys)) == 1


def broken(*_args: Any, **_kwargs: Any) -> Any:
    msg = "what nobody foresaw"
    raise ZeroDivisionError(msg)


def test_what_nobody_foresaw_is_written_by_its_class_and_tried_again_a_minute_later(
    tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _renewal(tmp_path, door)
    before = made.certificate.read_bytes()
    with monkeypatch.context() as bug:
        bug.setattr(renewal.Renewal, "_asked", broken)
        results = [asyncio.run(made.tick(_now(seconds))) for seconds in (1801, 1850, 1862)]
    assert results == ["internal_error", None, "internal_error"]
    assert (made.certificate.read_bytes(), made.authorities.read_bytes()) == (before, b"before")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if line["event"] == "internal_error"]
    assert [(line["route"], line["error"]) for line in told] == [("renewal", "ZeroDivisionError")] * 2
    assert all(line.keys() == {"at", "event", "route", "error"} for line in told)
    assert asyncio.run(made.tick(_now(1925))) == "renewed"


def test_the_task_outlives_what_nobody_foresaw_and_every_try_is_counted(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, counts = _renewal(tmp_path, door), RelayMetrics()
    monkeypatch.setattr(renewal, "read_private", broken)
    monkeypatch.setattr(renewal, "_LOOK_S", 0.01)
    monkeypatch.setattr(renewal, "_PAUSE", timedelta(0))

    async def renewing() -> None:
        task = asyncio.create_task(made.until_cancelled(counts))
        while counts.value("cloister_relay_renewals_total", "internal_error") < 3:
            await asyncio.sleep(0.01)
            assert not task.done()
        task.cancel()

    asyncio.run(asyncio.wait_for(renewing(), 60))


@pytest.mark.parametrize(
    "changes",
    [
        {"custodian": "http://custodian.example"},
        {"custodian": "https://token@custodian.example"},
        {"custodian": "https://custodian.example:port"},
        {"custodian": "https://custodian.example:70000"},
        {"custodian": "https://[custodian"},
        {"custodian": "https://custodian.example/a b"},
        {"certificate": None},
        {"authorities": None},
        {"key": "relay.key"},
    ],
)
def test_options_that_cannot_be_renewed_by_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"certificate": "relay.pem", "authorities": "peers.pem", "key": None}
    given = {name: None if value is None else tmp_path / value for name, value in (usual | changes).items()
             if name != "custodian"}  # fmt: skip
    with pytest.raises(UsageError, match="--custodian"):
        renewal_of(changes.get("custodian", "https://custodian.example"), ca=None, **given)


def test_without_a_custodian_nothing_is_renewed() -> None:
    assert renewal_of(None, ca=None, certificate=None, key=None, authorities=None) is None
