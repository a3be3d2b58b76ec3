"""The online fetcher against a real HTTPS server that redirects, stalls, lies and overflows: never a wrong object."""

from __future__ import annotations

import json
import os
import ssl
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from cloister.attest.amd.tcb import Tcb
from cloister.attest.endorse import fetch as fetch_module
from cloister.attest.endorse.fetch import FolderEndorsements, https_client
from cloister.attest.endorse.names import amd_ca, amd_crl, amd_vcek, amd_vlek_ca, intel_collateral, jwks, nvidia_rim
from cloister.attest.endorse.sources import HOSTS as VENDORS
from cloister.attest.endorse.sources import KEYS_LIFE, Sources
from cloister.attest.nvidia.collateral import ocsp_name
from cloister.attest.nvidia.devicechain import DeviceChain
from cloister.errors import Unavailable
from cloister.testing.vendors.amd import Chip
from cloister.testing.vendors.amd.authority import Issue
from cloister.testing.vendors.nvidia.issuing import answer
from endorse_kit import (
    AMD,
    HOSTS,
    INTEL,
    NOW,
    OCSP,
    RIM,
    TOKENS,
    Reply,
    VendorServices,
    amd,
    intel,
    key_set,
    nvidia,
    online,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.attest.endorse.fetch import OnlineEndorsements

TDX = intel_collateral("tdx", "00806f050000", "platform")
CRL = amd_crl("milan")
CRL_PATH = "/vcek/v1/Milan/crl"


@pytest.fixture
def services() -> Iterator[VendorServices]:
    with VendorServices() as running:
        running.serve({TDX: intel().published(tdx=True).dump(), **amd().endorsements})
        yield running


@pytest.fixture
def source(services: VendorServices, tmp_path: Path) -> OnlineEndorsements:
    return online(services, tmp_path)


def refused(source: OnlineEndorsements, name: str, why: str) -> None:
    with pytest.raises(Unavailable) as caught:
        source.fetch((name,), NOW)
    assert name in caught.value.message
    assert why in caught.value.message


# what it gets


def test_collateral_of_four_answers_becomes_one_object_that_the_scheme_accepts(source: OnlineEndorsements) -> None:
    attester = intel().tdx_attester()
    found = source.fetch((TDX,), NOW)
    evidence = attester.collect(bytes(64))
    assert intel().tdx_scheme().needs(evidence) == (TDX,)
    intel().tdx_scheme().verify(evidence, found, NOW)


def test_amds_authorities_and_lists_are_fetched(source: OnlineEndorsements) -> None:
    names = (amd_ca("milan"), amd_vlek_ca("milan"), CRL)
    assert dict(source.fetch(names, NOW)) == {name: amd().endorsements[name] for name in names}


def test_a_chips_certificate_is_asked_for_by_its_levels(services: VendorServices, source: OnlineEndorsements) -> None:
    chip = Chip(amd())
    tcb = Tcb.make(amd().product, chip.levels)
    name = amd_vcek("milan", chip.hwid.hex(), tcb.raw.hex())
    query = "&".join(f"{part}SPL={tcb.parts[part]:02d}" for part in ("bl", "tee", "snp", "ucode"))
    leaf = chip.leaf().der
    services.put(AMD, f"/vcek/v1/Milan/{chip.hwid.hex()}?{query}", Reply(leaf))
    assert source.fetch((name,), NOW)[name] == leaf


def test_a_manifest_is_unpacked_and_its_digest_checked(services: VendorServices, source: OnlineEndorsements) -> None:
    rim = nvidia().driver_rim(nvidia().device())
    name = nvidia_rim("NV_GPU_DRIVER_GH100_1.2")
    services.serve({name: rim})
    assert source.fetch((name,), NOW)[name] == rim


def test_an_ocsp_answer_is_asked_for_with_a_nonce_and_signed_by_the_issuer(
    services: VendorServices, source: OnlineEndorsements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module.os, "urandom", lambda size: b"n" * size)
    device = nvidia().device()
    chain = DeviceChain.parse(device.chain_pem).certificates
    name = ocsp_name(device.issuer.certificate)
    end = NOW + timedelta(days=1)
    given = {"this_update": NOW - timedelta(hours=1), "next_update": end}
    stale = answer(device.issuer.certificate, nvidia().provisioner, nonce=b"o" * 32, **given)
    services.put(OCSP, "/", Reply(stale))
    with pytest.raises(Unavailable, match="nonce_mismatch"):
        source.fetch((name,), NOW, chain)
    fresh = answer(device.issuer.certificate, nvidia().provisioner, nonce=b"n" * 32, **given)
    services.put(OCSP, "/", Reply(fresh))
    assert source.fetch((name,), NOW, chain)[name] == fresh
    assert services.asked[-1][2][:1] == b"0"
    with pytest.raises(Unavailable, match="did not come along"):
        source.fetch((ocsp_name(nvidia().rim_authority.certificate),), NOW, chain)


def test_the_keys_of_a_named_token_service_and_of_no_other(
    services: VendorServices, source: OnlineEndorsements
) -> None:
    services.serve({jwks(TOKENS): key_set()})
    assert source.fetch((jwks(TOKENS),), NOW)
    refused(source, jwks("elsewhere.example"), "no setting names this token service")
    assert services.count("elsewhere.example") == 0


# what it does not ask


def test_only_https_and_only_hosts_of_the_closed_list() -> None:
    names = [TDX, CRL, amd_ca("genoa"), amd_vlek_ca("milan"), nvidia_rim("X"), amd_vcek("turin", "00" * 8, "00" * 8)]
    sources = Sources(("tokens.example", "shared.eus.attest.azure.net", "other.example/keys"))
    assert sources.hosts == VENDORS | {"tokens.example", "shared.eus.attest.azure.net", "other.example"}
    for name in (*names, jwks("other.example")):
        for query in sources.queries(fetch_module.parse_name(name)):
            assert query.host in sources.hosts
            assert query.url.startswith(f"https://{query.host}/")


def test_a_query_to_another_host_is_not_sent(services: VendorServices, tmp_path: Path) -> None:
    class Narrow(Sources):
        @property
        def hosts(self) -> frozenset[str]:
            return frozenset()

    refused(online(services, tmp_path, sources=Narrow()), CRL, "not a host to ask")
    assert not services.asked


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "amd/milan/crl/../../x", "http://a/b", "", "amd/Milan/crl", "x" * 999]
)
def test_a_name_out_of_form_is_looked_up_nowhere(
    services: VendorServices, source: OnlineEndorsements, name: str
) -> None:
    with pytest.raises(Unavailable):
        source.fetch((name,), NOW)
    assert not services.asked


def test_more_names_than_any_evidence_has_are_refused(source: OnlineEndorsements) -> None:
    with pytest.raises(Unavailable, match="names"):
        source.fetch([f"nvidia/rim/{number}" for number in range(300)], NOW)


def test_no_proxy_of_the_environment_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with https_client() as plain, https_client(environment_proxies=True) as told:
        assert (len(plain._mounts), len(told._mounts) > 0) == (0, True)


# T15: who stands between, and who stands in for


@pytest.mark.parametrize("location", [f"https://{AMD}/other", "https://elsewhere.example/crl", "http://127.0.0.1/"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_wherever_it_leads(
    services: VendorServices, source: OnlineEndorsements, location: str, status: int
) -> None:
    services.put(AMD, CRL_PATH, Reply(amd().crl(), status=status, headers={"location": location}))
    refused(source, CRL, "redirect")
    assert [host for host, _, _ in services.asked] == [AMD]


def test_an_answer_that_is_too_long_is_cut_off(services: VendorServices, source: OnlineEndorsements) -> None:
    services.put(AMD, "/vcek/v1/Milan/cert_chain", Reply(b"x" * (1 << 20)))
    refused(source, amd_ca("milan"), "more than")


def test_an_answer_that_says_it_is_short_and_is_not_is_cut_off(
    services: VendorServices, source: OnlineEndorsements
) -> None:
    services.put(AMD, "/vcek/v1/Milan/cert_chain", Reply(b"x" * (1 << 20), headers={"content-length": "10"}))
    refused(source, amd_ca("milan"), "not to be used")


def test_an_encoding_that_was_not_asked_for_is_refused(services: VendorServices, source: OnlineEndorsements) -> None:
    services.put(AMD, CRL_PATH, Reply(amd().crl(), headers={"content-encoding": "gzip"}))
    refused(source, CRL, "encoding")


def test_a_stalled_host_ends_in_time(services: VendorServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "_READ_S", 0.1)
    monkeypatch.setattr(fetch_module, "_DEADLINE_S", 0.5)
    services.put(AMD, CRL_PATH, Reply(amd().crl(), stall_s=0.4))
    refused(online(services, tmp_path), CRL, "timeout")


def test_an_answer_that_drips_ends_in_time(
    services: VendorServices, source: OnlineEndorsements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "_DEADLINE_S", 0.2)
    services.put(AMD, CRL_PATH, Reply(amd().crl()[:40], drip_s=0.05))
    refused(source, CRL, "not whole within")


def test_a_host_without_the_right_certificate_gets_no_request(services: VendorServices, tmp_path: Path) -> None:
    client = https_client(transport=services.transport(trusted=False))
    refused(online(services, tmp_path, client=client), CRL, "connecterror")
    assert not services.asked


def test_a_host_that_shows_another_hosts_certificate_gets_no_request(services: VendorServices, tmp_path: Path) -> None:
    assert "stranger.example" not in HOSTS
    source = online(services, tmp_path, sources=Sources(("stranger.example",)))
    refused(source, jwks("stranger.example"), "connecterror")
    assert not services.asked


@pytest.mark.parametrize("body", [b"", b"<html>", b"\x30\x03\x02\x01\x00", b"{}", b"\xff" * 4096])
@pytest.mark.parametrize(
    "place",
    [
        (AMD, CRL_PATH, CRL),
        (INTEL, "/tdx/certification/v4/tcb?fmspc=00806f050000", TDX),
        (INTEL, "/tdx/certification/v4/qe/identity", TDX),
        (RIM, "/v1/rim/X", nvidia_rim("X")),
        (TOKENS, "/.well-known/jwks.json", jwks(TOKENS)),
    ],
)
def test_wrong_content_is_refused_and_not_kept(
    services: VendorServices, tmp_path: Path, place: tuple[str, str, str], body: bytes
) -> None:
    host, path, name = place
    services.put(host, path, Reply(body))
    refused(online(services, tmp_path), name, "not to be used")
    assert not [item for item in tmp_path.rglob("*") if item.is_file()]


def test_a_list_of_a_stranger_with_the_vendors_name_is_refused(
    services: VendorServices, source: OnlineEndorsements
) -> None:
    services.put(AMD, CRL_PATH, Reply(amd().crl(issue=Issue(signer=amd()._keys[1]))))
    refused(source, CRL, "collateral_signature_invalid")


def test_tcb_info_with_one_digit_changed_is_refused(services: VendorServices, source: OnlineEndorsements) -> None:
    path = "/tdx/certification/v4/tcb?fmspc=00806f050000"
    (genuine,) = services.answers[INTEL, path]
    services.put(INTEL, path, replace(genuine, body=genuine.body.replace(b'"pcesvn":11', b'"pcesvn":10')))
    refused(source, TDX, "collateral_signature_invalid")


def test_collateral_of_another_platform_or_tee_is_refused(services: VendorServices, tmp_path: Path) -> None:
    other = intel_collateral("tdx", "00906ed50000", "platform")
    services.serve({other: intel().published(tdx=True).dump()})
    refused(online(services, tmp_path), other, "collateral_mismatch")
    sgx = intel_collateral("sgx", "00806f050000", "platform")
    services.serve({sgx: intel().published(tdx=True).dump()})
    refused(online(services, tmp_path), sgx, "collateral_mismatch")
    processor = intel_collateral("tdx", "00806f050000", "processor")
    services.serve({processor: intel().published(tdx=True).dump()})
    refused(online(services, tmp_path), processor, "collateral_mismatch")


def test_a_certificate_of_another_chip_is_refused(services: VendorServices, source: OnlineEndorsements) -> None:
    chip = Chip(amd())
    tcb = Tcb.make(amd().product, chip.levels)
    name = amd_vcek("milan", "ab" * 64, tcb.raw.hex())
    levels = "&".join(f"{part}SPL={level:02d}" for part, level in tcb.parts.items())
    services.put(AMD, f"/vcek/v1/Milan/{'ab' * 64}?{levels}", Reply(chip.leaf().der))
    refused(source, name, "collateral_mismatch")


def test_expired_and_future_collateral_is_refused(services: VendorServices, tmp_path: Path) -> None:
    week = timedelta(days=7)
    for start, end, code in (
        (NOW - 2 * week, NOW - week, "collateral_expired"),
        (NOW + week, NOW + 2 * week, "collateral_not_yet_valid"),
    ):
        services.put(AMD, CRL_PATH, Reply(amd().crl(issue=Issue(not_before=start, not_after=end))))
        refused(online(services, tmp_path), CRL, code)


def test_older_collateral_than_was_seen_is_refused_though_it_is_signed_and_in_time(
    services: VendorServices, tmp_path: Path
) -> None:
    day = timedelta(days=1)
    newer = amd().crl(7, issue=Issue(not_before=NOW - day, not_after=NOW + day))
    older = amd().crl(issue=Issue(not_before=NOW - 9 * day, not_after=NOW + 90 * day))
    services.put(AMD, CRL_PATH, Reply(newer))
    assert online(services, tmp_path).fetch((CRL,), NOW)[CRL] == newer
    services.put(AMD, CRL_PATH, Reply(older))
    with pytest.raises(Unavailable, match="older than what was seen before"):
        online(services, tmp_path).fetch((CRL,), NOW + 2 * day)


def test_one_older_text_among_newer_ones_is_refused(services: VendorServices, tmp_path: Path) -> None:
    day = timedelta(days=1)
    fresh = replace(intel(), issued=NOW - day)
    services.serve({TDX: fresh.published(tdx=True).dump()})
    online(services, tmp_path).fetch((TDX,), NOW)
    mixed = json.loads(fresh.published(tdx=True).dump())
    old = json.loads(intel().published(tdx=True).dump())
    for member in ("tcb_info", "tcb_info_signature"):
        mixed[member] = old[member]
    services.serve({TDX: json.dumps(mixed).encode()})
    (tmp_path / "copy").mkdir()
    source = online(services, tmp_path)
    with pytest.raises(Unavailable, match="older than what was seen before"):
        source._download(fetch_module.parse_name(TDX), NOW, (), fetch_module.time.monotonic() + 9)


# when a host is busy, and what is kept


def test_a_busy_host_is_asked_again_a_few_times(services: VendorServices, tmp_path: Path) -> None:
    waits: list[float] = []
    source = online(services, tmp_path, sleep=waits.append)
    services.put(AMD, CRL_PATH, Reply(status=429, headers={"retry-after": "2"}), Reply(status=503), Reply(amd().crl()))
    assert source.fetch((CRL,), NOW)
    assert waits == [2.0, 1.0]


def test_a_host_that_stays_busy_is_left_alone(services: VendorServices, tmp_path: Path) -> None:
    waits: list[float] = []
    source = online(services, tmp_path, sleep=waits.append)
    services.put(AMD, CRL_PATH, Reply(status=429, headers={"retry-after": "99999"}))
    refused(source, CRL, "status 429")
    assert len(services.asked) == 4
    assert all(wait <= 8 for wait in waits)
    refused(source, CRL, "status 429")
    assert len(services.asked) == 4, "a refusal is not asked for again at once"


def test_what_is_not_there_is_asked_for_once(services: VendorServices, source: OnlineEndorsements) -> None:
    refused(source, nvidia_rim("NOBODY"), "status 404")
    assert services.count(RIM) == 1


def test_a_kept_object_is_used_until_its_own_end_and_then_refused(services: VendorServices, tmp_path: Path) -> None:
    end = NOW + timedelta(hours=2)
    services.put(AMD, CRL_PATH, Reply(amd().crl(issue=Issue(not_before=NOW, not_after=end))), Reply(status=503))
    source = online(services, tmp_path)
    for moment in (NOW, NOW + timedelta(hours=1), end):
        assert source.fetch((CRL,), moment)
        assert online(services, tmp_path).fetch((CRL,), moment), "from the disk as well"
    asked = len(services.asked)
    assert asked == 1
    with pytest.raises(Unavailable, match="status 503"):
        source.fetch((CRL,), end + timedelta(seconds=1))


def test_keys_are_kept_for_a_day(services: VendorServices, tmp_path: Path) -> None:
    services.serve({jwks(TOKENS): key_set()})
    first = online(services, tmp_path).fetch((jwks(TOKENS),), NOW)
    assert online(services, tmp_path).fetch((jwks(TOKENS),), NOW + KEYS_LIFE) == first
    services.put(TOKENS, "/.well-known/jwks.json", Reply(status=404))
    with pytest.raises(Unavailable):
        online(services, tmp_path).fetch((jwks(TOKENS),), NOW + KEYS_LIFE + timedelta(seconds=1))


def test_a_kept_file_that_somebody_changed_counts_for_nothing(services: VendorServices, tmp_path: Path) -> None:
    online(services, tmp_path).fetch((CRL,), NOW)
    path = tmp_path / "amd" / "milan" / "crl"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    online(services, tmp_path).fetch((CRL,), NOW)
    assert len(services.asked) == 2
    assert path.read_bytes() == amd().endorsements[CRL]
    assert path.stat().st_mode & 0o077 == 0


def test_a_disk_that_is_full_costs_the_cache_and_not_the_answer(
    services: VendorServices, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(FolderEndorsements):
        def write(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    source = online(services, tmp_path, cache=Full(tmp_path))
    assert source.fetch((CRL,), NOW)
    assert "No space left" in caplog.text


def test_many_askers_cause_one_question(services: VendorServices, source: OnlineEndorsements) -> None:
    services.put(AMD, CRL_PATH, Reply(amd().crl(), stall_s=0.1))
    found: list[bytes] = []
    askers = [threading.Thread(target=lambda: found.append(source.fetch((CRL,), NOW)[CRL])) for _ in range(6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(found) == 6
    assert services.count(AMD) == 1


def test_a_made_up_certificate_does_not_silence_the_real_one_of_its_number(
    services: VendorServices, source: OnlineEndorsements
) -> None:
    device = nvidia().device()
    genuine = DeviceChain.parse(device.chain_pem).certificates
    fake = nvidia().rim_root.authority("a stranger", serial=device.issuer.certificate.x509.serial_number)
    name = ocsp_name(device.issuer.certificate)
    services.put(OCSP, "/", Reply(status=400))
    with pytest.raises(Unavailable):
        source.fetch((name,), NOW, (fake.certificate, nvidia().rim_root.certificate))
    asked = services.count(OCSP)
    with pytest.raises(Unavailable):
        source.fetch((name,), NOW, genuine)
    assert services.count(OCSP) > asked


# a folder of files


def test_a_folder_gives_what_lies_in_it_in_its_window(tmp_path: Path) -> None:
    folder = FolderEndorsements(tmp_path)
    with pytest.raises(Unavailable, match="not in"):
        folder.fetch((CRL,), NOW)
    folder.write(CRL, amd().crl(issue=Issue(not_before=NOW, not_after=NOW + timedelta(days=1))), NOW)
    assert folder.fetch((CRL,), NOW)
    with pytest.raises(Unavailable, match="good from"):
        folder.fetch((CRL,), NOW + timedelta(days=2))


def test_a_folder_refuses_what_is_no_such_object_or_too_long(tmp_path: Path) -> None:
    folder = FolderEndorsements(tmp_path)
    folder.write(CRL, b"noise", NOW)
    with pytest.raises(Unavailable, match="crl"):
        folder.fetch((CRL,), NOW)
    folder.write(CRL, bytes(3 << 20), NOW)
    with pytest.raises(Unavailable, match="more than"):
        folder.fetch((CRL,), NOW)
    with pytest.raises(Unavailable, match="no name"):
        folder.fetch(("../x",), NOW)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    folder = FolderEndorsements(tmp_path)
    folder.write(CRL, amd().crl(), NOW)
    folder.path(CRL).chmod(0)
    with pytest.raises(Unavailable):
        folder.fetch((CRL,), NOW)


def test_nothing_half_written_is_left_where_a_write_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fetch_module.os, "replace", broken)
    with pytest.raises(OSError, match="Input"):
        FolderEndorsements(tmp_path).write(CRL, amd().crl(), NOW)
    assert not [item for item in tmp_path.rglob("*") if item.is_file()]


def test_the_system_authorities_are_asked_about_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    genuine = ssl.create_default_context

    def watched(*args: object, **kwargs: object) -> ssl.SSLContext:
        seen.append((args, kwargs))
        return genuine(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(fetch_module.ssl, "create_default_context", watched)
    https_client().close()
    assert seen == [((), {})]
