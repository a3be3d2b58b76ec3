"""The list of bad evidence (1 to 20), walked by number through HTTP: its status, its code, and no token."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from verifier_kit import SIMULATED, Clock, Desk, desk, evidence_json

import vendor_kit
from cloister.attest.amd.products import Product
from cloister.attest.binding import ServiceBinding
from cloister.attest.devices import dump_devices
from cloister.attest.endorse import Given
from cloister.attest.endorse.names import amd_crl
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence, TeeKind
from cloister.attest.rules import AtLeast
from cloister.errors import Malformed
from cloister.testing.simulated import SimulatedAttester
from cloister.testing.vendors.amd import AmdAttester, Chip, SyntheticAmd
from cloister.testing.vendors.aws import NitroVendor
from cloister.testing.vendors.intel import SyntheticIntel
from cloister.verifier.requests import MAX_BODY_BYTES, parse_attest
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NONCE = b"a nonce of our own"
REAL = ("snp", "tdx", "nitro", "sgx")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    rates = "requests_per_minute = 1000000\nall_per_minute = 1000000\nchallenges_per_minute = 1000000"
    with desk(
        tmp_path_factory.mktemp("home"), SIMULATED, *REAL, service=rates, clock=Clock(stands_at=vendor_kit.NOW)
    ) as found:
        yield found


def said(served: Desk, body: Any, path: str = "/v1/verify") -> tuple[int, str]:
    """Return status and code; whatever is refused gets no token and no hint of what is inside of us."""
    answer = served.post(path, body)
    assert answer.status_code != 500, answer.text
    if answer.status_code == 200:
        return 200, "ok"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "token" not in answer.json()
    assert "Traceback" not in answer.text
    return answer.status_code, answer.json()["code"]


def evidence(served: Desk, name: str, nonce: bytes = NONCE) -> Evidence:
    side = served.sides[name]
    return side.collect(ServiceBinding(nonce=nonce).field(side.scheme.report_data_bytes))


def body_of(item: Evidence, policy: str | Policy, nonce: bytes = NONCE, **more: Any) -> dict[str, Any]:
    named = policy if isinstance(policy, str) else policy.to_json()
    return {"evidence": evidence_json(item), "nonce": dump_b64u(nonce), "policy": named, **more}


def test_1_an_empty_body(served: Desk) -> None:
    for body in (b"", b"{}", b"null", b"[]", b'{"evidence":{}}'):
        assert said(served, body) == (400, "malformed")
    empty = body_of(Evidence(tee=TeeKind("snp"), payload=b""), "snp")
    assert said(served, empty) == (400, "malformed")


def test_2_ten_megabytes_are_refused_before_anything_is_parsed(served: Desk) -> None:
    assert said(served, b"[" * (10 << 20)) == (413, "payload_too_large")
    parts = (b"[" * (1 << 20) for _ in range(10))  # no length is told: refused while it grows
    answer = served.http.post(served.url + "/v1/verify", content=parts, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    large = json.dumps({"evidence": {"payload": "A" * (MAX_BODY_BYTES - 200), "tee": "snp"}}).encode()
    assert said(served, large) == (400, "malformed")


@pytest.mark.parametrize("name", [SIMULATED, *REAL])
def test_3_random_bytes(served: Desk, name: str) -> None:
    noise = bytes(range(256)) * 4
    status, code = said(served, body_of(Evidence(tee=served.sides[name].tee, payload=noise), name))
    assert (status, code) == (400, "malformed")


@pytest.mark.parametrize("name", [SIMULATED, *REAL])
def test_4_truncated_anywhere(served: Desk, name: str) -> None:
    whole = evidence(served, name)
    step = max(1, len(whole.payload) // 60)
    for size in [*range(0, len(whole.payload), step), len(whole.payload) - 1]:
        status, _ = said(served, body_of(replace(whole, payload=whole.payload[:size]), name))
        assert status in {400, 403}, size


@pytest.mark.parametrize("length", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x10\x00\x00"])
def test_5_lengths_that_point_anywhere(served: Desk, length: bytes) -> None:
    whole = evidence(served, "snp").payload
    at = whole.index(b"report") + len(b"report")
    wrong = whole[:at] + length + whole[at + 4 :]
    assert said(served, body_of(Evidence(tee=TeeKind("snp"), payload=wrong), "snp")) == (400, "malformed")


def test_6_an_unknown_tee_or_version(served: Desk) -> None:
    whole = evidence(served, SIMULATED)
    for tee in ("z80", "SNP", "snp "):
        status, code = said(served, body_of(Evidence(tee=TeeKind(tee), payload=whole.payload), SIMULATED))
        assert (status, code) == (422, "unsupported_tee")
    for version in (0, 2, 255):
        payload = whole.payload[:13] + bytes((version,)) + whole.payload[14:]
        status, code = said(served, body_of(replace(whole, payload=payload), SIMULATED))
        assert (status, code) == (422, "unsupported_format")


def test_7_one_bit_anywhere(served: Desk) -> None:
    whole = evidence(served, SIMULATED)
    for at in range(len(whole.payload)):
        payload = bytearray(whole.payload)
        payload[at] ^= 1 << at % 8
        status, code = said(served, body_of(replace(whole, payload=bytes(payload)), SIMULATED))
        assert status in {400, 403, 422}, at
        assert code != "ok"


@pytest.mark.parametrize("name", [SIMULATED, *REAL])
def test_8_evidence_over_another_nonce(served: Desk, name: str) -> None:
    other = body_of(evidence(served, name, b"another nonce"), name)
    assert said(served, other) == (403, "report_data_mismatch")


def test_9_the_same_nonce_twice(served: Desk) -> None:
    body = served.asked()
    assert said(served, body, "/v1/attest") == (200, "ok")
    assert said(served, body, "/v1/attest") == (403, "nonce_used")
    refused = served.asked(policy="snp")  # used up by what was refused too
    assert said(served, refused, "/v1/attest")[0] == 403
    assert said(served, {**refused, "policy": SIMULATED}, "/v1/attest") == (403, "nonce_used")


def test_10_a_nonce_that_is_61_seconds_old(served: Desk) -> None:
    body, soon = served.asked(), served.asked()
    try:
        served.clock.shift = timedelta(seconds=59)
        assert said(served, soon, "/v1/attest") == (200, "ok")
        served.clock.shift = timedelta(seconds=61)
        assert said(served, body, "/v1/attest") == (403, "nonce_expired")
    finally:
        served.clock.shift = timedelta(0)


def test_a_nonce_that_nobody_gave(served: Desk) -> None:
    honest = served.nonce()
    for nonce in (bytes(32), honest[:-1] + bytes((honest[-1] ^ 1,)), b"\xff" * 5 + honest[5:]):
        body = body_of(evidence(served, SIMULATED, nonce), SIMULATED, nonce)
        assert said(served, body, "/v1/attest") == (403, "nonce_unknown")


def test_11_a_key_that_was_replaced(served: Desk) -> None:
    body = served.asked(data=b"my public key")
    assert said(served, {**body, "data": dump_b64u(b"my public kez")}, "/v1/attest") == (403, "report_data_mismatch")


@pytest.mark.parametrize("data", ["A", "AB", "====", "A+/=", "é", 5, None, ["AA"]])
def test_12_data_out_of_form(served: Desk, data: Any) -> None:
    assert said(served, {**served.asked(nonce=NONCE), "data": data}) == (400, "malformed")


def test_13_and_14_debug_and_migration(served: Desk) -> None:
    side = served.sides[SIMULATED]
    for flag in ("debug", "migratable"):
        attester = SimulatedAttester(vendor_kit.simulated_root(), vendor_kit.MANIFEST, b"c" * 32, **{flag: True})
        item = attester.collect(ServiceBinding(nonce=NONCE).field(side.scheme.report_data_bytes))
        status, code = said(served, body_of(item, SIMULATED))
        assert (status, code) == (403, "debug_enabled" if flag == "debug" else "migratable")


def test_15_a_tcb_below_the_minimum(served: Desk) -> None:
    side = served.sides["snp"]
    rules = {**side.policy.tees[side.tee].rules, "tcb.ucode": AtLeast(255)}
    policy = Policy(version=1, tees={side.tee: TeePolicy(rules)})
    assert said(served, body_of(evidence(served, "snp"), policy)) == (403, "tcb_out_of_date")


def test_16_collateral_of_yesterday_decides_nothing(served: Desk) -> None:
    """What ended is refused or not to be had; in neither case is there a result."""
    body = body_of(evidence(served, "tdx"), "tdx")
    try:
        served.clock.shift = timedelta(days=400)
        status, code = said(served, body)
    finally:
        served.clock.shift = timedelta(0)
    assert (status, code) in {(503, "unavailable"), (403, "collateral_expired"), (403, "cert_expired")}


def test_16_collateral_that_nobody_has_is_no_verdict(served: Desk) -> None:
    names = served.sides["tdx"].endorsements
    with endorsed(served, dict.fromkeys(names)):
        answer = served.post("/v1/verify", body_of(evidence(served, "tdx"), "tdx", refusal="token"))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


@contextlib.contextmanager
def endorsed(served: Desk, changes: Mapping[str, bytes | None]) -> Iterator[None]:
    """Let the service's source have other objects for the length of a block, or none of a name."""
    service, all_of_them = served.opened.service, {}
    for side in served.sides.values():
        all_of_them |= side.endorsements
    changed = {**all_of_them, **changes}
    kept, service._endorsements = (
        service._endorsements,
        Given({name: data for name, data in changed.items() if data is not None}),
    )
    try:
        yield
    finally:
        service._endorsements = kept


def test_17_a_chain_under_a_root_of_ones_own(served: Desk) -> None:
    stranger = type(vendor_kit.simulated_root()).generate()
    attester = SimulatedAttester(stranger, vendor_kit.MANIFEST, b"c" * 32)
    item = attester.collect(ServiceBinding(nonce=NONCE).field(64))
    assert said(served, body_of(item, SIMULATED)) == (403, "untrusted_root")
    strangers = {
        "nitro": NitroVendor.generate().attester(lambda: vendor_kit.NOW),
        "sgx": SyntheticIntel.generate().sgx_attester(None),
        "snp": AmdAttester(Chip(SyntheticAmd.generate(Product.MILAN), number=7), None),
        "tdx": SyntheticIntel.generate().tdx_attester(None, None),
    }
    for name, evil in strangers.items():
        item = evil.collect(ServiceBinding(nonce=NONCE).field(evil.report_data_bytes))
        status, code = said(served, body_of(item, name))
        assert status == 403, name
        assert code in {"untrusted_root", "chain_invalid"}


def test_18_an_authority_that_its_vendor_took_back(served: Desk) -> None:
    """The lists that count are the service's own: an attester that brings none, or an older one, hides nothing."""
    vendor = vendor_kit.chip().vendor
    name = amd_crl(vendor.product.key)
    body = body_of(evidence(served, "snp"), "snp")
    with endorsed(served, {name: vendor.crl(vendor.ask.x509.serial_number)}):
        assert said(served, body) == (403, "revoked")
    with endorsed(served, {name: None}):
        assert said(served, body) == (503, "unavailable")
    assert said(served, body) == (200, "ok")


def test_19_a_gpu_of_another_day(tmp_path: Any) -> None:
    gpu, cpu = vendor_kit.side("nvidia-gpu"), vendor_kit.side("snp")
    policy = Policy(version=1, tees={**cpu.policy.tees, **gpu.policy.tees})
    with desk(tmp_path, "snp", "nvidia-gpu", clock=Clock(stands_at=vendor_kit.NOW)) as found:
        old = gpu.collect(ServiceBinding(nonce=b"of another day").device_field(gpu.scheme.report_data_bytes))
        whole = ServiceBinding(nonce=NONCE, devices=dump_devices([old]))
        body = body_of(cpu.collect(whole.field(64)), policy, devices=[evidence_json(old)])
        assert said(found, body) == (403, "report_data_mismatch")
        twice = gpu.collect(ServiceBinding(nonce=NONCE).device_field(gpu.scheme.report_data_bytes))
        whole = ServiceBinding(nonce=NONCE, devices=dump_devices([twice, twice]))
        body = body_of(cpu.collect(whole.field(64)), policy, devices=[evidence_json(twice)] * 2)
        assert said(found, body) == (403, "composite_mismatch")
        alone = body_of(gpu.collect(ServiceBinding(nonce=NONCE).field(gpu.scheme.report_data_bytes)), policy)
        assert said(found, alone) == (403, "composite_mismatch")


def test_20_simulated_evidence_against_a_production_table(tmp_path: Any) -> None:
    """The code path is not there: the table of a production build has no such scheme, whatever the policy says."""
    from verifier_kit import running, write_home  # noqa: PLC0415 - the same

    from cloister.attest.schemes import production_schemes  # noqa: PLC0415 - of this test alone
    from cloister.attest.verifier import Verifier  # noqa: PLC0415 - the same
    from cloister.testing.ports import free_port  # noqa: PLC0415 - the same
    from cloister.verifier.home import open_home  # noqa: PLC0415 - the same

    side, url = vendor_kit.side(SIMULATED), f"http://127.0.0.1:{free_port()}"
    write_home(tmp_path, {SIMULATED: side}, issuer=url)
    service = open_home(tmp_path, make_verifier=lambda site: Verifier(production_schemes(site)))
    with running(service, tmp_path):
        found = Desk(url=url, home=tmp_path, clock=Clock(), opened=service, sides={SIMULATED: side})
        with found.http:
            assert said(found, found.asked(), "/v1/attest") == (422, "unsupported_tee")


BAD = [
    {"evidence": None},
    {"evidence": []},
    {"evidence": {"tee": "snp"}},
    {"evidence": {"tee": "snp", "payload": "AA", "more": 1}},
    {"evidence": {"tee": "", "payload": "AA"}},
    {"evidence": {"tee": "é", "payload": "AA"}},
    {"nonce": ""},
    {"nonce": "AAAA"},
    {"nonce": "A" * 100},
    {"nonce": 7},
    {"binding": "none"},
    {"detail": "everything"},
    {"refusal": True},
    {"audience": ""},
    {"audience": "x" * 513},
    {"audience": "a\nb"},
    {"audience": ["a"]},
    {"policy": "../x"},
    {"policy": ""},
    {"policy": 5},
    {"policy": {}},
    {"policy": {"v": 1, "version": 1, "tees": {}}},
    {"devices": {}},
    {"devices": [5]},
    {"devices": [{"tee": "nvidia-gpu", "payload": "A" * 100_000}]},
    {"devices": [{"tee": "nvidia-gpu", "payload": "AA"}] * 25},
    {"unknown": 1},
]


@pytest.mark.parametrize("change", BAD, ids=json.dumps)
def test_a_request_out_of_form_is_malformed(served: Desk, change: dict[str, Any]) -> None:
    assert said(served, {**served.asked(nonce=NONCE), **change}) == (400, "malformed")


@pytest.mark.parametrize(
    "body",
    [
        b'{"nonce":"AA","nonce":"AA"}',
        b"[" * 100_000,
        b'{"x":' * 5000,
        b'{"a":1e400}',
        b'{"a":NaN}',
        b'{"a":-0}',
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"1" * 1_000_000 + b"}",
    ],
)
def test_61_and_62_json_that_two_readers_would_read_differently(served: Desk, body: bytes) -> None:
    assert said(served, body) == (400, "malformed")


def test_a_body_of_another_kind(served: Desk) -> None:
    answer = served.post("/v1/verify", served.asked(nonce=NONCE), **{"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "media_type_unsupported")


def test_a_policy_that_is_not_there(served: Desk) -> None:
    assert said(served, {**served.asked(nonce=NONCE), "policy": "not-there"}) == (422, "policy_unknown")


def test_other_paths_and_verbs(served: Desk) -> None:
    for path in ("/v1", "/v1/attest/", "/V1/attest", "/v1/%61ttest/..", "//v1/attest", "/v2/attest"):
        answer = served.http.post(served.url + path)
        assert answer.status_code in {404, 405}, path
    assert served.http.put(served.url + "/v1/attest").status_code == 405
    assert served.get("/v1/attest").status_code == 405


def test_base64_with_a_second_spelling(served: Desk) -> None:
    payload = evidence(served, SIMULATED).payload
    for text in (base64.b64encode(payload).decode(), dump_b64u(payload) + "=", dump_b64u(payload) + "\n"):
        body = {**body_of(evidence(served, SIMULATED), SIMULATED), "evidence": {"payload": text, "tee": SIMULATED}}
        if text != dump_b64u(payload):
            assert said(served, body) == (400, "malformed")


def test_mutated_requests_are_taken_or_malformed(served: Desk) -> None:
    from mutations import mutated  # noqa: PLC0415 - of this test alone

    honest = json.dumps({**served.asked(nonce=bytes(32)), "policy": SIMULATED}).encode()
    parse_attest(honest)
    for data in mutated(honest, count=10_000):
        try:
            parse_attest(data)
        except Malformed:
            continue


def test_a_nonce_is_spent_once_whoever_comes_at_the_same_time(served: Desk) -> None:
    import concurrent.futures  # noqa: PLC0415 - of this test alone

    body = served.asked()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: said(served, body, "/v1/attest"), range(16))]
    assert answers.count((200, "ok")) == 1
    assert set(answers) == {(200, "ok"), (403, "nonce_used")}
