"""Settings: every trap of list 7.7 that a file or an environment can set."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from custodian_kit import PASSPHRASE, SOFTWARE, START, Bench

from cloister.custodian.config import Config, setting_names
from cloister.custodian.config_file import default_config_text, load_config
from cloister.custodian.setup import init_custodian
from cloister.custodian.vaults.encrypted_file import Passphrase
from cloister.errors import UsageError
from cloister.testing.simulated import simulated_policy
from mutations import mutated

if TYPE_CHECKING:
    from pathlib import Path


def _load(text: str, **environment: str) -> Config:
    return load_config(text, environment=environment, now=START)


def test_an_empty_file_means_safe_defaults() -> None:
    config = _load("")
    assert config == Config()
    assert config.tls
    assert config.is_loopback
    assert not config.is_production


def test_the_file_we_write_is_the_file_we_read() -> None:
    values = {"name": 'a "quoted" name', "port": 9000, "names": ("localhost", "::1"), "tls": True}
    config = _load(default_config_text(values))
    assert (config.name, config.port, config.names) == (values["name"], 9000, ("localhost", "::1"))
    text = default_config_text({})
    assert all(f"{name} = " in text for name in setting_names())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[custodian]\nprot = 1\n", "line 2: unknown setting 'prot'"),
        ("port = 1\n", "line 1: unknown section or key 'port'"),
        ("[custodian]\n[custodain]\n", "line 2"),
        ("[custodian]\nport = 1\nport = 2\n", "config:"),
        ("[custodian]\n[custodian]\n", "config:"),
        ("[custodian]\nport = '8443'\n", "port: want an integer"),
        ("[custodian]\nport = true\n", "port: want an integer"),
        ("[custodian]\nport = 8443.0\n", "port: want an integer"),
        ("[custodian]\nport = 2026-01-01\n", "port: want an integer"),
        ("[custodian]\nport = -1\n", "port: -1 is outside"),
        ("[custodian]\nport = 65536\n", "outside"),
        ("[custodian]\ntls = 'yes'\n", "tls: want true or false"),
        ("[custodian]\ntls = 1\n", "tls: want true or false"),
        ("[custodian]\nnames = 'localhost'\n", "names: want an array"),
        ("[custodian]\nnames = []\n", "names"),
        ("[custodian]\nnames = ['a b']\n", "names"),
        ("[custodian]\nname = ''\n", "name"),
        ('[custodian]\nname = "a\\nb"\n', "control character"),
        ("[custodian]\nlease_ttl_s = 0\n", "lease_ttl_s: 0 is outside"),
        ("[custodian]\nlease_ttl_s = -1\n", "outside"),
        ("[custodian]\nlease_ttl_s = 1000000000\n", "outside"),
        ("[custodian]\nmax_ceiling = 0\n", "outside"),
        ("[custodian]\nprofile = 'staging'\n", "profile"),
        ("[custodian]\ntls_minimum = '1.1'\n", "tls_minimum"),
        ("[custodian]\nurl = 'ftp://x'\n", "url"),
        ("[custodian]\nendorsement_keys = ['short']\n", "endorsement_keys"),
        ("[custodian]\nrelease_retention_days = 0\n", "outside"),
        ("[custodian]\nurl = 'https://user:secret@x'\n", "url"),
        ("custodian = 3\n", "custodian: want a section"),
        ("\x00", "config:"),
        ("x" * 70_000, "characters"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_file_that_makes_no_sense_says_where(text: str, part: str) -> None:
    """List 107 to 111."""
    with pytest.raises(UsageError) as refused:
        _load(text)
    assert part in refused.value.message
    assert "secret" not in refused.value.message


def test_the_environment_wins_over_the_file() -> None:
    config = _load(
        "[custodian]\nport = 1\n",
        CLOISTER_CUSTODIAN_PORT="2",
        CLOISTER_CUSTODIAN_NAMES="a.example, b.example",
        CLOISTER_CUSTODIAN_TLS="true",
        CLOISTER_CUSTODIAN_KEY_FILE="/not/a/setting",
        OTHER="x",
    )
    assert (config.port, config.names) == (2, ("a.example", "b.example"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOISTER_CUSTODIAN_PROT", "1"), ("CLOISTER_CUSTODIAN_PORT", "0x10"), ("CLOISTER_CUSTODIAN_PORT", " 1"),
        ("CLOISTER_CUSTODIAN_PORT", "1_000"), ("CLOISTER_CUSTODIAN_TLS", "yes"), ("CLOISTER_CUSTODIAN_port", "1"),
        ("CLOISTER_CUSTODIAN_PORT", "\u0661"),
    ],
)  # fmt: skip
def test_a_strange_variable_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError):
        _load("", **{name: value})


@pytest.mark.parametrize(
    "text",
    [
        "tls = false\nhost = '0.0.0.0'\n",
        "tls = false\nhost = '192.0.2.1'\n",
        "tls = false\nprofile = 'production'\n",
        "profile = 'production'\nurl = 'http://custodian.example'\n",
    ],
)
def test_an_insecure_setting_is_refused(text: str) -> None:
    """T88, list 112 and 113."""
    with pytest.raises(UsageError):
        _load("[custodian]\n" + text)


def test_plain_http_is_for_loopback_in_development_only() -> None:
    assert not _load("[custodian]\ntls = false\n").tls
    assert not _load("[custodian]\ntls = false\nhost = '::1'\n").tls


def test_production_lends_to_no_simulated_tee(tmp_path: Path) -> None:
    """T88: the policy cannot name it, whatever the verifier knows."""
    with Bench(tmp_path, settings={"profile": "production"}) as bench:
        answer = bench.post("/v1/loans", bench.loan_body(policy=simulated_policy(SOFTWARE).to_json()))
        assert (answer.status_code, answer.json()["code"]) == (422, "insecure_refused")
        assert bench.get("/v1/loans").json()["loans"] == []


def test_an_insecure_init_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        init_custodian(tmp_path / "home", Passphrase(PASSPHRASE), settings={"tls": False, "profile": "production"})
    assert not (tmp_path / "home").exists()


def test_the_public_url_is_built_from_name_and_port() -> None:
    assert Config().public_url(1234) == "https://localhost:1234"
    assert Config(names=("::1",)).public_url(1) == "https://[::1]:1"
    assert Config(url="https://k.example/base/").public_url(1) == "https://k.example/base"


def test_every_setting_has_a_meaning_and_numbers_have_a_range() -> None:
    for item in fields(Config):
        assert item.metadata["doc"]
        if isinstance(item.default, int) and not isinstance(item.default, bool):
            assert item.metadata["floor"] <= item.default <= item.metadata["cap"], item.name


def test_a_damaged_config_is_the_callers_fault_and_nothing_else() -> None:
    text = default_config_text({name: getattr(Config(), name) for name in setting_names()})
    for damaged in mutated(text.encode(), seed=9):
        try:
            _load(damaged.decode("utf-8", "replace"))
        except UsageError:
            continue


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 20_000, "x = " + "{a=" * 9_000, "[custodian]\nport = " + "9" * 5_000, "x = 0x" + "f" * 9_000],
    ids=lambda text: text[:20],
)
def test_a_config_made_to_break_its_reader_is_the_callers_fault(text: str) -> None:
    """TOML nests and counts as deep as it likes; its reader does not."""
    with pytest.raises(UsageError):
        _load(text)
