"""Settings, loan file, measurement, log, metrics, hardening, TLS: the small rooms."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from enclave_parties import START, FakeClock
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

import cloister
from cloister.crypto.sign import SigningKey
from cloister.enclave.config import EnclaveConfig, Limits, Profile, Tls, load_config
from cloister.enclave.custodian_link import CustodianLink
from cloister.enclave.hardening import Measure, demand_unswappable
from cloister.enclave.loanfile import LoanFile, read_loan_file
from cloister.enclave.logs import Event, EventLog
from cloister.enclave.measure import measure_software, measure_tree
from cloister.enclave.metrics import METRICS, Metrics
from cloister.enclave.served import wants_prepacking
from cloister.enclave.tls import prepare_tls
from cloister.enclave.web.listener import server_context
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.journal import LibraryHandler
from cloister.lending.terms import LoanId
from cloister.telemetry.exposition import prometheus_text
from cloister.wire import dump_json
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

LOAN: dict[str, Any] = {
    "v": 1,
    "loan": "loan-abcdefghijklmnop",
    "custodian_url": "https://custodian.example:8443",
    "custodian_key": SigningKey(bytes(32)).verify_key.dump(),
    "ca_pem": None,
    "token": "borrower-token-0123456789",
}


def config(tmp_path: Path, text: str, env: dict[str, str] | None = None, **overrides: Any) -> EnclaveConfig:
    path = tmp_path / "enclave.toml"
    path.write_text(text)
    return load_config(path, env=env or {}, overrides=overrides)


SMALLEST = 'loan = "loan.json"\nmodels = ["m"]\n'


def test_the_smallest_settings_have_safe_defaults(tmp_path: Path) -> None:
    got = config(tmp_path, SMALLEST)
    assert (got.loan, got.models) == (tmp_path / "loan.json", (tmp_path / "m",))
    assert (got.host, got.port, got.tls, got.profile) == ("127.0.0.1", 8440, Tls.OFF, Profile.DEVELOPMENT)


def test_later_sources_win(tmp_path: Path) -> None:
    env = {"CLOISTER_ENCLAVE_LISTEN": "127.0.0.1:1", "CLOISTER_ENCLAVE_ENGINE_THREADS": "3", "OTHER": "x"}
    got = config(tmp_path, SMALLEST + 'listen = "127.0.0.1:9"\n', env, listen="[::1]:2", service=None)
    assert (got.host, got.port, got.engine_threads) == ("::1", 2, 3)
    env = {"CLOISTER_ENCLAVE_MODELS": "a:b", "CLOISTER_ENCLAVE_BEHIND_PROXY": "true"}
    got = config(tmp_path, SMALLEST, env)
    assert (got.models, got.behind_proxy) == ((tmp_path / "a", tmp_path / "b"), True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "loan"),
        ('loan = "l"\n', "models"),
        ('loan = "l"\nmodels = []\n', "models"),
        (SMALLEST + "unknown = 1\n", "unknown"),
        (SMALLEST + "[limits]\nunknown = 1\n", "unknown"),
        (SMALLEST + 'loan = "twice"\n', "toml"),
        (SMALLEST + "engine_threads = -1\n", "engine_threads"),
        (SMALLEST + "engine_threads = true\n", "engine_threads"),
        (SMALLEST + 'engine_threads = "1"\n', "engine_threads"),
        (SMALLEST + "engine_threads = 2026-01-01\n", "engine_threads"),
        (SMALLEST + "engine_threads = 1.0\n", "engine_threads"),
        (SMALLEST + "[limits]\nbody_timeout_s = 0\n", "body_timeout_s"),
        (SMALLEST + "batching = true\n", "batching"),
        (SMALLEST + "[batching.m]\nrows = 1\n", "rows"),
        (SMALLEST + "[batching.m]\nwindow_us = 1000001\n", "window_us"),
        (SMALLEST + "[batching.m]\nsize = 8\n", "size"),
        (SMALLEST + 'listen = "8440"\n', "listen"),
        (SMALLEST + 'listen = "127.0.0.1:99999"\n', "listen"),
        (SMALLEST + 'listen = ":1"\n', "listen"),
        (SMALLEST + 'tls = "on"\n', "tls"),
        (SMALLEST + 'tls = "files"\n', "tls"),
        (SMALLEST + 'tls_key = "k"\n', "tls"),
        (SMALLEST + 'profile = "prod"\n', "profile"),
        (SMALLEST + 'relays = "all"\n', "relays"),
        (SMALLEST + 'tls = "generated"\nrelays = "require"\n', "relays"),
        (SMALLEST + 'listener_certificate = "issued"\n', "listener_certificate"),
        (SMALLEST + 'tls = "files"\ntls_key = "k"\ntls_certificate = "c"\nlistener_certificate = "issued"\n', "issued"),
        (SMALLEST + 'tls = "generated"\nairgapped = true\nmedia = "m"\nlistener_certificate = "issued"\n', "issued"),
        (SMALLEST + 'profile = "production"\nlisten = "0.0.0.0:1"\n', "without tls"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, text: str, named: str) -> None:
    """Bad inputs 107 to 112."""
    with pytest.raises(UsageError, match=named):
        config(tmp_path, text)


def test_production_takes_an_open_address_with_tls_or_behind_a_proxy(tmp_path: Path) -> None:
    text = SMALLEST + 'profile = "production"\nlisten = "0.0.0.0:1"\n'
    assert config(tmp_path, text + "behind_proxy = true\n").behind_proxy
    assert config(tmp_path, text + 'tls = "generated"\n').tls is Tls.GENERATED


@pytest.mark.parametrize("variable", ["NO_SUCH", "LIMITS", "BEHIND_PROXY", "ENGINE_WORKERS"])
def test_bad_variables_are_named(tmp_path: Path, variable: str) -> None:
    with pytest.raises(UsageError, match=variable):
        config(tmp_path, SMALLEST, {f"CLOISTER_ENCLAVE_{variable}": "maybe"})


def test_a_missing_or_binary_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml", env={})
    (tmp_path / "bin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="utf-8"):
        load_config(tmp_path / "bin.toml", env={})


def test_mutated_settings_raise_usage_errors_only(tmp_path: Path) -> None:
    text = (
        SMALLEST + 'listen = "127.0.0.1:1"\ntls = "off"\nengine_threads = 2\n[limits]\nmax_exchanges = 3\n'
    ).encode()
    path = tmp_path / "enclave.toml"
    for damaged in mutated(text, count=2000, seed=3):
        path.write_bytes(damaged)
        try:
            load_config(path, env={})
        except UsageError:
            continue


def test_what_changes_the_enclave_is_measured_and_places_are_not(tmp_path: Path) -> None:
    """T10."""
    base = config(tmp_path, SMALLEST)
    same = [config(tmp_path, SMALLEST + line) for line in ('listen = "127.0.0.1:1"\n', 'service = "s"\n')]
    others = [
        config(tmp_path, SMALLEST + line)
        for line in (
            "engine_threads = 2\n",
            "require_unswappable = true\n",
            'profile = "production"\n',
            'tls = "generated"\n',
            "[batching.m]\n",
            "[batching.m]\nwindow_us = 77\n",
            *(f"[limits]\n{name} = 77\n" for name in Limits.__dataclass_fields__),
        )
    ]
    digest = measure_software(base).digest
    assert {measure_software(one).digest for one in same} == {digest}
    digests = {measure_software(one).digest for one in others}
    assert len(digests) == len(others)
    assert digest not in digests


def test_the_code_digest_covers_every_python_file_its_name_and_its_bytes(tmp_path: Path) -> None:
    def tree(files: dict[str, bytes]) -> str:
        folder = tmp_path / os.urandom(4).hex()
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return measure_tree(folder)

    base = tree({"a.py": b"1", "b/c.py": b"2"})
    assert tree({"b/c.py": b"2", "a.py": b"1", "notes.txt": b"x", "__pycache__/a.pyc": b"y"}) == base
    for other in (
        {"a.py": b"2", "b/c.py": b"1"},
        {"a.py": b"1", "c.py": b"2"},
        {"a.py": b"1"},
        {"a.py": b"1", "b/c.py": b"2", "d.py": b""},
    ):
        assert tree(other) != base
    assert measure_tree(Path(cloister.__file__).parent) != base


def test_a_loan_file_is_read_and_hides_its_token(tmp_path: Path) -> None:
    path = tmp_path / "loan.json"
    path.touch(mode=0o600)
    path.write_bytes(dump_json(LOAN))
    loan = read_loan_file(path)
    assert (loan.loan, loan.custodian_url) == (LoanId("loan-abcdefghijklmnop"), "https://custodian.example:8443")
    assert "borrower-token" not in repr(loan)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_loan_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Bad input 98."""
    path = tmp_path / "loan.json"
    path.write_bytes(dump_json(LOAN))
    path.chmod(mode)
    with pytest.raises(UsageError, match="0600"):
        read_loan_file(path)


def test_a_loan_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Bad input 95: missing, a folder, a pipe."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("missing", "pipe", "folder"):
        with pytest.raises(UsageError):
            read_loan_file(tmp_path / name)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("v", 2),
        ("loan", "loan-1"),
        ("custodian_url", "http://custodian.example"),
        ("custodian_url", "ftp://custodian.example"),
        ("custodian_url", "https://user:pw@custodian.example"),
        ("custodian_url", "https://custodian.example/?q=1"),
        ("custodian_url", "https://[bad"),
        ("custodian_url", "https://x:99999"),
        ("custodian_url", "file:///etc/passwd"),
        ("custodian_key", "AAAA"),
        ("ca_pem", ""),
        ("ca_pem", 1),
        ("ca_pem", "\N{SNOWMAN}" * 20),
        ("token", "short"),
        ("token", "no header holds a \N{SNOWMAN}"),
        ("token", "with\nnewline-0123456789"),
        ("extra", 1),
    ],
)
def test_a_bad_member_of_a_loan_file_is_named(member: str, value: object) -> None:
    with pytest.raises(Malformed, match=member):
        LoanFile.parse(dump_json({**LOAN, member: value}))


def test_plain_http_is_for_loopback_only() -> None:
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        assert LoanFile.parse(dump_json({**LOAN, "custodian_url": url})).custodian_url == url


def test_mutated_loan_files_are_malformed() -> None:
    for damaged in mutated(dump_json(LOAN), seed=4):
        try:
            LoanFile.parse(damaged)
        except Malformed:
            continue


def test_the_log_takes_no_free_text() -> None:
    """T62, T84, T85."""
    stream = io.StringIO()
    log = EventLog(lambda: START, stream)
    log.write(Event.READY, instance="ab12", port=1)
    log.write(Event.READY, model="two\nlines \x1b[31m")
    log.write(Event.READY, code="a sentence of a request")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] == {"at": "2026-03-01T12:00:00Z", "event": "ready", "instance": "ab12", "port": 1}
    assert [lines[1]["model"], lines[2]["code"]] == ["(unprintable)", "(unprintable)"]
    with pytest.raises(UsageError):
        log.write(Event.READY, message="text")
    with pytest.raises(UsageError):
        log.write(Event.READY, units="text")


def test_what_the_web_server_logs_is_reduced_to_its_class() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("uvicorn-like")
    logger.propagate = False
    logger.addHandler(LibraryHandler(EventLog(lambda: START, stream)))
    try:
        raise ValueError("canary")  # noqa: TRY301
    except ValueError:
        logger.exception("canary %s", "canary")
    logger.info("canary")
    assert "canary" not in stream.getvalue()
    assert json.loads(stream.getvalue())["error"] == "ValueError"


def test_metrics_have_closed_labels_and_parse() -> None:
    metrics = Metrics(("m",))
    metrics.add("cloister_units_total", 3, "m")
    metrics.set("cloister_lease_active", 1)
    text = prometheus_text(metrics)
    assert 'cloister_units_total{model="m"} 3\n' in text
    assert "cloister_lease_active 1\n" in text
    for name in METRICS:
        assert f"# TYPE {name} " in text
    for label in ("other", "", 'm"} 1\nx{a="'):
        with pytest.raises(UsageError):
            metrics.add("cloister_units_total", 1, label)


HARDENED = """
import json, os, resource
from dataclasses import asdict
from cloister.enclave.hardening import harden
measures = harden()
status = open("/proc/self/status").read()
print(json.dumps({
    "measures": {one.name: one.achieved for one in measures},
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "no_new_privs": "NoNewPrivs:\\t1" in status,
    "locked": "VmLck:\\t       0 kB" not in status,
    "memory": os.path.exists("/proc/self/mem"),
}))
os.abort()
"""


def test_a_hardened_process_dumps_nothing_and_says_what_was_achieved(tmp_path: Path) -> None:
    """T27: killed by ABRT it leaves no core."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", HARDENED],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(cloister.__file__).parent.parent)},
    )
    assert done.returncode == -6, done.stderr
    told = json.loads(done.stdout)
    measures = told["measures"]
    assert measures["no_core_dump"]
    assert measures["not_dumpable"]
    assert measures["no_new_privs"] == told["no_new_privs"]
    assert told["core"] == [0, 0]
    assert measures["memory_locked"] == told["locked"]
    assert list(tmp_path.iterdir()) == []


def test_memory_that_could_be_swapped_is_refused_where_that_was_asked() -> None:
    locked, no_swap = (Measure(name=name, achieved=False, detail="x") for name in ("memory_locked", "no_swap"))
    with pytest.raises(UsageError, match="memory_locked: x; no_swap: x"):
        demand_unswappable((locked, no_swap))
    demand_unswappable((locked, Measure(name="no_swap", achieved=True)))


def test_a_generated_tls_key_is_in_memory_only(tmp_path: Path) -> None:
    settings = config(tmp_path, SMALLEST + 'tls = "generated"\n')
    tls = prepare_tls(settings, START)
    assert tls is not None
    assert server_context(tls.chain + tls.key)
    assert b"PRIVATE KEY" in tls.key
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert len(tls.spki_sha256) == 32
    assert prepare_tls(config(tmp_path, SMALLEST), START) is None


def test_tls_files_are_checked(tmp_path: Path) -> None:
    """Bad input 114."""
    text = SMALLEST + 'tls = "files"\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
    settings = config(tmp_path, text)
    with pytest.raises(UsageError, match="PEM"):
        prepare_tls(settings, START)
    (tmp_path / "c.pem").write_text("nonsense")
    (tmp_path / "k.pem").write_text("nonsense")
    (tmp_path / "k.pem").chmod(0o644)
    with pytest.raises(UsageError, match="0600"):
        prepare_tls(settings, START)
    (tmp_path / "k.pem").chmod(0o600)
    with pytest.raises(UsageError, match="PEM"):
        prepare_tls(settings, START)


def ask(answer: Callable[[Request], Response], within: float = 2.0) -> bytes:
    """Call the challenge route of a custodian that answers as told."""

    async def told(request: Request) -> Response:
        return answer(request)

    async def body() -> bytes:
        loan = LoanFile.parse(dump_json(LOAN))
        app = Starlette(routes=[Route("/{path:path}", told, methods=["POST"])])
        transport = httpx2.ASGITransport(app=app)
        async with CustodianLink(loan, timeout=timedelta(seconds=within), transport=transport) as link:
            return await link.challenge(loan.loan)

    return asyncio.run(body())


def test_the_borrowers_token_travels_in_its_header_and_no_redirect_is_followed() -> None:
    seen: list[str] = []

    def answer(request: Request) -> Response:
        seen.append(f"{request.url} {request.headers['authorization']}")
        return Response(status_code=307, headers={"location": "https://elsewhere.example/"})

    with pytest.raises(Unavailable, match="307"):
        ask(answer)
    assert seen == [
        "https://custodian.example:8443/v1/loans/loan-abcdefghijklmnop/challenge Bearer borrower-token-0123456789"
    ]


@pytest.mark.parametrize("status", [500, 502, 503, 429, 301])
def test_no_answer_is_never_a_yes(status: int) -> None:
    with pytest.raises(Unavailable, match=str(status)):
        ask(lambda _: Response(b"x", status_code=status))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "refused"),
        (b"not json", "refused"),
        (b'{"reasons": []}', "refused"),
        (b'{"code": "Not A Code"}', "refused"),
        (b'{"code": "no_such_loan"}', "no_such_loan"),
        (b'{"reasons": [{"code": "blocked", "subject": "loan", "got": "", "want": ""}]}', "blocked"),
        (b'{"reasons": [{"code": "blocked", "subject": "a\\nb", "got": "", "want": ""}]}', "refused"),
    ],
)
def test_a_refusal_carries_the_custodians_reasons_or_its_status(body: bytes, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        ask(lambda _: Response(body, status_code=403))
    assert refused.value.code == code


def test_an_answer_without_end_is_cut() -> None:
    with pytest.raises(Unavailable, match="longer"):
        ask(lambda _: Response(b"x" * (3 << 20)))


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    async def body() -> None:
        class Slow(httpx2.AsyncBaseTransport):
            """Answers after an hour."""

            async def handle_async_request(self, _: httpx2.Request) -> httpx2.Response:
                """Wait."""
                await asyncio.sleep(3600)
                return httpx2.Response(200)

        loan = LoanFile.parse(dump_json(LOAN))
        async with CustodianLink(loan, timeout=timedelta(seconds=0.05), transport=Slow()) as link:
            with pytest.raises(Unavailable, match="TimeoutError"):
                await link.challenge(loan.loan)

    asyncio.run(body())


def test_a_ca_that_is_none_is_malformed() -> None:
    loan = LoanFile.parse(
        dump_json({**LOAN, "ca_pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"})
    )
    with pytest.raises(Malformed, match="ca_pem"):
        CustodianLink(loan, timeout=timedelta(seconds=1))


def test_the_fake_clock_is_a_clock() -> None:
    clock = FakeClock()
    before = clock.monotonic(), clock.wall()
    clock.advance(5)
    assert (clock.monotonic() - before[0], clock.wall() - before[1]) == (timedelta(seconds=5),) * 2


def test_models_are_prepacked_by_the_settings_word_or_else_by_the_cards(tmp_path: Path) -> None:
    named = config(tmp_path, SMALLEST + 'prepack = ["digits"]\n').prepack
    assert named == ("digits",)
    assert config(tmp_path, SMALLEST).prepack is None
    assert config(tmp_path, SMALLEST, {"CLOISTER_ENCLAVE_PREPACK": ""}).prepack == ()
    assert config(tmp_path, SMALLEST, {"CLOISTER_ENCLAVE_PREPACK": "a:b"}).prepack == ("a", "b")
    wish, none = {"prepack": True}, {"prepack": 1}
    for named, card, want in (
        (None, wish, True),
        (None, none, False),
        (None, {}, False),
        ((), wish, False),
        (("digits",), {}, True),
        (("other",), wish, False),
    ):
        assert wants_prepacking(named, "digits", card) is want


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("512MiB", 512 << 20), ("1KiB", 1024), ("1TiB", 1 << 40), ("1073741824", 1 << 30)],
)
def test_a_memory_budget_is_a_number_of_bytes(tmp_path: Path, text: str, size: int) -> None:
    assert config(tmp_path, SMALLEST + f'memory_budget = "{text}"\n').memory_budget == size
    assert config(tmp_path, SMALLEST, {"CLOISTER_ENCLAVE_MEMORY_BUDGET": text}).memory_budget == size


@pytest.mark.parametrize("text", ["", "0", "-1", "8 GiB", "8GB", "8gib", "1.5GiB", "GiB", "9" * 17])
def test_a_memory_budget_has_one_spelling(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="memory_budget"):
        config(tmp_path, SMALLEST + f'memory_budget = "{text}"\n')
