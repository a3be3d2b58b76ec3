"""A custodian as it is run: metrics and traces where its settings say, alarms watched, and ``cloister alerts``."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from otlp_receiver import Receiver, attributes

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli_kit import Shell

TOKEN = "scraper-0123456789"  # noqa: S105 - for a test


def until(seen: Callable[[], Any], within_s: float = 30) -> Any:
    """Wait for something true, and return it."""
    end = time.monotonic() + within_s
    while not (found := seen()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def page(port: int, token: str | None = TOKEN) -> str:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - our own process
        text: str = answer.read().decode()
        return text


def test_a_served_custodian_shows_sends_watches_and_says(shell: Shell) -> None:
    port, metrics = free_port(), free_port()
    shell.ok("custodian", "init", "--port", str(port))
    home = shell.folder / "home"
    (home / "scraper.token").write_text(TOKEN)
    (home / "scraper.token").chmod(0o600)
    with Receiver() as receiver:
        settings = {
            "METRICS": f"127.0.0.1:{metrics}", "METRICS_TOKEN_FILE": "scraper.token", "TRACES": receiver.url,
            "SWEEP_INTERVAL_S": "1", "DISK_FLOOR_MIB": "1048576",
        }  # fmt: skip
        environment = shell.environment(**{f"CLOISTER_CUSTODIAN_{name}": value for name, value in settings.items()})
        process = subprocess.Popen(
            [sys.executable, "-m", "cloister", "custodian", "serve"], env=environment, cwd=shell.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            until(lambda: listens(port) and listens(metrics))
            refused = 0
            try:
                page(metrics, token=None)
            except urllib.error.HTTPError as exc:
                refused = exc.code
            assert refused == 401
            alarms = until(lambda: shell.ok("alerts")["alarms"])
            assert [alarm["code"] for alarm in alarms] == ["disk_low"]
            raised = until(lambda: [entry for entry in entries(shell) if entry["kind"] == "alarm_raised"])
            assert [entry["subject"] for entry in raised] == ["disk_low"]
            said = shell("alerts", "--fail")
            assert said.code == 4
            assert "disk_low" in said.out
            text = page(metrics)
            assert 'cloister_custodian_alarms{alarm="disk_low"} 1\n' in text
            assert 'cloister_custodian_health{check="disk",state="degraded"} 1\n' in text
            assert 'cloister_custodian_requests_total{route="GET /v1/alarms",status="2xx"}' in text
            receiver.until(lambda: receiver.named("GET /v1/alarms"))
            assert attributes(receiver.named("GET /v1/alarms")[0])["http.response.status_code"] == 200
        finally:
            process.terminate()
            out, err = process.communicate(timeout=30)
        assert process.returncode == 0, (out, err)
        secret = json.dumps([span.name for span in receiver.spans]) + str(receiver.raw)
        assert (home / "admin.token").read_text().strip() not in secret + text + out + err
        assert TOKEN not in secret + text + out + err


def listens(port: int) -> bool:
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", port)) == 0


def entries(shell: Shell) -> list[dict[str, Any]]:
    said = shell("audit", "list", "--json")
    return [json.loads(line) for line in said.out.splitlines()]


def test_nothing_wrong_is_said_in_a_word(shell: Shell) -> None:
    said = shell("alerts")
    assert said.code != 0, "there is no custodian yet"
    assert "Traceback" not in said.err
