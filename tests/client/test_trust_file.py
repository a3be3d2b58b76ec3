"""The trust file: complete, consistent, and nothing skipped without saying so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from client_town import Town

from cloister.attest.rules import NotChecked
from cloister.client import Trust
from cloister.crypto.sign import SigningKey
from cloister.errors import Malformed, UsageError
from cloister.wire import dump_json
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Town().trust().dump())
    return found


def test_what_is_written_is_read_back() -> None:
    trust = Town().trust(tpm_authorities=(PEM,), tls=NotChecked("loopback"))
    assert Trust.parse(trust.dump()) == trust
    loose = Town().trust(
        custodian=NotChecked("offline"), operators=NotChecked("anybody"), models=NotChecked("whatever is served")
    )
    assert Trust.parse(loose.dump()) == loose


def test_a_trust_file_may_be_written_by_hand() -> None:
    trust = Trust.parse(json.dumps(document(), indent=4).encode())
    assert trust.digest_of("digits")
    with pytest.raises(UsageError, match="not in the trust"):
        trust.digest_of("letters")


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda found: found.pop(name)


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *names, value = path
        for name in names[:-1]:
            found = found[name]
        found[names[-1]] = value

    return change


BAD = {
    "no version": without("v"),
    "version 2": put("v", 2),
    "no policy": without("policy"),
    "no custodian": without("custodian"),
    "no operator": without("operator"),
    "no models": without("models"),
    "no tls": without("tls"),
    "unknown member": put("extra", 1),
    "custodian null": put("custodian", None),
    "operators empty": put("operator", "one_of", []),
    "models empty": put("models", "pinned", {}),
    "empty reason": put("operator", {"not_checked": ""}),
    "reason and value": put("operator", {"not_checked": "x", "one_of": ["y"]}),
    "short digest": put("models", "pinned", {"digits": "ab"}),
    "upper-case digest": put("models", "pinned", {"digits": "AB" * 32}),
    "model out of form": put("models", "pinned", {"../x": "ab" * 32}),
    "custodian by ftp": put("custodian", "url", "ftp://x"),
    "custodian with password": put("custodian", "url", "https://a:b@x"),
    "short key": put("custodian", "key", "AAAA"),
    "key of small order": put("custodian", "key", "A" * 43),
    "ca no pem": put("custodian", "ca_pem", "MIIB"),
    "ca beyond ascii": put("custodian", "ca_pem", PEM.replace("AA==", "ä")),
    "ca missing": lambda found: found["custodian"].pop("ca_pem"),
    "tls ca no pem": put("tls", {"ca_pem": "x"}),
    "authority no pem": put("tpm_authorities", ["x"]),
    "authorities no list": put("tpm_authorities", PEM),
    "simulated without root": without("simulated_root"),
    "tpm without authority": put("policy", "tees", "tpm", {"device": {"not_checked": "x"}}),
    "operator without custodian": put("custodian", {"not_checked": "offline"}),
    "policy of no tee": put("policy", "tees", {}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_trust_files_are_malformed(name: str) -> None:
    found = document()
    BAD[name](found)
    with pytest.raises(Malformed):
        Trust.parse(json.dumps(found).encode())


def test_double_members_are_malformed() -> None:
    text = json.dumps(document())
    with pytest.raises(Malformed):
        Trust.parse(text.replace('"v": 1', '"v": 1, "v": 1', 1).encode())


def test_ten_thousand_mutations_raise_malformed_only() -> None:
    good = Town().trust(tpm_authorities=(PEM,)).dump()
    for data in mutated(good, count=10_000, seed=11):
        try:
            Trust.parse(data)
        except Malformed:
            continue


def test_contradictions_are_refused_when_made_in_code_too() -> None:
    with pytest.raises(UsageError, match="no operator"):
        Town().trust(operators=())
    with pytest.raises(UsageError, match="pin the custodian"):
        Town().trust(custodian=NotChecked("offline"))
    with pytest.raises(UsageError, match="simulated_root"):
        Town().trust(simulated_root=None)


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.json"):
        Trust.load(tmp_path / "missing.json")
    with pytest.raises(UsageError):
        Trust.load(tmp_path)
    path = tmp_path / "trust.json"
    path.write_bytes(Town().trust().dump())
    Trust.load(str(path))
    path.write_bytes(b" " * (1 << 20))
    with pytest.raises(Malformed):
        Trust.load(path)


def test_a_borrowers_key_may_be_pinned_and_is_spelled_only_where_it_is() -> None:
    plain = Trust.parse(dump_json(document()))
    assert b"borrower" not in plain.dump()
    key = SigningKey(bytes(32)).verify_key
    pinned = Trust.parse(dump_json({**document(), "borrower": {"key": key.dump()}}))
    assert pinned.borrower == key
    assert Trust.parse(pinned.dump()) == pinned
    for wrong in ({"key": "AAAA"}, {"key": key.dump(), "more": 1}, {"not_checked": ""}, None):
        with pytest.raises(Malformed):
            Trust.parse(dump_json({**document(), "borrower": wrong}))


def test_a_pinned_contract_is_spelled_only_where_it_is() -> None:
    plain = Trust.parse(dump_json(document()))
    assert b"contract" not in plain.dump()
    pinned = Trust.parse(dump_json({**document(), "contract": {"digest": "ab" * 32}}))
    assert pinned.contract == "ab" * 32
    assert Trust.parse(pinned.dump()) == pinned


def test_ten_thousand_mutations_of_a_trust_with_a_contract_raise_malformed_only() -> None:
    good = Town().trust(contract="ab" * 32, borrower=SigningKey(bytes(32)).verify_key).dump()
    for data in mutated(good, count=10_000, seed=12):
        try:
            Trust.parse(data)
        except Malformed:
            continue
