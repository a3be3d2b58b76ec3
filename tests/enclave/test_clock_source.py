"""Where an enclave says its time comes from: read from the machine, guarded only where a TEE really guards it (T37)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cloister.attest.schemes.table import MAKERS
from cloister.enclave.clock_source import find_clock_source
from cloister.lending.clock_trust import CLOCK_TEES

if TYPE_CHECKING:
    from pathlib import Path


def machine(root: Path, kernel: bytes, *, sev_status: int | None = None) -> Path:
    folder = root / "sys/devices/system/clocksource/clocksource0"
    folder.mkdir(parents=True)
    (folder / "current_clocksource").write_bytes(kernel)
    if sev_status is not None:
        (root / "dev/cpu/0").mkdir(parents=True)
        with (root / "dev/cpu/0/msr").open("wb") as file:
            os.truncate(file.fileno(), 0xC0010131)
            file.seek(0xC0010131)
            file.write(sev_status.to_bytes(8, "little"))
    return root


@pytest.mark.parametrize(
    ("tee", "kernel", "sev_status", "name"),
    [
        ("tdx", b"tsc\n", None, "tdx_module"),
        ("tdx", b"kvm-clock\n", None, "host"),
        ("tdx", b"hyperv_clocksource_tsc_page\n", None, "host"),
        ("snp", b"tsc\n", 1 << 11 | 7, "secure_tsc"),
        ("snp", b"tsc\n", 7, "host"),
        ("snp", b"tsc\n", None, "host"),
        ("snp", b"kvm-clock\n", 1 << 11, "host"),
        ("nitro", b"kvm-clock\n", None, "hypervisor"),
        ("sgx", b"tsc\n", None, "host"),
        ("simulated", b"tsc\n", None, "simulated"),
        ("something-new", b"tsc\n", 1 << 11, "host"),
    ],
)
def test_a_source_is_guarded_only_where_tee_and_kernel_agree(
    tmp_path: Path, tee: str, kernel: bytes, sev_status: int | None, name: str
) -> None:
    found = find_clock_source(tee, machine(tmp_path, kernel, sev_status=sev_status))
    assert found.name == name
    assert found.guarded == (name in {"tdx_module", "secure_tsc"})
    assert found.why


@pytest.mark.parametrize("said", [b"", b"\xff\xfe", b"tsc; rm -rf", b"\x1b[2J", b"x" * 4096])
def test_a_strange_kernel_source_is_unknown_and_never_guarded(tmp_path: Path, said: bytes) -> None:
    found = find_clock_source("tdx", machine(tmp_path, said))
    assert not found.guarded
    assert found.kernel in {"unknown", "x" * 64}


def test_a_machine_without_the_files_is_unknown(tmp_path: Path) -> None:
    for tee in MAKERS:
        found = find_clock_source(tee, tmp_path)
        assert (found.kernel, found.guarded) == ("unknown", False)


def test_no_tee_is_guarded_here_that_a_custodian_could_not_count_on(tmp_path: Path) -> None:
    root = machine(tmp_path, b"tsc", sev_status=1 << 11)
    assert {tee for tee in MAKERS if find_clock_source(tee, root).guarded} <= CLOCK_TEES
