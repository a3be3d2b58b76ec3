"""What an enclave's metrics say is read back exactly, and shown without a guess."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from console_kit import NOW, enclave_view, inside, metrics_text, plain
from hypothesis import given
from hypothesis import strategies as st

from cloister.cli.consoles.glyphs import ASCII
from cloister.cli.consoles.scrape import MAX_TEXT_BYTES, Look, parse_look, quantile
from cloister.cli.demo.certificate import write_certificate
from cloister.errors import Malformed, Unavailable
from cloister.testing.ports import free_port
from cloister.wire import STEERING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_kit import Shell

INFINITE = float("inf")


def test_every_series_comes_back_with_its_value() -> None:
    look = parse_look(metrics_text(130), at=NOW)
    assert look.one("cloister_inferences_total", "digits") == 130
    assert look.one("cloister_lease_seconds_left") == 41.3
    assert look.one("cloister_nothing") is None
    assert look.labels("cloister_model_loaded") == ["digits", "scan"]
    assert look.total("cloister_renewals_total", but="lease") == 0
    assert look.bars("cloister_exchange_seconds")[-1] == (INFINITE, 130)


@pytest.mark.parametrize(
    "text", [b"<html>", b"x{y} z\n", b"name 1 2 3\n", b"a\x1b[2J 1\n", b"name 1-2-3\n", b"NAME 1\n"]
)
def test_what_is_no_page_of_metrics_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse_look(text, at=NOW)


def test_a_page_without_end_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_look(b"#" * (MAX_TEXT_BYTES + 1), at=NOW)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_malformed(text: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse_look(text, at=NOW)


def test_quantiles_lie_within_their_bars_and_count_only_what_is_new() -> None:
    before = [(0.1, 10.0), (1.0, 10.0), (INFINITE, 10.0)]
    now = [(0.1, 10.0), (1.0, 20.0), (INFINITE, 21.0)]
    assert quantile(now, 0.5, before=before) == pytest.approx(0.1 + 0.9 * 5.5 / 10)
    assert quantile(now, 0.99, before=before) == 1.0, "above the last bound, that bound"
    assert quantile(before, 0.5, before=before) is None
    assert quantile([], 0.5) is None
    assert quantile(before, 0.5) == pytest.approx(0.05)


def test_speed_is_told_from_two_looks_and_never_from_one() -> None:
    once = plain(enclave_view(inside(100)).frame(80, 24))
    assert "exchanges since it began: 50% within 9 ms" in once
    twice = plain(enclave_view(inside(100), inside(150, seconds=2)).frame(80, 24))
    assert "exchanges lately: 50% within 7 ms" in twice
    row = next(line for line in twice.splitlines() if line.startswith("digits"))
    assert row.split()[:6] == ["digits", "yes", "150", "25.0", "150", "7k"]
    assert "refused: 3 allowance exhausted, 1 replayed" in twice


def test_a_restart_begins_counts_anew_and_no_rate_is_negative() -> None:
    shown = plain(enclave_view(inside(500), inside(20, seconds=2)).frame(80, 24))
    assert "-" not in next(line for line in shown.splitlines() if line.startswith("digits"))


def test_an_enclave_that_tells_no_metrics_or_nothing_at_all_is_said() -> None:
    quiet = plain(enclave_view(inside(look=None)).frame(80, 24))
    assert "no metrics: start the enclave with --metrics HOST:PORT to see more" in quiet
    ended = inside(state="revoked", checks=(("models", "failed", "unloaded"),))
    assert "lease revoked  models: unloaded" in plain(enclave_view(ended).frame(80, 24))
    gone = enclave_view(inside(1), problem=Unavailable("enclave: connecterror"))
    assert "no answer: enclave: connecterror" in plain(gone.frame(80, 24))


def test_t84_an_enclaves_state_and_models_steer_nothing() -> None:
    evil = "\x1b[2J\u202e"
    look = Look(at=NOW, values={("cloister_inferences_total", evil): 1.0, ("cloister_answers_total", evil): 1.0})
    view = enclave_view(inside(state=evil, checks=((evil, "failed", evil),), look=look), glyphs=ASCII)
    shown = plain(view.frame(80, 24))
    assert not STEERING.search(shown.replace("\n", ""))
    shown.encode("ascii")


@pytest.mark.parametrize("size", [(1, 1), (30, 4), (80, 24), (200, 60)], ids=str)
def test_a_frame_fits_its_terminal(size: tuple[int, int]) -> None:
    lines = enclave_view(inside(10), inside(20, seconds=1)).frame(*size)
    assert len(lines) == size[1]
    assert all(line.cell_len <= size[0] for line in lines)


def test_as_a_document_it_names_each_series() -> None:
    document = inside(7).to_json()
    assert document["state"] == "active"
    metrics = document["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["cloister_units_remaining{digits}"] == 7193
    json.dumps(document)
    assert inside(look=None).to_json()["metrics"] == {}


def test_mistakes_on_the_command_line_are_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text("{")
    assert shell("enclave", "top", "--ready-file", tmp_path / "ready.json").code == 2
    assert shell("enclave", "top", "--ready-file", tmp_path / "none.json").code == 2
    nobody = shell("enclave", "top", "--url", f"http://127.0.0.1:{free_port()}", "--json", "--once")
    assert (nobody.code, nobody.json["error"]["fault"]) == (5, "unavailable")
    assert shell("enclave", "top", "--url", "not an address").code in {2, 3}
    assert shell("enclave", "top", "--metrics", "http://[", "--url", "http://127.0.0.1:1", "--once").code in {2, 5}


class _Told(BaseHTTPRequestHandler):
    """An enclave's outer resources and its metrics, as they are answered."""

    def do_GET(self) -> None:
        ready = json.dumps({"state": "active", "checks": [{"name": "lease", "state": "ok", "code": "ok"}]}).encode()
        needs = self.path == "/metrics" and self.headers.get("authorization") != "Bearer scraper-0123456789"
        body = metrics_text(3) if self.path == "/metrics" else ready
        self.send_response(401 if needs else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[int]:
    """Yield the port of a listener whose certificate nobody vouches for, as an enclave's own is."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Told) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def test_an_enclaves_own_certificate_is_no_hindrance_on_its_host(shell: Shell, told: int) -> None:
    token = shell.folder / "scraper.token"
    token.write_text("scraper-0123456789")
    token.chmod(0o600)
    url = f"https://127.0.0.1:{told}"
    words = ("enclave", "top", "--url", url, "--metrics", f"{url}/metrics", "--once")
    said = shell(*words, "--metrics-token-file", token)
    assert said.code == 0, said.err
    assert "3 of 1k units served" in said.out
    assert shell.ok("enclave", "top", "--url", url, "--once")["metrics"] == {}
    refused = shell(*words)
    assert refused.code == 2
    assert "pass --metrics-token-file" in refused.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", "/dev/null")
        other = shell("enclave", "top", "--url", f"https://enclave.invalid:{told}", "--once")
        assert other.code == 5
