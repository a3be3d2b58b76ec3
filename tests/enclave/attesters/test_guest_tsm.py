"""configfs-tsm over a kernel that counts writes, is raced, is busy, or has no driver."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from guest_fakes import REPORTS, TsmKernel

from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind
from cloister.enclave.attesters.configfs_tsm import CCEL, MAX_CCEL_BYTES, TsmAttester, tsm_provider
from cloister.enclave.attesters.files import LocalFiles
from cloister.errors import Malformed, Unavailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SNP, TDX, CCA = TeeKind("snp"), TeeKind("tdx"), TeeKind("cca")
DATA = bytes(range(64))
CAPS = dict.fromkeys(("report", "certs", "quote", "ccel", "token"), 1 << 20)


@pytest.fixture
def kernel(tmp_path: Path) -> TsmKernel:
    return TsmKernel(LocalFiles(tmp_path))


def parts(attester: TsmAttester) -> dict[str, bytes]:
    evidence = attester.collect(DATA)
    assert evidence.tee == attester.tee
    return parse_parts(evidence.payload, what="evidence", caps=CAPS)


def test_an_snp_report_is_asked_for_at_the_lowest_level_and_comes_with_certificates(kernel: TsmKernel) -> None:
    assert parts(TsmAttester(kernel, SNP)) == {"report": b"report 0 " + DATA, "certs": b"certificates"}
    assert kernel.writes == [("privlevel", b"0"), ("inblob", DATA)]
    assert kernel.made
    assert not kernel.requests, "a directory was left behind"


def test_hosts_without_certificates_send_the_report_alone(kernel: TsmKernel) -> None:
    kernel.aux = b""
    assert set(parts(TsmAttester(kernel, SNP))) == {"report"}


def test_a_guest_above_a_paravisor_asks_at_its_own_level(kernel: TsmKernel) -> None:
    kernel.floor = 2
    assert parts(TsmAttester(kernel, SNP))["report"] == b"report 2 " + DATA
    assert parts(TsmAttester(kernel, SNP, privlevel=3))["report"] == b"report 3 " + DATA
    with pytest.raises(UsageError, match="privlevel 1, this guest may ask for 2"):
        TsmAttester(kernel, SNP, privlevel=1).collect(DATA)
    assert not kernel.requests


@pytest.mark.parametrize("level", [-1, 4])
def test_privilege_levels_that_no_kernel_has_are_refused(kernel: TsmKernel, level: int) -> None:
    with pytest.raises(UsageError, match="privlevel"):
        TsmAttester(kernel, SNP, privlevel=level)
    with pytest.raises(UsageError, match="privlevel"):
        TsmAttester(kernel, TDX, privlevel=0)


@pytest.mark.parametrize(("tee", "provider", "role"), [(TDX, "tdx_guest", "quote"), (CCA, "arm_cca_guest", "token")])
def test_tdx_and_cca_have_no_privilege_level(kernel: TsmKernel, tee: TeeKind, provider: str, role: str) -> None:
    kernel.provider = provider
    assert parts(TsmAttester(kernel, tee)) == {role: b"report 0 " + DATA}
    assert kernel.writes == [("inblob", DATA)]


def test_the_event_log_of_a_tdx_guest_is_sent_along(kernel: TsmKernel, tmp_path: Path) -> None:
    kernel.provider = "tdx_guest"
    (tmp_path / CCEL).parent.mkdir(parents=True)
    (tmp_path / CCEL).write_bytes(b"events")
    assert parts(TsmAttester(kernel, TDX))["ccel"] == b"events"
    (tmp_path / CCEL).write_bytes(bytes(MAX_CCEL_BYTES + 1))
    with pytest.raises(Malformed, match="more than"):
        TsmAttester(kernel, TDX).collect(DATA)


@pytest.mark.parametrize("when", ["races", "late_races"])
def test_what_a_second_writer_made_is_thrown_away(kernel: TsmKernel, when: str) -> None:
    setattr(kernel, when, 2)
    assert parts(TsmAttester(kernel, SNP))["report"] == b"report 0 " + DATA
    assert len(kernel.made) == 3
    assert not kernel.requests


@pytest.mark.parametrize("when", ["races", "late_races"])
def test_a_second_writer_without_end_is_given_up_on(kernel: TsmKernel, when: str) -> None:
    setattr(kernel, when, 1000)
    with pytest.raises(Unavailable, match="raced 5 times") as refused:
        TsmAttester(kernel, SNP).collect(DATA)
    assert refused.value.retry_after_s == 1
    assert len(kernel.made) == 5
    assert not kernel.requests


@pytest.mark.parametrize("name", ["privlevel", "inblob", "outblob", "auxblob"])
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_busy_kernel_is_asked_again(kernel: TsmKernel, name: str, number: int) -> None:
    kernel.errors[name] = [number, number]
    assert parts(TsmAttester(kernel, SNP))["report"] == b"report 0 " + DATA
    assert len(kernel.made) == 3


@pytest.mark.parametrize("name", ["privlevel", "inblob", "outblob", "auxblob", "generation", "provider", "mkdir"])
def test_what_the_kernel_refuses_is_unavailable_with_its_word(kernel: TsmKernel, name: str) -> None:
    kernel.errors[name] = [errno.EIO]
    with pytest.raises(Unavailable, match="input/output error"):
        TsmAttester(kernel, SNP).collect(DATA)
    assert not kernel.requests


def test_a_directory_that_cannot_be_removed_is_said(kernel: TsmKernel) -> None:
    kernel.errors["rmdir"] = [errno.EBUSY]
    with pytest.raises(Unavailable, match="cannot remove"):
        TsmAttester(kernel, SNP).collect(DATA)
    kernel.errors = {"rmdir": [errno.EBUSY], "outblob": [errno.EIO]}
    with pytest.raises(Unavailable, match="no report"):  # the first failure counts
        TsmAttester(kernel, SNP).collect(DATA)


def test_who_may_not_make_directories_is_told_how(kernel: TsmKernel) -> None:
    kernel.errors["mkdir"] = [errno.EACCES]
    with pytest.raises(Unavailable, match="permission denied") as refused:
        TsmAttester(kernel, SNP).collect(DATA)
    assert "root" in (refused.value.hint or "")


def test_a_kernel_without_a_driver_is_unavailable(kernel: TsmKernel) -> None:
    kernel.provider = ""
    with pytest.raises(Unavailable) as refused:
        TsmAttester(kernel, SNP).collect(DATA)
    assert "no driver" in (refused.value.hint or "")


def test_a_kernel_without_the_interface_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such file"):
        TsmAttester(LocalFiles(tmp_path), TDX).collect(DATA)


def test_a_provider_of_another_tee_is_no_answer(kernel: TsmKernel) -> None:
    for provider in ("tdx_guest", "new_guest"):
        kernel.provider = provider
        assert tsm_provider(kernel) == provider
        with pytest.raises(Unavailable, match=f"provider {provider}, want one for snp"):
            TsmAttester(kernel, SNP).collect(DATA)
    assert not kernel.writes
    assert not kernel.requests


def test_a_provider_that_changes_between_two_requests_is_noticed(kernel: TsmKernel) -> None:
    attester = TsmAttester(kernel, SNP)
    attester.collect(DATA)
    kernel.provider = "tdx_guest"
    with pytest.raises(Unavailable, match="provider tdx_guest"):
        attester.collect(DATA)


@pytest.mark.parametrize("name", ["report", "aux"])
def test_blobs_without_end_are_malformed(kernel: TsmKernel, name: str) -> None:
    endless = bytes(32 * 1024 + 1)
    if name == "aux":
        kernel.aux = endless
    else:
        kernel.make = lambda _, __: endless
    with pytest.raises(Malformed, match="more than 32768 bytes"):
        TsmAttester(kernel, SNP).collect(DATA)
    assert not kernel.requests


def test_an_empty_report_is_none(kernel: TsmKernel) -> None:
    kernel.make = lambda _, __: b""
    with pytest.raises(Unavailable, match="empty"):
        TsmAttester(kernel, SNP).collect(DATA)


@pytest.mark.parametrize(("name", "text"), [("floor", "4"), ("floor", "-1"), ("floor", ""), ("provider", "a\x1b[2J")])
def test_attributes_out_of_form_are_malformed(kernel: TsmKernel, name: str, text: str) -> None:
    setattr(kernel, name, text)
    with pytest.raises(Malformed, match="configfs-tsm"):
        TsmAttester(kernel, SNP).collect(DATA)
    assert not kernel.requests


@pytest.mark.parametrize("size", [0, 32, 63, 65, 128])
def test_report_data_of_another_size_never_reach_the_kernel(kernel: TsmKernel, size: int) -> None:
    with pytest.raises(UsageError, match="want 64"):
        TsmAttester(kernel, SNP).collect(bytes(size))
    assert not kernel.made


def test_other_tees_have_no_reports_here(kernel: TsmKernel) -> None:
    with pytest.raises(UsageError, match="want cca, snp, tdx"):
        TsmAttester(kernel, TeeKind("nitro"))


def test_a_real_directory_is_written_in_one_write_and_read_to_its_end(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    (tmp_path / "sys/kernel/config/tsm").mkdir(parents=True)
    files.mkdir(REPORTS)
    (tmp_path / "inblob").write_bytes(b"something longer than what comes")
    files.write("inblob", b"short")
    assert files.read("inblob", cap=100) == b"short"
    (tmp_path / "outblob").write_bytes(bytes(200_000))
    assert files.read("outblob", cap=200_000) == bytes(200_000)
    assert len(files.read("outblob", cap=100_000)) == 100_001
    files.rmdir(REPORTS)
    assert not files.exists(REPORTS)
    with pytest.raises(FileNotFoundError):
        files.write("missing", b"")


def test_a_file_that_takes_half_a_write_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="space"):
        LocalFiles(tmp_path).write("full", b"data")
