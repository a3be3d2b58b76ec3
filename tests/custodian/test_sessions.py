"""Sessions of minutes, and what a stolen one is worth (T78; RFC 9449)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from custodian_kit import Bench, bearer
from tenant_kit import HostBench

from cloister.custodian import proofs
from cloister.custodian.config_file import load_config
from cloister.custodian.presented import Presented
from cloister.custodian.tokens import hash_token
from cloister.errors import Rejected, UsageError
from cloister.identity.dpop import make_proof, thumbprint
from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

_NUMBERS = itertools.count()


class Holder:
    """Somebody with a key of their own, and a session that is bound to it."""

    def __init__(self, bench: Bench, token: dict[str, str] | None = None) -> None:
        self.bench = bench
        self.key = Ed25519PrivateKey.generate()
        opener = (token or bench.admin)["Authorization"].removeprefix("Bearer ")
        headers = {**bearer(opener), "DPoP": self.prove("POST", "/v1/sessions", token=opener)}
        answer = bench.client.post("/v1/sessions", json={}, headers=headers)
        assert answer.status_code == 201, answer.text
        self.made = answer.json()
        self.token: str = self.made["token"]

    def prove(self, method: str, path: str, **changes: Any) -> str:
        """Return a proof for one request."""
        said: dict[str, Any] = {
            "identity": f"proof-{next(_NUMBERS)}", "method": method, "address": f"{self.bench.service.url}{path}",
            "token": getattr(self, "token", ""), "now": self.bench.clock(), **changes,
        }  # fmt: skip
        return make_proof(self.key.public_key(), self.key.sign, **said)

    def get(self, path: str, proof: str | None = None, scheme: str = "DPoP") -> httpx.Response:
        """GET with a proof, a fresh one by default."""
        proof = self.prove("GET", path.partition("?")[0]) if proof is None else proof
        headers = {"Authorization": f"{scheme} {self.token}", **({"DPoP": proof} if proof else {})}
        return self.bench.client.get(path, headers=headers)


def _open(bench: Bench, token: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = bench.post("/v1/sessions", body, token=token)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_session_is_what_its_token_is_for_some_minutes(bench: Bench) -> None:
    lender = bench.token("lender", person="lena")
    made = _open(bench, lender)
    assert (made["token_type"], made["jkt"], made["person"]) == ("Bearer", None, "lena")
    session = bearer(made["token"])
    assert bench.get("/v1/loans", token=session).status_code == 200
    assert bench.get("/v1/tokens", token=session).status_code == 403
    bench.post("/v1/loans", bench.loan_body(), token=session)
    created = next(entry for entry in bench.audit() if entry["kind"] == "loan_created")
    assert created["actor"] == made["by"]
    bench.clock.advance(900)
    assert bench.get("/v1/loans", token=session).status_code == 401


def test_a_session_is_renewed_up_to_its_bound_and_no_further(bench: Bench) -> None:
    made = _open(bench)
    session = bearer(made["token"])
    for _ in range(1, 43_200 // 600):
        bench.clock.advance(600)
        renewed = bench.post("/v1/sessions/renew", token=session)
        assert renewed.status_code == 200
    assert renewed.json()["expires_at"] == made["renew_until"]
    bench.clock.advance(601)
    assert bench.post("/v1/sessions/renew", token=session).status_code == 401


def test_a_session_opens_no_session_and_a_token_renews_none(bench: Bench) -> None:
    """Else whoever steals one for a minute has it for good."""
    session = bearer(_open(bench)["token"])
    assert bench.post("/v1/sessions", token=session).json()["code"] == "token_wanted"
    assert bench.post("/v1/sessions/renew").json()["code"] == "session_wanted"


def test_a_session_that_can_be_stolen_makes_no_token(bench: Bench) -> None:
    """What ends in minutes makes nothing that does not."""
    session = bearer(_open(bench)["token"])
    answer = bench.post("/v1/tokens", {"role": "admin", "name": "mine now"}, token=session)
    assert (answer.status_code, answer.json()["code"]) == (403, "session_unbound")
    holder = Holder(bench)
    stolen = session["Authorization"].removeprefix("Bearer ")
    mine = {**session, "DPoP": holder.prove("POST", "/v1/tokens", token=stolen)}
    answer = bench.client.post("/v1/tokens", json={"role": "admin", "name": "mine now"}, headers=mine)
    assert answer.json()["code"] == "session_unbound"  # a key of the thief's choice binds nothing
    proof = holder.prove("POST", "/v1/tokens")
    headers = {"Authorization": f"DPoP {holder.token}", "DPoP": proof}
    made = bench.client.post("/v1/tokens", json={"role": "auditor", "name": "x"}, headers=headers)
    assert made.status_code == 201


def test_a_session_ends_with_the_token_that_opened_it(bench: Bench) -> None:
    lender = bench.token("lender")
    session = bearer(_open(bench, lender)["token"])
    identity = next(item["id"] for item in bench.get("/v1/tokens").json()["tokens"] if item["role"] == "lender")
    bench.client.delete(f"/v1/tokens/{identity}", headers=bench.admin)
    assert bench.get("/v1/loans", token=session).status_code == 401
    short = bench.token("lender", life_s=60)
    session = bearer(_open(bench, short)["token"])
    bench.clock.advance(60)
    assert bench.get("/v1/loans", token=session).status_code == 401


def test_a_session_is_ended_by_its_holder_and_by_an_admin_and_nobody_else(bench: Bench) -> None:
    lender, auditor = bench.token("lender"), bench.token("auditor")
    mine, other = _open(bench, lender), _open(bench, auditor)
    assert [item["session"] for item in bench.get("/v1/sessions", token=lender).json()["sessions"]] == [mine["session"]]
    assert len(bench.get("/v1/sessions").json()["sessions"]) == 2
    path = f"/v1/sessions/{other['session']}"
    assert bench.client.delete(path, headers=lender).status_code == 404
    assert bench.client.delete(path, headers=bearer(other["token"])).status_code == 200
    assert bench.get("/v1/loans", token=bearer(other["token"])).status_code == 401
    assert bench.client.delete(f"/v1/sessions/{mine['session']}", headers=bench.admin).status_code == 200
    assert bench.client.delete(f"/v1/sessions/{mine['session']}", headers=bench.admin).status_code == 404
    assert [kind for kind in bench.kinds() if kind.startswith("session_")] == ["session_opened"] * 2 + [
        "session_ended"
    ] * 2


def test_a_borrowers_session_sees_its_loan_and_no_other(bench: Bench) -> None:
    mine, theirs = bench.lend(), bench.lend()
    session = bearer(_open(bench, mine.token)["token"])
    assert bench.get(f"/v1/loans/{mine.id}/summary", token=session).status_code == 200
    assert bench.get(f"/v1/loans/{theirs.id}/summary", token=session).status_code == 404


def test_sessions_are_kept_as_hashes_and_bounded_for_each_token(bench: Bench) -> None:
    made = [_open(bench) for _ in range(16)]
    assert bench.post("/v1/sessions").json()["code"] == "too_many_sessions"
    shown = bench.get("/v1/sessions").text
    assert not [item for item in made if item["token"] in shown or hash_token(item["token"]).hex() in shown]
    bench.restart()
    assert bench.get("/v1/loans", token=bearer(made[0]["token"])).status_code == 200
    bench.clock.advance(2 * 86_400)
    _open(bench)
    with bench.service.context.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM session").scalar_one() == 1


def test_a_life_of_ones_own_is_within_bounds(bench: Bench) -> None:
    for life_s in (0, 59, 43_201, -1, True, "60"):
        assert bench.post("/v1/sessions", {"life_s": life_s}).status_code == 400
    session = bearer(_open(bench, life_s=60)["token"])
    bench.clock.advance(60)
    assert bench.get("/v1/loans", token=session).status_code == 401
    with pytest.raises(UsageError):
        load_config("[custodian]\nsession_ttl_s = 900\nsession_max_s = 60", environment={}, now=bench.clock())


# A session that is bound to a key


def test_a_stolen_session_token_alone_is_worthless(bench: Bench) -> None:
    """Without the key: as a bearer, with an old proof, with a proof of the thief's own key."""
    holder = Holder(bench)
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": dump_b64u(holder.key.public_key().public_bytes_raw())}
    assert holder.made["jkt"] == dump_b64u(thumbprint(jwk))
    used = holder.prove("GET", "/v1/loans")
    assert holder.get("/v1/loans", used).status_code == 200
    as_bearer = holder.get("/v1/loans", "", scheme="Bearer")
    assert (as_bearer.status_code, as_bearer.json()["code"]) == (401, "unauthenticated")
    assert holder.get("/v1/loans", scheme="Bearer").status_code == 401, "no downgrade, not even with a good proof"
    missing = holder.get("/v1/loans", "")
    assert (missing.status_code, missing.json()["code"]) == (401, "dpop_invalid")
    assert missing.headers["www-authenticate"] == 'DPoP error="invalid_dpop_proof", algs="ES256 EdDSA"'
    replayed = holder.get("/v1/loans", used)
    assert (replayed.status_code, replayed.json()["code"]) == (401, "dpop_invalid")
    thief = Holder(bench, bench.token("auditor"))
    assert holder.get("/v1/loans", thief.prove("GET", "/v1/loans", token=holder.token)).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"address": "https://localhost:8443/v1/models"},
        {"address": "https://evil.example:8443/v1/loans"},
        {"address": "http://localhost:8443/v1/loans"},
        {"address": "https://localhost/v1/loans"},
        {"token": "clss_" + "A" * 43},
    ],
    ids=repr,
)
def test_a_proof_for_another_request_is_none_for_this(bench: Bench, changes: dict[str, Any]) -> None:
    holder = Holder(bench)
    said = {"method": "GET", "path": "/v1/loans", **changes}
    assert holder.get("/v1/loans", holder.prove(**said)).status_code == 401
    assert holder.get("/v1/loans?after=1").status_code == 200


def test_a_proof_is_for_a_name_of_the_custodian_whatever_the_host_header_says(bench: Bench) -> None:
    """Who passes a request on from another server may say any host."""
    holder = Holder(bench)
    good = holder.prove("GET", "/v1/loans", address="https://127.0.0.1:8443/v1/loans")
    assert holder.get("/v1/loans", good).status_code == 200
    bad = holder.prove("GET", "/v1/loans", address="https://evil.example:8443/v1/loans")
    headers = {"Authorization": f"DPoP {holder.token}", "DPoP": bad, "Host": "evil.example:8443"}
    assert bench.client.get("/v1/loans", headers=headers).status_code == 401


def test_a_proof_is_good_for_a_minute_either_way(bench: Bench) -> None:
    holder = Holder(bench)
    proof = holder.prove("GET", "/v1/loans")
    bench.clock.advance(61)
    assert holder.get("/v1/loans", proof).status_code == 401
    proof = holder.prove("GET", "/v1/loans")
    bench.clock.advance(-61)
    assert holder.get("/v1/loans", proof).status_code == 401


def test_two_proofs_at_once_are_none(bench: Bench) -> None:
    holder = Holder(bench)
    headers = [
        ("Authorization", f"DPoP {holder.token}"),
        ("DPoP", holder.prove("GET", "/v1/loans")),
        ("DPoP", holder.prove("GET", "/v1/loans")),
    ]
    assert bench.client.get("/v1/loans", headers=headers).status_code == 401


def test_a_long_lived_token_does_not_pass_for_a_bound_one(bench: Bench) -> None:
    token = bench.admin["Authorization"].removeprefix("Bearer ")
    holder = Holder(bench)
    headers = {"Authorization": f"DPoP {token}", "DPoP": holder.prove("GET", "/v1/loans", token=token)}
    assert bench.client.get("/v1/loans", headers=headers).json()["code"] == "unauthenticated"
    headers = {"Authorization": f"Bearer {token}", "DPoP": "nonsense"}
    assert bench.client.post("/v1/sessions", json={}, headers=headers).json()["code"] == "dpop_invalid"


def test_proofs_that_are_remembered_are_bounded_and_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only holders of good tokens get to be remembered; where there are too many, none more is taken."""
    monkeypatch.setattr(proofs, "_MAX_SEEN", 5)
    holder = Holder(bench)
    for _ in range(200):
        bench.client.get("/v1/loans", headers={"Authorization": "DPoP clss_" + "A" * 43, "DPoP": "x.y.z"})
    bench.clock.advance(60)  # strangers' failures are over
    assert len(bench.service.proofs) == 1
    codes = [holder.get("/v1/loans").status_code for _ in range(6)]
    assert codes == [200] * 4 + [503] * 2
    bench.clock.advance(121)
    assert holder.get("/v1/loans").status_code == 200
    assert len(bench.service.proofs) == 1


def test_an_event_stream_is_followed_with_the_proof_that_opened_it(bench: Bench) -> None:
    """The proof is taken once, and the session is looked at again before each piece of news."""
    holder = Holder(bench)
    shown = Presented(
        authorization=f"DPoP {holder.token}", proof=holder.prove("GET", "/v1/events"), method="GET", path="/v1/events"
    )
    assert bench.service.authenticate(shown).session == holder.made["session"]
    with pytest.raises(Rejected):
        bench.service.authenticate(shown)
    assert bench.service.authenticate(shown, again=True).session == holder.made["session"]
    bench.client.delete(f"/v1/sessions/{holder.made['session']}", headers=bench.admin)
    with pytest.raises(Rejected):
        bench.service.authenticate(shown, again=True)


def test_with_a_nonce_a_proof_is_for_this_process_alone(place: Path) -> None:
    with Bench(place, settings={"dpop_nonce": True}) as bench:
        opener = bench.init.admin_token
        key = Ed25519PrivateKey.generate()
        holder = Holder.__new__(Holder)
        holder.bench, holder.key, holder.token = bench, key, opener

        def opened(**more: Any) -> httpx.Response:
            proof = holder.prove("POST", "/v1/sessions", **more)
            return bench.client.post("/v1/sessions", json={}, headers={**bearer(opener), "DPoP": proof})

        refused = opened()
        assert (refused.status_code, refused.json()["code"]) == (401, "dpop_nonce_wanted")
        assert refused.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
        nonce = refused.headers["dpop-nonce"]
        made = opened(nonce=nonce)
        assert made.status_code == 201
        holder.token = made.json()["token"]
        assert holder.get("/v1/loans").status_code == 401
        assert holder.get("/v1/loans", holder.prove("GET", "/v1/loans", nonce=nonce)).status_code == 200
        bench.clock.advance(121)
        assert holder.get("/v1/loans", holder.prove("GET", "/v1/loans", nonce=nonce)).status_code == 401
        for _ in range(100):
            assert holder.get("/v1/loans").json()["code"] == "dpop_nonce_wanted", "asking for a nonce is no failure"
        nonce = holder.get("/v1/loans").headers["dpop-nonce"]
        bench.restart()
        assert holder.get("/v1/loans", holder.prove("GET", "/v1/loans", nonce=nonce)).status_code == 401


def test_a_proof_for_one_tenant_is_none_for_another(place: Path) -> None:
    """One host, one name, one key: what tells them apart is the address below which each is."""
    with HostBench(place) as host:
        ours, theirs = host.tenant("ours"), host.tenant("theirs")
        holder = Holder(ours)
        assert holder.get("/v1/loans").status_code == 200
        assert ours.service.url.endswith("/t/ours")
        elsewhere = holder.prove("GET", "/v1/loans", address=f"{theirs.service.url}/v1/loans")
        assert holder.get("/v1/loans", elsewhere).status_code == 401
        bare = holder.prove("GET", "/v1/loans", address=f"{ours.service.url.removesuffix('/t/ours')}/v1/loans")
        assert holder.get("/v1/loans", bare).status_code == 401
        good = holder.prove("GET", "/v1/loans")
        headers = {"Authorization": f"DPoP {holder.token}", "DPoP": good}
        assert theirs.client.get("/v1/loans", headers=headers).status_code == 401
