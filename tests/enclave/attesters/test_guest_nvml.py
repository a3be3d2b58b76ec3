"""NVIDIA's library as a fake that fills memory at the offsets of nvml.h."""

from __future__ import annotations

import ctypes

import pytest
from guest_fakes import FakeNvml

from cloister.attest.parts import parse_parts
from cloister.attest.rats import TeeKind
from cloister.enclave.attesters.nvml import (
    AttestationReport,
    GpuAttester,
    GpuCertificate,
    collect_gpus,
    count_gpus,
    gpu_attesters,
    load_nvml,
    set_ready,
)
from cloister.errors import Malformed, Unavailable, UsageError

NONCE = bytes(range(32))
CAPS = {"report": 1 << 14, "chain": 1 << 14}
REPORT_CALL = "nvmlDeviceGetConfComputeGpuAttestationReport"


def test_structures_have_the_layout_of_the_header() -> None:
    fields = {name: getattr(AttestationReport, name).offset for name, *_ in AttestationReport._fields_}
    assert list(fields.values()) == [0, 4, 8, 12, 44, 44 + 0x2000]
    assert ctypes.sizeof(AttestationReport) == 44 + 0x3000
    fields = {name: getattr(GpuCertificate, name).offset for name, *_ in GpuCertificate._fields_}
    assert list(fields.values()) == [0, 4, 8, 8 + 0x1000]
    assert ctypes.sizeof(GpuCertificate) == 8 + 0x2400


def test_every_gpu_answers_the_same_nonce() -> None:
    library = FakeNvml(gpus=3)
    found = collect_gpus(library, NONCE)
    assert [item.tee for item in found] == [TeeKind("nvidia-gpu")] * 3
    for index, item in enumerate(found):
        parts = parse_parts(item.payload, what="gpu", caps=CAPS)
        assert parts == {"report": b"gpu %d " % (0xD0 + index) + NONCE, "chain": b"chain of %d" % (0xD0 + index)}
    assert library.sessions == 0
    assert not library.ready, "nothing was verified"
    assert len(gpu_attesters(library)) == count_gpus(library) == 3


def test_a_machine_without_a_gpu_is_unavailable() -> None:
    library = FakeNvml(gpus=0)
    assert gpu_attesters(library) == ()
    with pytest.raises(Unavailable, match="no gpu"):
        collect_gpus(library, NONCE)


@pytest.mark.parametrize(
    ("code", "shown"), [(3, "confidential computing"), (4, "permission"), (10, "timeout"), (15, "bus"), (999, "999")]
)
@pytest.mark.parametrize(
    "name",
    [
        "nvmlInit_v2",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        REPORT_CALL,
        "nvmlDeviceGetConfComputeGpuCertificate",
    ],
)
def test_what_the_library_refuses_is_unavailable_with_its_reason(name: str, code: int, shown: str) -> None:
    library = FakeNvml()
    library.codes[name] = code
    with pytest.raises(Unavailable, match=f"{name}: .*{shown}") as refused:
        collect_gpus(library, NONCE)
    assert refused.value.hint == ("run as root" if code == 4 else None)
    assert library.sessions == 0


def test_a_driver_older_than_the_call_is_unavailable() -> None:
    class Older:
        """No call for reports."""

        def __init__(self) -> None:
            self._newer = FakeNvml()

        def __getattr__(self, name: str) -> object:
            if name == REPORT_CALL:
                raise AttributeError(name)
            return getattr(self._newer, name)

    with pytest.raises(Unavailable, match="older than this call"):
        collect_gpus(Older(), NONCE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("what", "size"), [("report", 0), ("report", 0x2001), ("chain", 0), ("chain", 0xFFFFFFFF)])
def test_sizes_beyond_the_structures_are_malformed(what: str, size: int) -> None:
    library = FakeNvml()
    library.sizes[what] = size
    with pytest.raises(Malformed, match=f"of {size} bytes"):
        GpuAttester(library).collect(NONCE)
    assert library.sessions == 0


def test_a_report_for_another_nonce_is_noticed() -> None:
    library = FakeNvml()
    library.wrong_nonce = True
    with pytest.raises(Malformed, match="another nonce"):
        GpuAttester(library).collect(NONCE)


def test_more_gpus_than_any_machine_has_are_malformed() -> None:
    with pytest.raises(Malformed, match="17 gpus"):
        count_gpus(FakeNvml(gpus=17))


def test_a_gpu_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="invalid argument"):
        GpuAttester(FakeNvml(gpus=1), 1).collect(NONCE)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_nonces_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="want 32"):
        GpuAttester(FakeNvml()).collect(bytes(size))


def test_gpus_are_set_ready_only_when_every_one_was_verified() -> None:
    library = FakeNvml(gpus=2)
    for verified in (0, 1, 3):
        with pytest.raises(UsageError, match=f"{verified} gpus verified of 2"):
            set_ready(library, verified=verified)
    assert not library.ready
    set_ready(library, verified=2)
    assert library.ready == [1]
    with pytest.raises(UsageError):
        set_ready(FakeNvml(gpus=0), verified=0)


def test_a_machine_without_the_library_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(Unavailable, match="is not there"):
        load_nvml()
