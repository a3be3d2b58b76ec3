"""``cloister ask`` and ``cloister borrower page`` as processes, over TLS, before a real custodian and enclave."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import httpx2
import pytest
from click.testing import CliRunner
from transcript_town import Town, until

from cloister.cli import app
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import Popen

LINK = re.compile(r"http://127\.0\.0\.1:\d+/[\w-]{22}/enter/[\w-]{43}")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    found = Town(tmp_path_factory.mktemp("town"))
    yield found
    found.close()


def opened(town: Town, party: str, line: str) -> tuple[Popen[bytes], Path]:
    """Start a page; return its process and what it says."""
    ready, log = town.parties[party] / "page.json", town.folder / f"{len(town._servers)}.log"
    process = town.start(party, town.filled(f"{line} --ready-file page.json"))
    until(ready.exists)
    until(lambda: LINK.search(log.read_text()))
    assert not LINK.search(ready.read_text())
    assert json.loads(ready.read_text())["address"] in log.read_text()
    return process, log


def came_in(link: str) -> tuple[int, str]:
    """Return what somebody sees who opens a link."""
    with httpx2.Client(follow_redirects=True, timeout=30) as person:
        answer = person.get(link)
        return answer.status_code, answer.text


def test_a_person_asks_and_the_page_ends_in_order(town: Town) -> None:
    whom = "--trust trust.json --token-file clinic.token --insecure-simulated-root root.pub.json"
    process, log = opened(town, "consumer", f"cloister ask $ENCLAVE --listen 127.0.0.1:0 {whom}")
    link = LINK.findall(log.read_text())[0]
    status, text = came_in(link)
    assert status == 200
    assert "Ask scan" in text
    assert "whoever runs it can read everything" in text
    assert came_in(link)[0] == 403
    process.send_signal(signal.SIGUSR1)
    until(lambda: len(LINK.findall(log.read_text())) > 1)
    assert came_in(LINK.findall(log.read_text())[1])[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert "clst_" not in log.read_text()


def test_a_borrower_sees_its_loan_and_the_enclave_here(town: Town) -> None:
    line = "cloister borrower page --loan-file loan.json --listen 127.0.0.1:0 --enclave $ENCLAVE"
    process, log = opened(town, "borrower", line)
    status, text = came_in(LINK.findall(log.read_text())[0])
    assert status == 200
    assert town.names["LOAN"] in text
    assert "The enclave here does not answer" not in text
    token = json.loads((town.parties["borrower"] / "loan.json").read_text())["token"]
    assert token not in text + log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


WRONG = {
    "ask http://127.0.0.1:1 --trust none.json --listen 0.0.0.0:1": "without tls",
    "ask http://127.0.0.1:1 --trust none.json --listen 0.0.0.0:1 --behind-proxy": "--site NAME",
    "ask http://127.0.0.1:1 --trust none.json --tls-key k": "together",
    "borrower page --loan-file none.json --listen 0.0.0.0:1": "ssh -L",
    "borrower page --loan-file none.json --metrics http://127.0.0.1:1": "--enclave",
    "borrower page --loan-file none.json --enclave http://192.0.2.1:1": "of this machine",
    "borrower page --loan-file none.json": "cannot be read",
}


@pytest.mark.parametrize(("line", "told"), WRONG.items())
def test_a_page_where_others_could_reach_it_is_refused(line: str, told: str) -> None:
    done = CliRunner().invoke(app, line.split())
    assert isinstance(done.exception, UsageError)
    assert told in f"{done.exception.message} {done.exception.hint}"
