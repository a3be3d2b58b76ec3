"""The simulated TEE: exact format, loud, its root in a file only its owner reads."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloister.attest.rats import Evidence, Verdict
from cloister.attest.rules import Exact, NotChecked, OneOf
from cloister.attest.software import SoftwareManifest
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.simulated import (
    SIMULATED,
    WARNING,
    SimulatedAttester,
    SimulatedRoot,
    SimulatedScheme,
    load_root_key,
    simulated_measurement,
    simulated_policy,
)
from mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 7, 1, tzinfo=UTC)
ROOT = SimulatedRoot(b"\x01" * 32)
SOFTWARE = SoftwareManifest(code="ab" * 32, python="3.11.9", packages={}, settings={"a": 1})
REPORT_DATA = bytes(range(64))
SCHEME = SimulatedScheme(ROOT.public)
SRC = Path(__file__).parents[2] / "src" / "cloister"


def _attester(**claims: Any) -> SimulatedAttester:
    return SimulatedAttester(ROOT, SOFTWARE, b"\x0c" * 32, **claims)


def test_claims_are_those_that_the_attester_was_started_with() -> None:
    evidence = _attester(debug=True, migratable=True, svn=7).collect(REPORT_DATA)
    verified = SCHEME.verify(evidence, {}, NOW)
    assert verified.claims == {
        "chip_id": (b"\x0c" * 32).hex(),
        "debug": True,
        "host_data": SOFTWARE.digest.hex(),
        "measurement": simulated_measurement(SOFTWARE),
        "migratable": True,
        "svn": 7,
    }
    assert verified.report_data == REPORT_DATA
    assert set(verified.claims) == SCHEME.required
    assert (verified.tee, len(evidence.payload), SCHEME.needs(evidence)) == (SIMULATED, 437, ())


def test_the_result_says_loudly_that_nothing_protects_it() -> None:
    checks = SCHEME.verify(_attester().collect(REPORT_DATA), {}, NOW).checks
    loud = [check for check in checks if check.verdict is Verdict.NOT_CHECKED]
    assert [(check.subject, check.note) for check in loud] == [("hardware", WARNING)]
    assert WARNING.startswith("SIMULATED")


def test_chips_of_one_root_have_keys_of_their_own_that_survive_a_restart() -> None:
    assert ROOT.chip(b"a" * 32).key_id == SimulatedRoot(b"\x01" * 32).chip(b"a" * 32).key_id
    assert len({ROOT.chip(bytes([n]) * 32).key_id for n in range(10)} | {ROOT.public.key_id}) == 11


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_report_data_must_fill_the_field(size: int) -> None:
    with pytest.raises(UsageError):
        _attester().collect(bytes(size))


def test_a_chip_id_of_another_size_is_our_mistake() -> None:
    with pytest.raises(UsageError):
        SimulatedAttester(ROOT, SOFTWARE, b"short")


def test_every_cut_and_every_added_byte_is_malformed() -> None:
    honest = _attester().collect(REPORT_DATA).payload
    for cut in range(len(honest)):
        with pytest.raises(Malformed):
            SCHEME.verify(Evidence(tee=SIMULATED, payload=honest[:cut]), {}, NOW)
    for more in (b"\x00", b"\xff" * 64, honest):
        with pytest.raises(Malformed):
            SCHEME.verify(Evidence(tee=SIMULATED, payload=honest + more), {}, NOW)


def test_every_flipped_bit_is_malformed_or_refused() -> None:
    honest = _attester().collect(REPORT_DATA).payload
    for bit in range(8 * len(honest)):
        flipped = bytearray(honest)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Rejected)):
            SCHEME.verify(Evidence(tee=SIMULATED, payload=bytes(flipped)), {}, NOW)


def test_ten_thousand_mutations_are_malformed_or_refused() -> None:
    honest = _attester().collect(REPORT_DATA).payload
    for data in mutated(honest):
        try:
            SCHEME.verify(Evidence(tee=SIMULATED, payload=data), {}, NOW)
        except (Malformed, Rejected):
            continue
        assert data == honest


def test_a_measurement_is_no_code_digest_and_changes_with_the_code_alone() -> None:
    assert len(simulated_measurement(SOFTWARE)) == 96
    assert simulated_measurement(SOFTWARE) == simulated_measurement("ab" * 32)
    assert simulated_measurement("ab" * 32) != simulated_measurement("ac" * 32)


def test_the_convenient_policy_pins_code_and_settings_or_says_that_it_does_not() -> None:
    rules = simulated_policy(SOFTWARE, version=3).tees[SIMULATED].rules
    assert rules["host_data"] == OneOf((SOFTWARE.digest.hex(),))
    assert rules["debug"] == rules["migratable"] == Exact(value=False)
    assert simulated_policy(SOFTWARE, version=3).version == 3
    loose = simulated_policy(simulated_measurement(SOFTWARE)).tees[SIMULATED].rules
    assert isinstance(loose["host_data"], NotChecked)
    assert loose["measurement"] == rules["measurement"]


# The root and its files.


def test_a_root_is_kept_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    root = SimulatedRoot.generate()
    root.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SimulatedRoot.load(path).public == root.public == load_root_key(path)
    assert json.loads(path.read_text())["warning"] == WARNING


def test_verifiers_need_the_public_half_only(tmp_path: Path) -> None:
    path = tmp_path / "root.pub.json"
    ROOT.save_public(path)
    assert load_root_key(path) == ROOT.public
    assert "seed" not in path.read_text()
    with pytest.raises(UsageError, match="public half"):
        SimulatedRoot.load(path)


def test_a_root_never_prints_its_seed() -> None:
    root = SimulatedRoot(b"\x41" * 32)
    assert repr(root) == str(root) == f"SimulatedRoot({root.public.key_id})"
    assert not hasattr(root, "__dict__")


def test_a_root_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    ROOT.save(path)
    before = path.read_bytes()
    for save in (ROOT.save, ROOT.save_public, SimulatedRoot.generate().save):
        with pytest.raises(UsageError, match="cannot write"):
            save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_seed_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "root.json"
    ROOT.save(path)
    path.chmod(mode)
    for load in (SimulatedRoot.load, load_root_key):
        with pytest.raises(UsageError, match="want 0600") as refused:
            load(path)
        assert "chmod 600" in (refused.value.hint or "")


def test_a_file_that_is_missing_or_a_folder_is_our_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            load_root_key(path)


def _without_kind(value: dict[str, Any]) -> None:
    del value["kind"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value.update(v=2),
        lambda value: value.update(kind="cloister-root"),
        lambda value: value.update(warning="all is well"),
        lambda value: value.update(public="AA"),
        lambda value: value.update(seed="AA"),
        lambda value: value.update(extra=1),
        lambda value: value.update(seed=SimulatedRoot(b"\x09" * 32).public.dump()),
        _without_kind,
    ],
)
def test_a_root_file_out_of_form_is_malformed(tmp_path: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    path = tmp_path / "root.json"
    ROOT.save(path)
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    with pytest.raises(Malformed):
        SimulatedRoot.load(path)


def test_an_endless_file_is_read_to_the_cap_only() -> None:
    with pytest.raises(Malformed, match="want at most"):
        load_root_key(Path("/dev/zero"))


def test_t9_no_party_and_no_production_table_mentions_the_simulated_tee() -> None:
    for room in ("attest", "custodian", "enclave", "client", "lending", "channel", "sealed"):
        for path in (SRC / room).rglob("*.py"):
            assert "cloister.testing" not in path.read_text(), path
