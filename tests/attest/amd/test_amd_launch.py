"""Expected launch digests and identity blocks: computed beforehand, and as the library and the firmware do."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from sevsnpmeasure.guest import calc_launch_digest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS

from cloister.attest.amd.idblock import IdAuth, IdBlock, dump_key, key_digest, verify_id_block
from cloister.attest.amd.launch import HYPERVISORS, Launch, launch_digest
from cloister.errors import Malformed, Rejected, UsageError
from cloister.testing.vendors.amd.firmware import synthetic_firmware
from cloister.testing.vendors.amd.identity import synthetic_identity

OVMF = Path("/usr/share/ovmf/OVMF.fd")
FIRMWARE = synthetic_firmware()
DISK = Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-v4")
DIRECT = Launch(
    firmware=FIRMWARE, vcpus=2, vcpu_type="EPYC-Milan", kernel=b"kernel", initrd=b"initrd", cmdline="console=ttyS0"
)
IDENTITY = synthetic_identity(launch_digest(DISK))


def by_the_library(launch: Launch, folder: Path) -> bytes:
    """Return what the library says of files with the same bytes."""
    paths = {}
    for name, data in (("ovmf", launch.firmware), ("kernel", launch.kernel), ("initrd", launch.initrd)):
        paths[name] = str(folder / name) if data else ""
        if data:
            (folder / name).write_bytes(data)
    return bytes(
        calc_launch_digest(
            SevMode.SEV_SNP,
            launch.vcpus,
            CPU_SIGS[launch.vcpu_type],
            paths["ovmf"],
            paths["kernel"],
            paths["initrd"],
            launch.cmdline,
            launch.guest_features,
            vmm_type=HYPERVISORS[launch.hypervisor],
        )
    )


@pytest.mark.parametrize("launch", [DISK, DIRECT], ids=["disk", "direct"])
def test_the_digest_is_the_library_s_over_bytes_in_place_of_files(launch: Launch, tmp_path: Path) -> None:
    assert launch_digest(launch) == by_the_library(launch, tmp_path)


@pytest.mark.parametrize("hypervisor", HYPERVISORS)
def test_every_hypervisor_has_its_own_digest(hypervisor: str, tmp_path: Path) -> None:
    launch = Launch(firmware=FIRMWARE, vcpus=1, vcpu_type="EPYC-v4", hypervisor=hypervisor)
    assert launch_digest(launch) == by_the_library(launch, tmp_path)


@pytest.mark.skipif(not OVMF.exists(), reason="no OVMF image (Debian package ovmf) on this machine")
def test_the_digest_of_a_real_firmware_is_the_library_s(tmp_path: Path) -> None:
    launch = Launch(firmware=OVMF.read_bytes(), vcpus=2, vcpu_type="EPYC-v4")
    assert launch_digest(launch) == by_the_library(launch, tmp_path)


def test_everything_that_is_launched_counts() -> None:
    digests = {
        launch_digest(launch)
        for launch in (
            DISK,
            DIRECT,
            Launch(firmware=synthetic_firmware(pages=5), vcpus=4, vcpu_type="EPYC-v4"),
            Launch(firmware=FIRMWARE, vcpus=5, vcpu_type="EPYC-v4"),
            Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-Genoa"),
            Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-v4", guest_features=0x21),
            Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-v4", kernel=b"kernel"),
            Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-v4", kernel=b"Kernel"),
            Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-v4", kernel=b"kernel", cmdline="quiet"),
            Launch(firmware=FIRMWARE, vcpus=4, vcpu_type="EPYC-v4", kernel=b"kernel", initrd=b"initrd"),
        )
    }
    assert len(digests) == 10


@pytest.mark.parametrize(
    "firmware",
    [synthetic_firmware(metadata=False), synthetic_firmware(kernel_hashes=False), bytes(8192)],
    ids=["no metadata", "no place for hashes", "zeros"],
)
def test_firmware_that_would_not_measure_the_kernel_is_refused(firmware: bytes) -> None:
    with pytest.raises(Malformed, match="not made for sev-snp"):
        launch_digest(Launch(firmware=firmware, vcpus=1, vcpu_type="EPYC-v4", kernel=b"kernel"))


@pytest.mark.parametrize(
    "changed",
    [
        {"firmware": b""},
        {"firmware": FIRMWARE[1:]},
        {"vcpus": 0},
        {"vcpus": 5000},
        {"vcpu_type": "Xeon"},
        {"hypervisor": "bochs"},
        {"guest_features": -1},
        {"initrd": b"initrd"},
        {"cmdline": "quiet"},
    ],
    ids=str,
)
def test_a_launch_that_makes_no_sense_is_our_caller_s_mistake(changed: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Launch(**{"firmware": FIRMWARE, "vcpus": 1, "vcpu_type": "EPYC-v4", **changed})  # type: ignore[arg-type]


def test_an_identity_block_and_its_keys_are_read_and_hold() -> None:
    block, auth = IdBlock.parse(IDENTITY.block.dump()), IdAuth.parse(IDENTITY.auth)
    assert block == IDENTITY.block
    assert len(verify_id_block(block, auth)) == 2
    assert key_digest(auth.id_key) == hashlib.sha384(dump_key(IDENTITY.id_key.public_key())).digest()
    lonely = synthetic_identity(author=False)
    assert len(verify_id_block(lonely.block, IdAuth.parse(lonely.auth))) == 1


def test_an_identity_block_that_somebody_changed_is_refused() -> None:
    auth = IdAuth.parse(IDENTITY.auth)
    for place in range(96):
        damaged = bytearray(IDENTITY.block.dump())
        damaged[place] ^= 1
        with pytest.raises((Malformed, Rejected)):
            verify_id_block(IdBlock.parse(bytes(damaged)), auth)


def test_every_byte_of_an_identity_authentication_counts() -> None:
    for place in range(0, len(IDENTITY.auth), 5):
        damaged = bytearray(IDENTITY.auth)
        damaged[place] ^= 1
        with pytest.raises((Malformed, Rejected)):
            verify_id_block(IDENTITY.block, IdAuth.parse(bytes(damaged)))


def test_the_key_of_another_owner_is_refused() -> None:
    auth, other = IdAuth.parse(IDENTITY.auth), IdAuth.parse(synthetic_identity().auth)
    for changed in (replace(auth, id_key=other.id_key), replace(auth, author_key=other.author_key)):
        with pytest.raises(Rejected) as caught:
            verify_id_block(IDENTITY.block, changed)
        assert caught.value.code == "signature_invalid"
