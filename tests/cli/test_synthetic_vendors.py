"""``custodian serve --insecure-synthetic-vendors``: loud, never by default, never in production."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import pytest
from cli_kit import listens

from cloister.attest.binding import ReleaseBinding
from cloister.attest.rats import Nonce
from cloister.attest.schemes import KINDS, NO_SITE, production_schemes
from cloister.cli.verifiers import verifier_maker
from cloister.enclave.evidence import EvidenceSource
from cloister.errors import Rejected
from cloister.testing.ports import free_port
from cloister.testing.simulated_root import SimulatedRoot
from cloister.testing.vendors.fleet import MACHINES, Machine
from cloister.testing.vendors.public import WARNING, PublicVendors

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Shell

    from cloister.attest.verifier import Verifier

OPTION = "--insecure-synthetic-vendors"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WITHOUT_SITE = {scheme.tee for scheme in production_schemes(NO_SITE)}


@cache
def nitro() -> Machine:
    return MACHINES["nitro"](bytes(32), lambda: NOW)


def judge(verifier: Verifier) -> str:
    """Judge fresh evidence of the machine; return its kind."""
    unbound = ReleaseBinding(
        nonce=Nonce(bytes(32)), custodian=b"c" * 32, instance_pub=b"i" * 32, kem_pub=b"k" * 1216, software=b"{}"
    )
    evidence, binding = EvidenceSource(attester=nitro().attester).collect(unbound)
    return verifier.verify(evidence, binding, nitro().policy, NOW).tee


def test_without_the_option_no_synthetic_vendor_is_believed() -> None:
    verifier = verifier_maker(None, None)(NO_SITE)
    assert verifier.tees == WITHOUT_SITE
    with pytest.raises(Rejected):
        judge(verifier)


def test_with_it_the_real_vendor_of_that_kind_is_believed_no_more() -> None:
    vendors = PublicVendors.of([nitro()])
    verifier = verifier_maker(None, vendors)(NO_SITE)
    assert judge(verifier) == "nitro"
    assert verifier.tees == WITHOUT_SITE  # one scheme for the kind: the verifier refuses a second


def test_it_goes_together_with_the_simulated_tee(tmp_path: Path) -> None:
    SimulatedRoot.generate().save_public(tmp_path / "root.pub.json")
    verifier = verifier_maker(tmp_path / "root.pub.json", PublicVendors.of([nitro()]))(NO_SITE)
    assert judge(verifier) == "nitro"
    assert verifier.tees == WITHOUT_SITE | {"simulated"}
    assert "simulated" not in KINDS


def test_production_refuses_it(shell: Shell) -> None:
    """T88."""
    PublicVendors.of([nitro()]).save(shell.folder / "vendors.json")
    shell.ok("custodian", "init", "--port", str(free_port()), "--profile", "production")
    said = shell("custodian", "serve", OPTION, "vendors.json")
    assert said.code == 2
    assert f"{OPTION}: refused by profile production" in said.err


def test_a_file_out_of_form_is_refused_before_anything_is_served(shell: Shell) -> None:
    shell.ok("custodian", "init", "--port", str(free_port()))
    (shell.folder / "vendors.json").write_text("{}")
    assert shell("custodian", "serve", OPTION, "vendors.json").code == 3
    assert shell("custodian", "serve", OPTION, "nobody.json").code == 2


def test_it_is_said_loudly(shell: Shell) -> None:
    port = free_port()
    PublicVendors.of([nitro()]).save(shell.folder / "vendors.json")
    shell.ok("custodian", "init", "--port", str(port))
    with shell.start("custodian", "serve", OPTION, "vendors.json") as server:
        server.until(lambda: listens(port))
        assert server.stop() == 0
        assert WARNING in " ".join(server.log.read_text().split())


def test_a_custodian_without_insecure_options_loads_no_test_kit() -> None:
    program = (
        "import sys, cloister.cli.custodian, cloister.custodian.serve;"
        "from cloister.attest.schemes import NO_SITE;"
        "cloister.cli.verifiers.verifier_maker(None, None)(NO_SITE);"
        "sys.exit(any(name.startswith('cloister.testing') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0  # noqa: S603 - ours
