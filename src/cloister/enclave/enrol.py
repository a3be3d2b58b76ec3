"""Enrol this machine's TPM with the custodian of a loan, once (docs/spec/evidence-tpm.md section 4).

Shows the endorsement key and the attestation key, lets the TPM open the custodian's challenge, and returns the
certificate that evidence carries from then on. Asking again gives a fresh certificate for the same device.

Not done here: keeping the certificate (the command line writes it), who may enrol (the custodian decides).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx2

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.tpm.ek import device_of
from cloister.attest.tpm.enrolment import MAX_ENROLMENT_BYTES, EnrolChallenge, EnrolProof, EnrolRequest, EnrolResult
from cloister.enclave.custodian_link import demand_answered, pinned
from cloister.errors import Malformed, Unavailable, UsageError
from cloister.tpm.commands import Tpm
from cloister.tpm.keys import AkKind, EkKind, activate, attestation_key, available_eks, endorsement_key

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.enclave.loanfile import LoanFile
    from cloister.tpm.keys import Ek
    from cloister.tpm.transport import Transport

__all__ = ["enrol"]

_TIMEOUT_S = 30
_MAX_FILE_BYTES = 64 * 1024


def enrol(
    transport: Transport,
    loan: LoanFile,
    ek_certificate: Path | None = None,
    *,
    ak: AkKind = AkKind.ECC_P256,
    http: httpx2.BaseTransport | None = None,
) -> tuple[bytes, str]:
    """Return the attestation key's certificate chain (PEM, own first) and the name of the device.

    ``ek_certificate`` is a file with certificates of the TPM's maker (PEM or DER): the endorsement key's
    own where the TPM holds none, and those between it and the root. ``http`` replaces the network. Raises
    ``Rejected`` with the custodian's reasons, ``Unavailable``, ``Malformed``, ``UsageError``.
    """
    given = () if ek_certificate is None else _read(ek_certificate)
    tpm = Tpm(transport)
    kind = _kind(tpm, given)
    with (
        _client(loan, http) as client,
        endorsement_key(tpm, kind) as ek,
        attestation_key(tpm, ak) as (handle, public),
    ):
        request = EnrolRequest(
            ek_public=ek.public.dump(), ak_public=public.dump(), ek_certificates=_maker_chain(ek, given)
        )
        challenge = EnrolChallenge.parse(_post(client, "/v1/devices/enrolments", request.dump()))
        proof = EnrolProof(secret=activate(tpm, handle, ek, challenge.credential))
        path = f"/v1/devices/enrolments/{challenge.enrolment}/finish"
        result = EnrolResult.parse(_post(client, path, proof.dump()))
        chain = [Certificate.parse(item) for item in result.certificates]
        if chain[0].x509.public_key() != public.public_key():
            msg = "enrolment result: certificate is not for our attestation key"
            raise Malformed(msg)
        return b"".join(item.pem for item in chain), device_of(ek.public)


def _read(path: Path) -> tuple[Certificate, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as exc:
        msg = f"{path}: cannot read the endorsement certificate: {exc.strerror}"
        raise UsageError(msg) from exc
    return parse_certificates(data)


def _certifies(certificate: Certificate, ek: Ek) -> bool:
    return certificate.x509.public_key() == ek.public.public_key()


def _kind(tpm: Tpm, given: tuple[Certificate, ...]) -> EkKind:
    """Return the endorsement key to show: one the TPM has a certificate for, one that was given, else RSA."""
    available = available_eks(tpm)
    if available:
        return available[0]
    for kind in EkKind if given else ():
        with endorsement_key(tpm, kind) as ek:
            if any(_certifies(item, ek) for item in given):
                return kind
    return EkKind.RSA_2048


def _maker_chain(ek: Ek, given: tuple[Certificate, ...]) -> tuple[bytes, ...]:
    """Return the maker's certificates with the key's own first, each once."""
    own = [ek.certificate] if ek.certificate else [item.der for item in given if _certifies(item, ek)]
    return tuple(dict.fromkeys([*own, *(item.der for item in given)]))


def _client(loan: LoanFile, http: httpx2.BaseTransport | None) -> httpx2.Client:
    return httpx2.Client(
        base_url=loan.custodian_url,
        timeout=_TIMEOUT_S,
        follow_redirects=False,
        trust_env=False,
        verify=pinned(loan),
        transport=http,
        headers={"authorization": f"Bearer {loan.token}", "content-type": "application/json"},
    )


def _post(client: httpx2.Client, path: str, body: bytes) -> bytes:
    """Return the body of a 2xx answer."""
    try:
        with client.stream("POST", path, content=body, headers={"accept-encoding": "identity"}) as answer:
            data = b""
            for part in answer.iter_raw():
                data += part
                if len(data) > MAX_ENROLMENT_BYTES:
                    msg = f"custodian: answer longer than {MAX_ENROLMENT_BYTES} bytes"
                    raise Unavailable(msg)
    except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError) as exc:
        msg = f"custodian: no answer ({type(exc).__name__})"
        raise Unavailable(msg, hint="is the custodian running, and is this its address?") from exc
    demand_answered(answer.status_code, data)
    return data
