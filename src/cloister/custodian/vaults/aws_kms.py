"""AWS Key Management Service as key service (docs/reference/vaults.md).

The key is named by its ARN, never by an alias, which somebody may point elsewhere. Credentials come by the ways that
AWS's own programs know (environment, profile, role of the machine), never from us. The context is the encryption
context, so that it shows in CloudTrail and policies can demand it.

Not done here: attested release (``Recipient`` of Decrypt): the plain key comes to the custodian, over TLS.
"""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from cloister.errors import CloisterError, Rejected, Unavailable, UsageError

__all__ = ["AwsKms"]

_ARN = re.compile(
    r"arn:(?:aws|aws-cn|aws-us-gov):kms:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d{1,2}):\d{12}:key/[A-Za-z0-9-]{1,64}",
    re.ASCII,
)
_CONTEXT_KEY: Final = "cloister"
_TIMEOUT_S = 5
_ATTEMPTS = 3
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ODD_ANSWERS = (AttributeError, KeyError, TypeError, ValueError)
"""What botocore raises, beside its own errors, over answers of another shape than the service's."""
_NOT_OURS = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})
_DENIED = frozenset({
    "AccessDenied", "AccessDeniedException", "DisabledException", "ExpiredTokenException", "IncompleteSignature",
    "InvalidClientTokenId", "InvalidSignatureException", "KMSInvalidStateException", "MissingAuthenticationToken",
    "NotAuthorized", "OptInRequired", "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKms:
    """A key of AWS KMS."""

    arn: str
    region: str

    @property
    def name(self) -> str:
        """The ARN of the key, as ``aws-kms:ARN``."""
        return f"aws-kms:{self.arn}"

    @classmethod
    def connect(cls, name: str) -> Self:
        """Return the key that ``name`` says. Raises ``UsageError`` for anything but the ARN of a key."""
        found = _ARN.fullmatch(name.removeprefix("aws-kms:"))
        if found is None:
            msg = "vault: want aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID"
            raise UsageError(msg, hint="an alias may be pointed elsewhere, so it takes the key's own ARN")
        return cls(arn=found.group(), region=found["region"])

    def wrap(self, key: bytes, *, context: str) -> bytes:
        """Return the ciphertext blob. Raises as ``KeyService``."""
        return self._ask("encrypt", "CiphertextBlob", Plaintext=key, EncryptionContext={_CONTEXT_KEY: context})

    def unwrap(self, wrapped: bytes, *, context: str) -> bytes:
        """Return what was wrapped in the same ``context``. Raises as ``KeyService``."""
        return self._ask("decrypt", "Plaintext", CiphertextBlob=wrapped, EncryptionContext={_CONTEXT_KEY: context})

    def _ask(self, verb: str, member: str, **parameters: Any) -> bytes:
        """Call ``verb``; return the answer's ``member`` once it says that it used this key."""
        client, errors = self._client()
        try:
            answer = getattr(client, verb)(KeyId=self.arn, **parameters)
        except errors.ClientError as exc:
            raise self._refused(exc.response) from exc
        except (errors.NoCredentialsError, errors.PartialCredentialsError) as exc:
            msg = f"{self.name}: no credentials of AWS"
            raise UsageError(msg, hint="set a profile, AWS_ACCESS_KEY_ID or a role, as for AWS's own programs") from exc
        except (errors.BotoCoreError, errors.HTTPClientError, *_ODD_ANSWERS) as exc:
            msg = f"{self.name}: {type(exc).__name__}"
            raise Unavailable(msg, hint="is the network up, and the region right?") from exc
        value = answer.get(member) if isinstance(answer, dict) else None
        if not isinstance(value, bytes) or answer.get("KeyId") != self.arn:
            msg = f"{self.name}: answered for another key, or nothing"
            raise Unavailable(msg)
        return value

    def _client(self) -> tuple[Any, Any]:
        """Return a client for the key's region, and the module with its errors."""
        try:
            import botocore.config  # noqa: PLC0415 - an extra
            import botocore.exceptions  # noqa: PLC0415 - an extra
            import botocore.session  # noqa: PLC0415 - an extra
        except ImportError as exc:
            msg = "vault: aws-kms needs the package botocore"
            raise UsageError(msg, hint="pip install 'cloister[aws]'") from exc
        logging.getLogger("botocore").setLevel(logging.WARNING)  # at DEBUG it writes requests and answers: the key
        config = botocore.config.Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        )
        errors = botocore.exceptions
        try:
            session = botocore.session.get_session()
            session.register_component("data_loader", _models(session.get_config_variable("data_path")))
            client = session.create_client("kms", region_name=self.region, config=config)
        except (errors.BotoCoreError, ValueError) as exc:
            msg = f"{self.name}: settings of AWS: {type(exc).__name__}"
            raise UsageError(msg, hint="look at AWS_PROFILE, AWS_CONFIG_FILE and AWS_ENDPOINT_URL") from exc
        _demand_tls(client.meta.endpoint_url)
        if client.meta.endpoint_url.startswith("http:"):  # of this machine: no proxy of another may see the key
            config = config.merge(botocore.config.Config(proxies={}))
            client = session.create_client("kms", region_name=self.region, config=config)
        return client, errors

    def _refused(self, response: Any) -> CloisterError:
        """Return our word for an answer that is an error. The service's own text is left out: it names people."""
        error = response.get("Error") if isinstance(response, dict) else None
        code = str(error.get("Code", ""))[:64] if isinstance(error, dict) else ""
        if code in _NOT_OURS:
            return Rejected.because("wrong_key", self.name, hint="this key did not wrap it, or it was altered")
        if code == "NotFoundException":
            return Rejected.because("no_such_key", self.name, hint="is it the right account and region?")
        if code in _DENIED:
            hint = "it must be enabled, and its policy must allow kms:Encrypt (to make a vault) and kms:Decrypt"
            return Rejected.because(
                "service_denied", self.name, got=code, want="an allowed caller and an enabled key", hint=hint
            )
        return Unavailable(f"{self.name}: {code if code.isalnum() else 'an error without a name'}", hint="try again")


@functools.cache
def _models(data_path: str | None) -> Any:
    """Return what botocore knows of services and endpoints: it takes far longer to read than all else of a client."""
    import botocore.loaders  # noqa: PLC0415 - an extra

    return botocore.loaders.create_loader(data_path)


def _demand_tls(url: str) -> None:
    """Refuse to send a key in clear to another machine, whatever the environment says of endpoints."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        msg = "aws-kms: the endpoint is not https"
        raise UsageError(msg, hint="look at AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_KMS")
