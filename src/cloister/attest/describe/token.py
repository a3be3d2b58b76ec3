"""A platform's token explained to a person: header, then every claim by its place, devices' tokens too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cloister.attest.describe import Description, Field
from cloister.attest.dossier.token import profile_of
from cloister.attest.tokens.bundle import MAX_BUNDLE_BYTES, Bundle
from cloister.attest.tokens.claimset import parse_claimset
from cloister.attest.tokens.registered import moment
from cloister.errors import UsageError
from cloister.wire import dump_json, parse_b64u

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.attest.tokens.jws import Jws
    from cloister.wire import Json

__all__ = ["TokenDescriber"]

_MAX_FIELDS = 2048
_MAX_VALUE_CHARS = 512
_STARTS = (b"eyJ", b"[")
_TIMES = frozenset({"exp", "iat", "nbf"})
_HEADER = {
    "alg": "Signature algorithm; the verifier's policy decides, never this line.",
    "b64": "Changes what is signed; refused.",
    "crit": "Extensions that a reader must know; refused.",
    "jku": "Where the issuer says its keys are; never followed.",
    "jwk": "A key the token brings along; gives no trust.",
    "kid": "Which key of the issuer's set signed.",
    "typ": "Kind of token.",
    "x5c": "Certificates of the signing key; count only if they end in a pinned root.",
    "x5u": "Where certificates are said to be; never followed.",
}
_MEANINGS: tuple[tuple[str, str], ...] = (
    (r"exp", "End: on this second and after it the token is worth nothing."),
    (r"iat", "When the issuer made it."),
    (r"nbf", "Start: worth nothing before."),
    (r"iss", "Who says all this; whoever believes it trusts this verifier of hardware."),
    (r"aud", "For whom it is; has to be you."),
    (r"sub", "Whom it is about."),
    (r"jti", "Serial of this token."),
    (r"jwk.*", "A key inside the token; gives no trust."),
    (r".*nonce.*", "What a relying party or its attester chose: compare with yours."),
    (r".*client-payload.*", "What the guest sent along: the nonce is compared with yours."),
    (r".*(attester_held_data|user-data)", "What the attester bound; the issuer found its hash in the report data."),
    (r".*report_?-?data", "Report data of the hardware."),
    (r".*(debug|dbgstat).*", "Whether somebody can look inside; has to be off."),
    (r".*(mrenclave|mrtd|launchmeasurement)", "Measurement of what was loaded: compare with your reference value."),
    (r".*(mrsigner|idkeydigest|authorkeydigest)", "Who signed what was loaded."),
    (r".*(tdx_)?rtmr\d", "Runtime measurement of a TD: explained by its event log."),
    (r".*(mrseam|seam).*", "The TDX module: Intel's code around the TD."),
    (r".*hostdata", "What the host put in at launch; measured by nobody else."),
    (r".*vmpl", "Privilege level that asked; 0 is the most."),
    (r".*(-svn|isvsvn|guestsvn|tcb_svn)", "Security version: higher is newer."),
    (r".*tcb_status", "How current the platform's firmware is: UpToDate is best."),
    (r".*tcb_date", "Date of that firmware's level."),
    (r".*advisory_ids", "Known weaknesses that apply."),
    (r".*attestation-type|.*attester_type|.*tee", "What kind of hardware was verified."),
    (r".*compliance-status", "Azure's word that this is one of its confidential machines."),
    (r".*policy[-_]?(hash|ids?_matched).*", "Which policy of the issuer's was applied, and held."),
    (r".*policy_ids_unmatched.*", "Policies of the issuer's that did not hold."),
    (r".*(secureboot|secboot|secure-boot)", "Whether the firmware demanded signatures at start."),
    (r".*hwmodel", "Hardware model."),
    (r".*(swname|swversion).*", "Software that made the evidence, and its version."),
    (r".*support_attributes.*", "How Google stands to this image: STABLE and LATEST are good, none is a debug image."),
    (r".*image_digest", "Digest of the container: compare with your reference value."),
    (r".*(args|env|override).*", "What the container was started with: may change what it does."),
    (r".*overall-att-result", "NVIDIA's verdict on all devices together; has to be true."),
    (r".*measres", "Whether the device's measurements are the golden ones; has to be success."),
    (r"(.*\.)?submods\.[^.]*", "Digest of a device's token, or what is said of one attester."),
    (r".*ear[._](status|trust).*", "Trust: affirming or 2 to 31 is good, 32 to 95 warns, 96 and more says no."),
    (r".*x-nvidia-(gpu|switch)-.*", "One verdict or version of this device; verdicts have to be true."),
    (r"(.*\.)?(eat_profile|ver|x-ms-ver|x-nvidia-ver)", "Which specification the claims follow."),
)
_OTHER = "The issuer's own; see its documentation."


class TokenDescriber:
    """Explains tokens of MAA, ITA, Confidential Space, NRAS and verifiers that issue EAR."""

    kind: Final = "token"

    def recognises(self, data: bytes) -> bool:
        """Tell by the first letters of a header in base64url, or of a bundle."""
        text = data.strip()
        dots = text.count(b".")
        return text.startswith(_STARTS) and len(text) <= MAX_BUNDLE_BYTES and dots >= 2 and b"eyJ" in text  # noqa: PLR2004

    def describe(self, data: bytes) -> Description:
        """Explain every field. Raises ``Malformed``."""
        bundle = Bundle.parse(data.strip())
        fields = [*_of_token(bundle.overall, "")]
        for name, device in bundle.devices.items():
            fields += _of_token(device, f"{name}.")
        title = f"Attestation token of {profile_of(bundle).title}"
        return Description(kind=self.kind, title=title, fields=tuple(fields[:_MAX_FIELDS]))


def _of_token(token: Jws, prefix: str) -> Iterator[Field]:
    header = parse_claimset(parse_b64u(token.text.split(b".")[0].decode(), what="header"), what="header")
    for name, value in header.items():
        yield Field(
            name=f"{prefix}header.{name}"[:256], value=_shown(value), meaning=_HEADER.get(name, "A line of the header.")
        )
    claims = token.claimset(what="token")
    for name, value in _leaves(claims, ""):
        time = _time(claims, name) if name in _TIMES else None
        yield Field(name=f"{prefix}{name}"[:256], value=time or _shown(value), meaning=_meaning(name))
    size = len(token.signature)
    yield Field(name=f"{prefix}signature", value=f"{size} bytes", meaning="By the issuer, over header and claims.")


def _leaves(value: Mapping[str, Json], prefix: str) -> Iterator[tuple[str, Json]]:
    for name, item in value.items():
        if isinstance(item, dict) and item:
            yield from _leaves(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def _meaning(name: str) -> str:
    lower = name.lower()
    return next((meaning for pattern, meaning in _MEANINGS if re.fullmatch(pattern, lower)), _OTHER)


def _time(claims: Mapping[str, Json], name: str) -> str | None:
    found = moment(claims, name)
    return None if found is None else found.isoformat()


def _shown(value: Json) -> str:
    try:
        text = value if isinstance(value, str) else dump_json(value).decode()
    except UsageError:  # a number that canonical JSON does not carry
        text = str(value)
    text = text[:_MAX_VALUE_CHARS]
    return text if text.isprintable() else ascii(text)[:_MAX_VALUE_CHARS]
