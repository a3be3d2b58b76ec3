"""The dashboard's other pages in a real browser: enclaves, audit log, policy, consumers, access, devices, settings."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_kit import served, visitor
from custodian_kit import Bench
from desk_kit import Busy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from browser_kit import Visitor
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def busy() -> Iterator[Busy]:
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder), settings={"two_person": ("unblock",)}) as bench:
        yield Busy(bench)


@pytest.fixture(scope="module")
def desk(busy: Busy) -> Iterator[str]:
    with served(busy.bench.client.app) as url:
        yield f"{url}/ui"


@pytest.fixture
def alice(browser: Browser, desk: str, busy: Busy) -> Iterator[Visitor]:
    with visitor(browser) as person:
        person.open(f"{desk}/sign-in")
        person.page.get_by_label("Token").fill(busy.alice)
        person.page.get_by_role("button", name="Sign in").click()
        person.page.get_by_role("button", name="Sign out").wait_for()
        yield person


def enclave_of(busy: Busy) -> str:
    name: str = busy.small.show()["instances"][0]["id"]
    return name


def test_every_other_page_is_light_quick_and_accessible(alice: Visitor, desk: str, busy: Busy) -> None:
    pages = {
        "enclaves": "/enclaves",
        "enclave": f"/enclaves/{enclave_of(busy)}",
        "audit": "/audit",
        "entry": "/audit/7",
        "policy": f"/loans/{busy.lent.id}/policy",
        "consumers": "/consumers",
        "access": "/access",
        "devices": "/devices",
        "settings": "/settings",
    }
    for name, path in pages.items():
        weight = alice.open(f"{desk}{path}")
        print(f"{name}: {weight.size} bytes, first paint after {weight.paint_ms:.0f} ms")  # noqa: T201 - a figure
        alice.look(f"desk-{name}")


def test_an_enclave_is_stopped_with_the_bound_before_ones_eyes(alice: Visitor, desk: str, busy: Busy) -> None:
    alice.open(f"{desk}/enclaves/{enclave_of(busy)}")
    alice.page.get_by_role("button", name="Block…").click()
    dialog = alice.page.get_by_role("dialog")
    assert "whichever comes first" in dialog.inner_text()
    dialog.get_by_label("Reason").fill("an odd smell")
    dialog.get_by_role("button", name="Block the enclave").click()
    alice.page.get_by_text("This enclave is blocked.").wait_for()
    alice.look("desk-enclave-blocked")


def test_a_policy_is_written_looked_at_and_replaced(alice: Visitor, desk: str, busy: Busy) -> None:
    alice.open(f"{desk}/loans/{busy.lent.id}/policy")
    policy = json.loads(alice.page.get_by_label("Policy", exact=True).input_value())
    policy["tees"]["simulated"]["svn"] = {"at_least": 3}
    alice.page.get_by_label("Policy", exact=True).fill(json.dumps(policy))
    alice.page.get_by_role("button", name="Look at it").click()
    alice.page.get_by_text("What would change").wait_for()
    alice.look("desk-policy-changed")
    alice.page.get_by_role("button", name="Replace the policy").click()
    alice.page.locator("#content").get_by_text("The policy was replaced.").wait_for()
    assert busy.lent.show()["policy"]["version"] == policy["version"]


def test_keys_are_rotated_after_a_question(alice: Visitor, desk: str, busy: Busy) -> None:
    before = busy.bench.get("/v1/keys").json()["key_epoch"]
    alice.open(f"{desk}/settings")
    alice.page.get_by_role("button", name="Rotate now…").click()
    alice.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert busy.bench.get("/v1/keys").json()["key_epoch"] == before
    alice.page.get_by_role("button", name="Rotate now…").click()
    alice.page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    alice.page.locator("#content").get_by_text("The keys were rotated.").wait_for()
    assert busy.bench.get("/v1/keys").json()["key_epoch"] == before + 1


def test_entries_are_filtered_and_a_proof_is_saved(alice: Visitor, desk: str) -> None:
    alice.open(f"{desk}/audit")
    alice.page.get_by_label("Only with").fill("proposal made")
    rows = alice.page.locator("#entries tbody tr:visible")
    assert rows.count() == 1
    rows.get_by_role("link").click()
    with alice.page.expect_download() as download:
        alice.page.get_by_role("link", name="Save the proof").click()
    assert download.value.suggested_filename.endswith(".tlog-proof")


def test_a_token_is_revoked_after_a_question(alice: Visitor, desk: str, busy: Busy) -> None:
    alice.open(f"{desk}/access")
    alice.page.get_by_role("row", name="Bob's laptop").get_by_role("button", name="Revoke…").click()
    alice.page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    alice.page.locator("#content").get_by_text("The token is good no more.").wait_for()
    states = {item["person"]: item["good"] for item in busy.bench.get("/v1/tokens").json()["tokens"]}
    assert (states["alice"], states["bob"]) == (True, False)
