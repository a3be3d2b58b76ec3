"""Which TEE a machine is in: what is said about each interface, what is chosen, and what is left to a person."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from guest_fakes import REPORTS, FakeNvml, TsmKernel

from cloister.attest.rats import TeeKind
from cloister.enclave.attesters.azure_vtpm import AzureVtpmAttester
from cloister.enclave.attesters.confidential_space import ConfidentialSpaceAttester
from cloister.enclave.attesters.configfs_tsm import TsmAttester
from cloister.enclave.attesters.detect import Finding, Strength, choose, look
from cloister.enclave.attesters.files import LocalFiles
from cloister.enclave.attesters.gce_vtpm import GceVtpmAttester
from cloister.enclave.attesters.gramine import GramineAttester
from cloister.enclave.attesters.machine import Machine
from cloister.enclave.attesters.nsm import NsmAttester
from cloister.enclave.attesters.psa_source import PsaAttester
from cloister.enclave.attesters.sev_guest import SevGuestAttester
from cloister.enclave.attesters.table import CPU_KINDS, TPM_KINDS, Given, cpu_attester, tpm_attester
from cloister.enclave.attesters.tpm import TpmAttester
from cloister.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.attesters.nvml import NvmlLibrary

DCAP = {"dev/attestation/attestation_type": b"dcap\n"}


def no_library() -> NvmlLibrary:
    msg = "nvml: libnvidia-ml.so.1 is not there"
    raise Unavailable(msg)


def machine(root: Path, *, gpus: int | None = None, **kernel: object) -> Machine:
    fake = TsmKernel(LocalFiles(root), **kernel) if kernel else None  # type: ignore[arg-type]
    return Machine(root=root, kernel=fake, nvml=no_library if gpus is None else lambda: FakeNvml(gpus))


def tree(root: Path, *paths: str, **files: bytes) -> None:
    for path, data in {**dict.fromkeys(paths, b""), **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def notes(found: Machine) -> dict[str, str]:
    return {item.interface: item.note for item in look(found)}


def test_a_machine_with_nothing_says_so_of_every_interface(tmp_path: Path) -> None:
    assert notes(machine(tmp_path)) == {
        "configfs-tsm": f"/{REPORTS}: not there (not mounted, or linux before 6.7)",
        "/dev/sev-guest": "not there",
        "/dev/tdx_guest": "not there",
        "/dev/nsm": "not there",
        "gramine": "/dev/attestation/attestation_type: not there",
        "tpm": "/dev/tpmrm0: not there",
        "confidential space": "/run/container_launcher/teeserver.sock: not there",
        "psa": "linux has no interface: name a file or socket that gives tokens",
        "nvml": "libnvidia-ml.so.1 is not there",
    }
    with pytest.raises(Unavailable, match=r"no tee found: configfs-tsm: .*; /dev/nsm: not there; ") as refused:
        choose(look(machine(tmp_path)))
    assert "--tee" in (refused.value.hint or "")


@pytest.mark.parametrize(("provider", "tee"), [("sev_guest", "snp"), ("tdx_guest", "tdx"), ("arm_cca_guest", "cca")])
def test_configfs_tsm_is_told_by_its_provider(tmp_path: Path, provider: str, tee: str) -> None:
    found = machine(tmp_path, provider=provider)
    assert notes(found)["configfs-tsm"] == f"mounted, provider {provider}"
    choice = choose(look(found))
    assert (choice.tee, choice.interface) == (TeeKind(tee), "configfs-tsm")
    assert choice.why == "hardware tee, nothing else was found"
    assert not found.kernel.requests  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kernel", "shown"),
    [
        ({"provider": ""}, "mounted, but cannot make a directory"),
        ({"provider": "new_guest"}, "mounted, provider new_guest, which is unknown here"),
        ({"errors": {"provider": [errno.EACCES]}}, "permission denied"),
    ],
)
def test_configfs_tsm_that_gives_no_report_is_said(tmp_path: Path, kernel: dict[str, object], shown: str) -> None:
    findings = look(machine(tmp_path, **kernel))
    assert shown in findings[0].note
    with pytest.raises(Unavailable):
        choose(findings)


def test_the_older_snp_device_is_used_where_configfs_has_no_driver(tmp_path: Path) -> None:
    tree(tmp_path, "dev/sev-guest")
    found = machine(tmp_path, provider="")
    assert (choose(look(found)).tee, choose(look(found)).interface) == (TeeKind("snp"), "/dev/sev-guest")
    assert isinstance(cpu_attester(TeeKind("snp"), found, Given()), SevGuestAttester)
    assert isinstance(cpu_attester(TeeKind("snp"), machine(tmp_path), Given()), SevGuestAttester)
    better = machine(tmp_path, provider="sev_guest")
    assert choose(look(better)).interface == "configfs-tsm"
    assert isinstance(cpu_attester(TeeKind("snp"), better, Given()), TsmAttester)


def test_the_tdx_device_alone_is_no_way_to_a_quote(tmp_path: Path) -> None:
    tree(tmp_path, "dev/tdx_guest")
    assert "mount it" in notes(machine(tmp_path))["/dev/tdx_guest"]
    with pytest.raises(Unavailable):
        choose(look(machine(tmp_path)))
    assert "through configfs-tsm" in notes(machine(tmp_path, provider="tdx_guest"))["/dev/tdx_guest"]


@pytest.mark.parametrize(("kind", "shown"), [(b"none", "'none'"), (b"", "''"), (b"x" * 65, "more than 64 bytes")])
def test_gramine_without_dcap_is_said(tmp_path: Path, kind: bytes, shown: str) -> None:
    tree(tmp_path, **{"dev/attestation/attestation_type": kind})
    assert shown in notes(machine(tmp_path))["gramine"]


def test_nitro_sgx_and_confidential_space_are_found(tmp_path: Path) -> None:
    for name, paths, files, tee in (
        ("nitro", ("dev/nsm",), {}, "nitro"),
        ("sgx", (), DCAP, "sgx"),
        ("space", ("run/container_launcher/teeserver.sock",), {}, "confidential-space"),
    ):
        tree(tmp_path / name, *paths, **files)
        assert choose(look(machine(tmp_path / name))).tee == TeeKind(tee)


def test_hardware_comes_before_a_clouds_token(tmp_path: Path) -> None:
    tree(tmp_path, "run/container_launcher/teeserver.sock")
    choice = choose(look(machine(tmp_path, provider="tdx_guest")))
    assert choice.tee == TeeKind("tdx")
    assert choice.why == "hardware tee, before confidential-space (token of a cloud)"


def test_two_kinds_of_one_strength_are_for_a_person_to_decide(tmp_path: Path) -> None:
    tree(tmp_path, "dev/nsm", **DCAP)
    with pytest.raises(UsageError, match=r"nitro \(/dev/nsm\), sgx \(gramine\)") as refused:
        choose(look(machine(tmp_path)))
    assert refused.value.hint == "name one: --tee nitro"


def test_one_kind_by_two_interfaces_is_no_question(tmp_path: Path) -> None:
    tree(tmp_path, "dev/sev-guest")
    assert choose(look(machine(tmp_path, provider="sev_guest"))).tee == TeeKind("snp")


@pytest.mark.parametrize("gpus", [0, 8])
def test_gpus_are_said_and_never_chosen(tmp_path: Path, gpus: int) -> None:
    found = machine(tmp_path, gpus=gpus)
    assert notes(found)["nvml"] == ("8 gpus" if gpus else "no gpu")
    with pytest.raises(Unavailable, match="no tee found"):
        choose(look(found))


def test_a_tpm_that_may_not_be_used_is_said(tmp_path: Path) -> None:
    tree(tmp_path, "dev/tpmrm0")
    (tmp_path / "dev/tpmrm0").unlink()
    (tmp_path / "dev/tpmrm0").mkdir()
    assert "cannot open" in notes(machine(tmp_path))["tpm"]
    assert "cannot connect" in notes(Machine(root=tmp_path, tpm=f"unix:{tmp_path}/none", nvml=no_library))["tpm"]


def test_strengths_are_in_order() -> None:
    order = [Strength.HARDWARE, Strength.VTPM, Strength.TOKEN, Strength.TPM, Strength.DEVICE]
    assert sorted(Strength) == order
    findings = [
        Finding(interface=item.name, note="", tee=TeeKind(item.name.lower()), strength=item) for item in reversed(order)
    ]
    for best in order[:-1]:
        assert choose(findings).tee == best.name.lower()
        findings.pop()


class Unasked:
    """A TPM that nobody asks anything."""

    def transceive(self, command: bytes) -> bytes:
        raise AssertionError(command)

    def close(self) -> None:
        """Nothing to let go."""


def test_every_kind_has_its_attester(tmp_path: Path) -> None:
    found = machine(tmp_path)
    classes = {
        "cca": TsmAttester,
        "confidential-space": ConfidentialSpaceAttester,
        "nitro": NsmAttester,
        "psa": PsaAttester,
        "sgx": GramineAttester,
        "snp": TsmAttester,
        "tdx": TsmAttester,
    }
    assert set(classes) == CPU_KINDS
    for kind, made in classes.items():
        attester = cpu_attester(TeeKind(kind), found, Given(audience="a", psa="token"))
        assert isinstance(attester, made)
        assert attester.tee == kind
    classes = {
        "azure-snp-vtpm": AzureVtpmAttester,
        "azure-tdx-vtpm": AzureVtpmAttester,
        "gce-vtpm": GceVtpmAttester,
        "tpm": TpmAttester,
    }
    assert set(classes) == TPM_KINDS
    for kind, made in classes.items():
        attester = tpm_attester(TeeKind(kind), Unasked(), found, Given(certificates=(b"certificate",)))
        assert isinstance(attester, made)
        assert attester.tee == kind


def test_what_the_machine_cannot_say_is_asked_for(tmp_path: Path) -> None:
    for kind, shown in (("psa", "place"), ("confidential-space", "audience"), ("tpm", "want one of")):
        with pytest.raises(UsageError, match=shown):
            cpu_attester(TeeKind(kind), machine(tmp_path), Given())
    with pytest.raises(UsageError, match="no certificate"):
        tpm_attester(TeeKind("tpm"), Unasked(), machine(tmp_path), Given())


def test_the_boots_log_is_taken_from_the_machines_own_tree(tmp_path: Path) -> None:
    tree(tmp_path, **{"sys/kernel/security/tpm0/binary_bios_measurements": b"no log"})
    with pytest.raises(Exception, match="event log"):
        tpm_attester(TeeKind("gce-vtpm"), Unasked(), machine(tmp_path), Given())
    there = Machine(root=tmp_path, tpm="unix:elsewhere", nvml=no_library)
    assert tpm_attester(TeeKind("gce-vtpm"), Unasked(), there, Given()).tee == "gce-vtpm"
