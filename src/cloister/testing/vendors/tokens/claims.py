"""What the tokens of each kind say, shaped like the real ones, with made-up values.

Each function returns the members a payload has besides ``iss``, ``iat``, ``nbf``, ``exp``, with ``report_data`` where
the issuer puts what its attester chose.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cloister.wire import dump_b64u

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = [
    "CS_AUDIENCE",
    "IMAGE_DIGEST",
    "MEASUREMENT",
    "confidential_space_claims",
    "ear_claims",
    "gpu_claims",
    "ita_claims",
    "ita_v2_claims",
    "maa_azurevm_claims",
    "maa_sgx_claims",
    "maa_snp_claims",
    "maa_tdx_claims",
]

MEASUREMENT = "5a" * 48
MRENCLAVE = "e1" * 32
IMAGE_DIGEST = "sha256:" + "c0" * 32
CS_AUDIENCE = "https://custodian.example"
_ZEROS = "00" * 64


def _tdx(report_data: str) -> dict[str, Json]:
    registers: dict[str, Json] = {f"tdx_rtmr{index}": f"{index:02x}" * 48 for index in range(4)}
    owner: dict[str, Json] = {f"tdx_{name}": "00" * 48 for name in ("mrconfigid", "mrowner", "mrownerconfig")}
    return {
        **registers,
        **owner,
        "attester_tcb_date": "2025-03-12T00:00:00Z",
        "attester_tcb_status": "UpToDate",
        "dbgstat": "disabled",
        "tdx_mrseam": "7c" * 48,
        "tdx_mrsignerseam": "00" * 48,
        "tdx_mrtd": MEASUREMENT,
        "tdx_report_data": report_data,
        "tdx_seam_attributes": "00" * 8,
        "tdx_seamsvn": 6,
        "tdx_td_attributes": "0000001000000000",
        "tdx_td_attributes_debug": False,
        "tdx_td_attributes_septve_disable": True,
        "tdx_tee_tcb_svn": "06010300" + "00" * 12,
        "tdx_xfam": "e702060000000000",
    }


def _snp(report_data: str) -> dict[str, Json]:
    values: dict[str, Json] = {
        "authorkeydigest": "00" * 48,
        "bootloader-svn": 4,
        "familyId": "01" + "00" * 15,
        "guestsvn": 7,
        "hostdata": "00" * 32,
        "idkeydigest": "1d" * 48,
        "imageId": "02" + "00" * 15,
        "is-debuggable": False,
        "launchmeasurement": MEASUREMENT,
        "microcode-svn": 219,
        "migration-allowed": False,
        "reportdata": report_data,
        "reportid": "8b" * 32,
        "smt-allowed": True,
        "snpfw-svn": 24,
        "tee-svn": 0,
        "vmpl": 0,
    }
    return {
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-compliance-status": "azure-compliant-cvm",
        "x-ms-runtime": {"vm-configuration": {"console-enabled": False, "secure-boot": True, "tpm-enabled": True}},
        **{f"x-ms-sevsnpvm-{name}": value for name, value in values.items()},
    }


_MAA: Mapping[str, Json] = {"jti": "57" * 32, "x-ms-policy-hash": dump_b64u(bytes(32)), "x-ms-ver": "1.0"}


def maa_snp_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Azure Attestation says of a confidential container's SNP report."""
    return {**_MAA, **_snp(report_data.hex())}


def maa_tdx_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Azure Attestation says of a TD."""
    said: dict[str, Json] = {"x-ms-attestation-type": "tdxvm", "x-ms-compliance-status": "azure-compliant-cvm"}
    return {**_MAA, **said, **_tdx(report_data.hex()), "eat_profile": "https://aka.ms/maa-eat-profile-tdxvm"}


def maa_sgx_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Azure Attestation says of an enclave."""
    values: dict[str, Json] = {
        "config-id": _ZEROS,
        "config-svn": 0,
        "is-debuggable": False,
        "isv-extended-product-id": "00" * 16,
        "isv-family-id": "00" * 16,
        "mrenclave": MRENCLAVE,
        "mrsigner": "51" * 32,
        "product-id": 3,
        "report-data": report_data.hex(),
        "svn": 2,
    }
    named = {f"x-ms-sgx-{name}": value for name, value in values.items()}
    return {**_MAA, "x-ms-attestation-type": "sgx", "is-debuggable": False, "tee": "sgx", **named}


def maa_azurevm_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Azure Attestation says of a virtual machine whose TPM quoted the client's payload."""
    return {
        **_MAA,
        "secureboot": True,
        "x-ms-attestation-type": "azurevm",
        "x-ms-azurevm-attested-pcrs": [0, 1, 2, 3, 4, 5, 6, 7],
        "x-ms-azurevm-bootdebug-enabled": False,
        "x-ms-azurevm-debuggersdisabled": True,
        "x-ms-azurevm-kerneldebug-enabled": False,
        "x-ms-azurevm-osdistro": "Ubuntu",
        "x-ms-azurevm-ostype": "Linux",
        "x-ms-azurevm-osversion-major": 24,
        "x-ms-azurevm-vmid": "00000000-0000-4000-8000-000000000001",
        "x-ms-isolation-tee": _snp(_ZEROS),
        "x-ms-runtime": {"client-payload": {"nonce": base64.b64encode(report_data).decode()}, "keys": []},
    }


_ITA: Mapping[str, Json] = {
    "eat_profile": "https://portal.trustauthority.intel.com/eat_profile.html",
    "intuse": "generic",
    "jti": "00000000-0000-4000-8000-000000000002",
    "policy_ids_matched": [{"id": "00000000-0000-4000-8000-000000000003", "version": "v1"}],
    "policy_ids_unmatched": None,
    "verifier_nonce": {"iat": "", "signature": "", "val": base64.b64encode(bytes(32)).decode()},
}


def ita_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Trust Authority says of a TD, version 1."""
    held = base64.b64encode(report_data).decode()
    said: dict[str, Json] = {"attester_held_data": held, "attester_type": "TDX", "attester_advisory_ids": None}
    return {**_ITA, **_tdx("7e" * 64), **said, "tdx_is_debuggable": False, "ver": "1.0.0"}


def ita_v2_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Trust Authority says of a TD with a GPU and a TPM, version 2."""
    below = {name: value for name, value in ita_claims(report_data).items() if name not in {*_ITA, "ver"}}
    gpu: dict[str, Json] = {"dbgstat": "disabled", "hwmodel": "GH100", "measres": "success", "secboot": True}
    gpu["x-nvidia-overall-att-result"] = True
    return {**_ITA, "nvgpu": gpu, "tdx": below, "tpm": {"attester_type": "TPM"}, "ver": "2.0.0"}


def confidential_space_claims(report_data: bytes) -> dict[str, Json]:
    """Return what Google says of a container in Confidential Space on a TD."""
    return {
        "attester_tcb": ["INTEL"],
        "aud": CS_AUDIENCE,
        "dbgstat": "disabled-since-boot",
        "eat_nonce": report_data.hex(),
        "eat_profile": "https://cloud.google.com/confidential-computing/confidential-space/docs/reference/token-claims",
        "google_service_accounts": ["workload@project.example"],
        "hwmodel": "GCP_INTEL_TDX",
        "oemid": 11129,
        "secboot": True,
        "sub": "https://www.googleapis.com/compute/v1/projects/p/zones/z/instances/i",
        "submods": {
            "confidential_space": {
                "monitoring_enabled": {"memory": False},
                "support_attributes": ["LATEST", "STABLE", "USABLE"],
            },
            "container": {
                "args": ["/serve", "--model", "/m"],
                "env": {"HOSTNAME": "i"},
                "image_digest": IMAGE_DIGEST,
                "image_id": "sha256:" + "1d" * 32,
                "image_reference": "registry.example/serve@" + IMAGE_DIGEST,
                "image_signatures": [{"key_id": "4b", "signature": "", "signature_algorithm": "ECDSA_P256_SHA256"}],
                "restart_policy": "Never",
            },
            "gce": {
                "instance_id": "18446744073709551615",
                "instance_name": "i",
                "project_id": "p",
                "project_number": "1",
                "zone": "z",
            },
            "nvidia_gpu": {"cc_mode": "ON"},
        },
        "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["250301"],
        "tdx": {"gcp_attester_tcb_date": "2024-03-13T00:00:00Z", "gcp_attester_tcb_status": "UpToDate"},
    }


def gpu_claims(report_data: bytes, index: int = 0) -> dict[str, Json]:
    """Return what NRAS says of one GPU."""
    certificate: dict[str, Json] = {
        "x-nvidia-cert-expiration-date": "9999-12-31T23:59:59",
        "x-nvidia-cert-ocsp-status": "good",
        "x-nvidia-cert-revocation-reason": None,
        "x-nvidia-cert-status": "valid",
    }
    true = (
        "arch-check",
        "attestation-report-nonce-match",
        "attestation-report-parsed",
        "attestation-report-signature-verified",
        "driver-rim-measurements-available",
        "driver-rim-signature-verified",
        "vbios-index-no-conflict",
        "vbios-rim-signature-verified",
    )
    verdicts: dict[str, Json] = {f"x-nvidia-gpu-{name}": True for name in true}
    return {
        **verdicts,
        "dbgstat": "disabled",
        "eat_nonce": report_data.hex(),
        "hwmodel": "GH100 A01 GSP BROM",
        "measres": "success",
        "oemid": "5703",
        "secboot": True,
        "ueid": str(640000000000000000000000000000000000000000000000 + index),
        "x-nvidia-attestation-warning": None,
        "x-nvidia-device-type": "gpu",
        "x-nvidia-gpu-attestation-report-cert-chain": certificate,
        "x-nvidia-gpu-driver-version": "570.133.20",
        "x-nvidia-gpu-vbios-version": "96.00.CF.00.02",
    }


def ear_claims(report_data: bytes) -> dict[str, Json]:
    """Return what a verifier of PSA tokens says, in names with dots."""
    vector: dict[str, Json] = {"executables": 2, "hardware": 2, "instance-identity": 2, "sourced-data": 0}
    return {
        "ear.verifier-id": {"build": "v1", "developer": "https://verifier.example"},
        "eat_nonce": dump_b64u(report_data),
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "submods": {
            "PSA_IOT": {
                "ear.appraisal-policy-id": "policy:PSA_IOT",
                "ear.status": "affirming",
                "ear.trustworthiness-vector": vector,
            }
        },
    }
