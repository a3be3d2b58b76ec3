"""How quick the custodian's pages are with a thousand loans and a million entries of the audit log.

    python benchmarks/pages.py --loans 1000 --entries 1000000

A real custodian is filled by its own use cases; then somebody signs in and opens each page several times: milliseconds
until the whole answer is there and bytes of the page, beside those of a custodian with one loan. No network and no
browser lies between; what a browser makes of the pages, the tests of the pages print.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.sealing import CHEAP, seal
from starlette.testclient import TestClient

from cloister.attest.verifier import Verifier
from cloister.custodian.app import create_app
from cloister.custodian.setup import init_custodian, open_custodian, open_vault
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.lending.events import EventKind
from cloister.testing.simulated import SimulatedRoot, SimulatedScheme, simulated_policy

if TYPE_CHECKING:
    from cloister.custodian.service import CustodianService
    from cloister.custodian.service.context import Transaction

BATCH = 2000  # entries of one transaction
ORIGIN = "https://testserver"
GOAL_MS = 200  # of first paint on loopback; these are a part of it
UNLOCK = Passphrase(b"benchmark")
BATCHED = EventKind.LEASE_GRANTED


def fill(folder: Path, loans: int, entries: int) -> tuple[CustodianService, str, str]:
    """Return a custodian with that much in it, its admin's token and one of its loans."""
    home, root = folder / "home", SimulatedRoot.generate()
    made = init_custodian(home, UNLOCK, kdf=CHEAP)
    service = open_custodian(home, UNLOCK, make_verifier=lambda _: Verifier([SimulatedScheme(root.public)]))
    staff = TestClient(create_app(service), headers={"authorization": f"Bearer {made.admin_token}"})
    digest = publish(staff, folder)
    loan = ""
    for number in range(loans):
        body = {
            "allowance": 1000 + number, "borrower": f"Hospital {number}", "consumers": None,
            "models": [{"digest": digest, "name": "digits"}], "policy": simulated_policy("ab" * 32).to_json(),
        }  # fmt: skip
        loan = staff.post("/v1/loans", json=body).raise_for_status().json()["loan"]
    for begin in range(service.context.size, entries, BATCH):
        service.context.transact(lambda transaction, begin=begin: log(transaction, loan, min(BATCH, entries - begin)))
    return service, made.admin_token, loan


def log(transaction: Transaction, loan: str, count: int) -> None:
    """Log what renewals log."""
    for number in range(count):
        transaction.record(BATCHED, "ab" * 32, loan, loan=loan, limit=number, seq=number, block_version=0)


def publish(staff: TestClient, folder: Path) -> str:
    """Seal and publish a small model; return its digest."""
    source = folder / "model.onnx"
    source.write_bytes(b"weights" * 100)
    digest, body = seal(open_vault(folder / "home", UNLOCK), source, folder / "sealed", name="digits")
    staff.post("/v1/models", json=body).raise_for_status()
    return digest


def measure(service: CustodianService, token: str, loan: str, rounds: int) -> dict[str, tuple[float, int]]:
    """Return what each page took, in milliseconds, and its bytes."""
    visitor = TestClient(create_app(service), base_url=ORIGIN, follow_redirects=False)
    form = {"token": token, "next": ""}
    visitor.post("/ui/sign-in", data=form, headers={"origin": ORIGIN, "sec-fetch-site": "same-origin"})
    size = service.context.size
    pages = {
        "overview": "/", "loans": "/loans", "loans, page 2": "/loans?skip=50", "loans, searched": "/loans?q=pital%209",
        "loan": f"/loans/{loan}", "models": "/models", "enclaves": "/enclaves", "consumers": "/consumers",
        "audit log": "/audit", "audit log, middle": f"/audit?before={size // 2}",
        "audit log, first": "/audit?before=50",
        "entry with proof": f"/audit/{size // 3}", "settings": "/settings",
    }  # fmt: skip
    found: dict[str, tuple[float, int]] = {}
    for name, path in pages.items():
        took = []
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            answer = visitor.get(f"/ui{path}").raise_for_status()
            took.append((time.perf_counter() - begun) * 1000)
        found[name] = statistics.median(took[1:]), len(answer.content)
    return found


def main() -> None:
    """Fill two custodians, open their pages, print a table."""
    parser = argparse.ArgumentParser(description="how quick the custodian's pages are with much behind them")
    parser.add_argument("--loans", type=int, default=100, help="loans (100)")
    parser.add_argument("--entries", type=int, default=20_000, help="entries of the audit log (20,000)")
    parser.add_argument("--rounds", type=int, default=9, help="times that each page is opened (9)")
    arguments, _ = parser.parse_known_args()
    results = []
    for loans, entries in ((1, 0), (arguments.loans, arguments.entries)):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            service, token, loan = fill(Path(folder), loans, entries)
            print(f"filled: {loans:,} loans, {service.context.size:,} entries in {time.perf_counter() - begun:.0f} s")
            results.append(measure(service, token, loan, arguments.rounds))
            service.close()
    few, many = results
    print(f"{'page':20}{'one loan':>12}{'full':>12}{'ratio':>8}{'bytes':>10}")
    for name, (took, size) in many.items():
        print(f"{name:20}{few[name][0]:>9.1f} ms{took:>9.1f} ms{took / few[name][0]:>7.2f}x{size:>10,}")
    slowest = max(took for took, _ in many.values())
    print(f"slowest {slowest:.0f} ms, goal {GOAL_MS} ms: {'met' if slowest <= GOAL_MS else 'missed'}")
    print(f"processors {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
