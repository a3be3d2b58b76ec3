"""Google Confidential Space, and tokens of Google Cloud Attestation (Google Cloud: attestation token claims).

A token speaks of a virtual machine's launcher and its one container. Tokens of the PKI kind carry a chain to Google's
Confidential Space root; those of the OIDC kind are signed with a key of the issuer's set.

What the attester binds, 32 bytes: ``eat_nonce``, 64 lower-case hexadecimal digits, alone. Google takes up to six
nonces of 8 to 88 bytes; a token with several binds nothing here, for one of them may be another verifier's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.attest.rats import TeeKind
from cloister.attest.tokens.profile import Profile
from cloister.attest.tokens.rows import (
    Row,
    boolean,
    debug_status,
    digest_of,
    flatten,
    labels,
    place,
    text,
    text_or_none,
    whole,
    words,
)
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import ClaimValue
    from cloister.attest.tokens.profile import ClaimSet
    from cloister.wire import Json

__all__ = ["CONFIDENTIAL_SPACE", "CONFIDENTIAL_SPACE_TEE", "CS_ISSUER", "eat_nonces", "single_hex_nonce"]

CONFIDENTIAL_SPACE_TEE = TeeKind("confidential-space")
CS_ISSUER = "https://confidentialcomputing.googleapis.com"

_NONCE = re.compile(r"[0-9a-f]{64}")
_MAX_NONCES = 8


def _signers(value: Json, what: str) -> tuple[str, ...]:
    """Return the key ids of the container's signatures that Google verified."""
    if not isinstance(value, list):
        msg = f"{what}: want an array"
        raise Malformed(msg)
    return words([place(item, "key_id") if isinstance(item, dict) else item for item in value], what)


def _versions(value: Json, what: str) -> tuple[str, ...]:
    return labels(value if isinstance(value, list) else [value], what)


def _container(name: str) -> tuple[str, ...]:
    return ("submods", "container", name)


def _gce(name: str) -> tuple[str, ...]:
    return ("submods", "gce", name)


_ROWS = (
    Row("subject", text, ("sub",)),
    Row("hwmodel", text, ("hwmodel",)),
    Row("swname", text, ("swname",)),
    Row("swversion", _versions, ("swversion",)),
    Row("oem_id", whole, ("oemid",)),
    Row("secure_boot", boolean, ("secboot",)),
    Row("debug", debug_status, ("dbgstat",)),
    Row("attester_tcb", words, ("attester_tcb",)),
    Row("service_accounts", words, ("google_service_accounts",)),
    Row("support_attributes", words, ("submods", "confidential_space", "support_attributes")),
    Row("memory_monitoring", boolean, ("submods", "confidential_space", "monitoring_enabled", "memory")),
    Row("image_digest", text, _container("image_digest")),
    Row("image_id", text, _container("image_id")),
    Row("image_reference", text, _container("image_reference")),
    Row("image_signers", _signers, _container("image_signatures")),
    Row("restart_policy", text, _container("restart_policy")),
    Row("args_sha256", digest_of, _container("args")),
    Row("env_sha256", digest_of, _container("env")),
    Row("cmd_override_sha256", digest_of, _container("cmd_override")),
    Row("env_override_sha256", digest_of, _container("env_override")),
    Row("zone", text, _gce("zone")),
    Row("project_id", text, _gce("project_id")),
    Row("project_number", whole, _gce("project_number")),
    Row("instance_id", whole, _gce("instance_id")),
    Row("instance_name", text, _gce("instance_name")),
    Row("tcb_status", text, ("tdx", "gcp_attester_tcb_status")),
    Row("tcb_date", text, ("tdx", "gcp_attester_tcb_date")),
    Row("gpu_cc_mode", text, ("submods", "nvidia_gpu", "cc_mode")),
)


def _flatten(claims: ClaimSet, devices: Mapping[str, ClaimSet]) -> dict[str, ClaimValue]:
    del devices
    return flatten(claims, _ROWS)


def eat_nonces(claims: ClaimSet) -> tuple[str, ...]:
    """Return ``eat_nonce``: a string or an array of strings (RFC 9711 section 4.1)."""
    value = claims.get("eat_nonce")
    listed = value if isinstance(value, list) else [value]
    return tuple(item for item in listed[:_MAX_NONCES] if isinstance(item, str))


def single_hex_nonce(claims: ClaimSet) -> bytes:
    """Return the 32 bytes of a single ``eat_nonce`` in lower-case hexadecimal; nothing where it is another."""
    nonces = eat_nonces(claims)
    return bytes.fromhex(nonces[0]) if len(nonces) == 1 and _NONCE.fullmatch(nonces[0]) else b""


CONFIDENTIAL_SPACE = Profile(
    tee=CONFIDENTIAL_SPACE_TEE,
    title="Google Confidential Space",
    algorithms=frozenset({"RS256"}),
    report_data_bytes=32,
    required=frozenset({"debug", "hwmodel", "image_digest", "secure_boot", "swname"}),
    ends=True,
    starts_issued=True,
    devices=False,
    flatten=_flatten,
    bound=single_hex_nonce,
    nonces=eat_nonces,
    recognises=lambda claims: text_or_none(claims, "iss") == CS_ISSUER,
)
