"""AWS KMS as moto plays it, in a process of its own on loopback, and what AWS's own settings must be to reach it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloister.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REGION", "Moto", "await_port", "free_port", "start_moto"]

REGION = "eu-central-1"
_READY_S = 40


@dataclass(frozen=True)
class Moto:
    """A running server. It takes any credentials, and uses keys that are disabled."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """Return what a program that asks it is given."""
        return {
            "AWS_ENDPOINT_URL_KMS": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def new_key(self) -> str:
        """Make a key; return its ARN."""
        import botocore.session  # noqa: PLC0415 - slow, and for few tests

        session: Any = botocore.session.get_session()
        session.set_credentials("an-id", "a-secret")
        url = self.environment["AWS_ENDPOINT_URL_KMS"]
        client = session.create_client("kms", region_name=REGION, endpoint_url=url)
        arn: str = client.create_key()["KeyMetadata"]["Arn"]
        return arn


def start_moto() -> Iterator[Moto]:
    """Run the server until the generator is closed."""
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own words
    try:
        await_port(port)
        yield Moto(port)
    finally:
        process.kill()
        process.wait()


def await_port(port: int) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    msg = f"nobody listens on port {port}"
    raise RuntimeError(msg)
