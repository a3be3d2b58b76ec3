"""The command line against a custodian that wishes it ill: endless, packed, steering, or another's."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from cloister.cli.remote import from_token
from cloister.errors import Malformed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli_kit import Shell

TOKEN = "token-of-a-borrower-0123456789"  # noqa: S105 - of a test
PACKED = gzip.compress(b'{"loan": "' + b"a" * (8 << 20) + b'"}')


class Hostile(BaseHTTPRequestHandler):
    """Answers with what its server was given."""

    def do_GET(self) -> None:
        """Send the headers, then parts until the client has enough."""
        self.send_response(200)
        for name, value in self.server.fields.items():  # type: ignore[attr-defined]  # set by the fixture
            self.send_header(name, value)
        self.end_headers()
        try:
            for part in self.server.parts():  # type: ignore[attr-defined]  # set by the fixture
                self.wfile.write(part)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return what starts a custodian that answers so, and gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(parts: Callable[[], Iterator[bytes]], **fields: str) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
        server.parts, server.fields = parts, {name.replace("_", "-"): text for name, text in fields.items()}  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def endless() -> Iterator[bytes]:
    while True:
        yield b"data: " + b" " * 65536


def test_an_answer_without_end_is_not_read_to_its_end(serve: Callable[..., str]) -> None:
    with from_token(url=serve(endless), ca_pem=None, token=TOKEN) as remote:
        with pytest.raises(Malformed, match="more than"):
            remote.get("/v1/loans")
        with pytest.raises(Malformed, match="a line of more than"), remote.events("/v1/events") as events:
            next(events)


def test_a_packed_answer_is_not_unpacked(serve: Callable[..., str]) -> None:
    url = serve(lambda: iter([PACKED]), Content_Encoding="gzip")
    with from_token(url=url, ca_pem=None, token=TOKEN) as remote, pytest.raises(Malformed, match="not strict json"):
        remote.get("/v1/loans")


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"1", b"", b'{"loans": [{}]}'])
def test_an_answer_without_what_it_must_have_is_malformed(
    serve: Callable[..., str], shell: Shell, answer: bytes
) -> None:
    (shell.folder / "admin").write_text(TOKEN)
    (shell.folder / "admin").chmod(0o600)
    said = shell("loan", "list", "--url", serve(lambda: iter([answer])), "--token-file", "admin")
    assert said.code == 3, said
    assert "custodian's answer" in said.err


def test_events_come_line_by_line_however_they_are_cut(serve: Callable[..., str]) -> None:
    url = serve(lambda: iter([b": hello\r\nda", b"ta: 1\n\nda", b"ta: ", b"2\n\n"]))
    with from_token(url=url, ca_pem=None, token=TOKEN) as remote, remote.events("/v1/events") as events:
        assert list(events) == ["1", "2"]


@pytest.mark.parametrize("url", ["http://custodian.example", "http://10.0.0.1:8443", "ftp://x", "https://a b", ""])
def test_a_token_does_not_travel_in_the_clear_or_nowhere(url: str) -> None:
    with pytest.raises(UsageError):
        from_token(url=url, ca_pem=None, token=TOKEN)


@pytest.mark.parametrize("ca_pem", ["", " \n", "no certificate", "\N{SNOWMAN}", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_an_authority_that_is_none_is_not_the_systems(ca_pem: str) -> None:
    with pytest.raises(UsageError, match="no certificate in PEM"):
        from_token(url="https://127.0.0.1:1", ca_pem=ca_pem, token=TOKEN)


def test_a_token_that_no_header_holds_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="printable ascii") as caught:
        from_token(url="https://127.0.0.1:1", ca_pem=None, token=TOKEN + "\N{SNOWMAN}")
    assert "borrower" not in str(caught.value)


def test_tokens_that_cannot_be_written_are_not_asked_for(shell: Shell) -> None:
    """They are shown once: a file in the way must be noticed before the custodian makes them."""
    (shell.folder / "policy.json").write_text(
        '{"v":1,"version":1,"tees":{"tpm":{"software":{"one_of":["' + "aa" * 32 + '"]}}}}'
    )
    (shell.folder / "admin").write_text(TOKEN)
    (shell.folder / "admin").chmod(0o600)
    (shell.folder / "tokens").mkdir()
    (shell.folder / "tokens" / "clinic.token").write_text("an older one")
    where = ("--url", "https://127.0.0.1:1", "--token-file", "admin")
    create = (
        "loan", "create", "--borrower", "B", "--model", f"m={'ab' * 32}", "--allowance", "1",
        "--policy", "policy.json", "--tokens", "tokens",
    )  # fmt: skip
    for words in (
        (*create, "--consumer", "clinic", "--out", "loan.json", *where),
        (*create, "--consumer", "other", "--out", "missing/loan.json", *where),
        (*create, "--consumer", "../../other", "--out", "loan.json", *where),
        ("loan", "consumer", "add", "loan-x", "clinic", "--tokens", "tokens", *where),
    ):
        said = shell(*words)
        assert said.code == 2, said  # 5 would be the custodian that nobody runs
    assert (shell.folder / "tokens" / "clinic.token").read_text() == "an older one"
