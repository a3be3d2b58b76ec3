"""A real OpenID Connect provider, npm's oidc-provider: its tokens open the custodian over TLS, and its keys rotate."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mtls_kit import Door, mtls_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from custodian_kit import Bench

AUDIENCE = "https://custodian.example"
SCRIPT = Path(__file__).parent / "oidc" / "provider.mjs"
HOME = Path(sys.prefix) / "oidc"  # made by 'make test'
NODE = shutil.which("node")
MIN_NODE = 20  # what the provider runs on


def _is_there() -> bool:
    if NODE is None or not (HOME / "node_modules" / "oidc-provider").exists():
        return False
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return int(said.strip().removeprefix("v").partition(".")[0]) >= MIN_NODE


pytestmark = pytest.mark.skipif(not _is_there(), reason=f"no Node.js {MIN_NODE} or newer, or no oidc-provider")


class Provider:
    """The provider in a process of its own; ``tell`` makes it rotate or forget keys."""

    def __init__(self) -> None:
        environment = {**os.environ, "OIDC_HOME": str(HOME), "OIDC_RESOURCE": AUDIENCE}
        self.process = subprocess.Popen(  # noqa: S603 - our own script
            [NODE or "node", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )  # fmt: skip
        self.issuer: str = self._hear()["issuer"]

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # else a notice of its own
                heard: dict[str, Any] = json.loads(line)
                return heard
        pytest.fail("the provider ended")

    def tell(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self._hear()

    def token(self, client: str = "cloister-cli", **form: str) -> str:
        """Ask for an access token by client credentials (RFC 6749 section 4.4)."""
        body = urllib.parse.urlencode({"grant_type": "client_credentials", "scope": "lend", **form}).encode()
        request = urllib.request.Request(f"{self.issuer}/token", data=body)  # noqa: S310 - loopback
        basic = base64.b64encode(f"{client}:secret-of-{client}".encode()).decode()
        request.add_header("authorization", f"Basic {basic}")
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - the same
            found: str = json.load(answer)["access_token"]
            return found

    def document(self, **changes: Any) -> dict[str, Any]:
        made = {
            "algorithms": ["ES256"],
            "audiences": [AUDIENCE],
            "authorized_parties": ["cloister-cli"],
            "issuer": self.issuer,
            "kind": "oidc",
            "rules": [{"claims": {"/scope": "lend"}, "grants": {"role": "lender"}}],
            "types": ["at+jwt"],
        }
        return made | changes

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with mtls_bench(tmp_path, mtls="off", issuer_addresses="loopback") as bench, Door(bench).listening() as made:
        yield made


def asked(door: Door, token: str, path: str = "/v1/loans") -> tuple[int, Any]:
    return door.get(path, {"authorization": f"Bearer {token}"})


def registered(door: Door, document: dict[str, Any]) -> Bench:
    assert door.bench.post("/v1/issuers", document).status_code == 201
    return door.bench


def test_a_client_with_its_credentials_lends_by_a_token_of_the_provider(door: Door, provider: Provider) -> None:
    bench = registered(door, provider.document())
    token = provider.token()
    assert asked(door, token)[0] == 200
    assert asked(door, token, "/v1/tokens")[0] == 403
    (shown,) = bench.get("/v1/issuers").json()["issuers"]
    assert (shown["keys"]["count"], shown["keys"]["problem"]) == (1, None)


def test_tokens_that_the_provider_gives_to_others_and_for_others_are_refused(door: Door, provider: Provider) -> None:
    registered(door, provider.document())
    refused = {
        "party_not_allowed": provider.token("another-client"),
        "audience_mismatch": provider.token(resource="https://other.example"),
        "identity_not_mapped": provider.token(scope="look"),
    }
    for code, token in refused.items():
        status, answer = asked(door, token)
        assert (status, answer["reasons"][1]["code"]) == (401, code)


def test_a_rotation_at_the_provider_is_followed_and_a_key_it_forgets_opens_nothing(
    door: Door, provider: Provider
) -> None:
    bench = registered(door, provider.document(max_age_s=86_400))
    first = provider.token()
    assert asked(door, first)[0] == 200
    assert provider.tell("rotate") == {"keys": ["key-2", "key-1"]}
    second = provider.token()
    status, answer = asked(door, second)  # it was asked a moment ago, and is not asked again at once
    assert (status, answer["reasons"][1]["code"]) == (401, "unknown_key")
    bench.clock.advance(31)
    assert asked(door, second)[0] == 200
    assert asked(door, first)[0] == 200
    assert provider.tell("forget") == {"keys": ["key-2"]}
    bench.clock.advance(31)
    provider.tell("rotate")
    assert asked(door, provider.token())[0] == 200  # a third key: asked again, and the first is not told any more
    assert asked(door, first)[0] == 401
    assert asked(door, second)[0] == 200


def test_a_provider_that_is_gone_is_503_at_first_and_known_tokens_go_on(door: Door, provider: Provider) -> None:
    bench = registered(door, provider.document())
    token = provider.token()
    provider.stop()
    assert asked(door, token)[0] == 503
    again = Provider()
    try:
        registered(door, again.document())
        token = again.token()
        assert asked(door, token)[0] == 200
    finally:
        again.stop()
    bench.clock.advance(60)
    assert asked(door, token)[0] == 200


def test_a_loopback_provider_is_not_asked_where_the_settings_do_not_say_so(tmp_path: Path, provider: Provider) -> None:
    with mtls_bench(tmp_path, mtls="off") as bench, Door(bench).listening() as door:
        registered(door, provider.document())
        assert asked(door, provider.token())[0] == 503
        (shown,) = bench.get("/v1/issuers").json()["issuers"]
        assert "address_not_allowed" in shown["keys"]["problem"]
