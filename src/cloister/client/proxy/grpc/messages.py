"""The protocol's messages, from the compiled interface, in a pool of our own.

Generated modules would demand one version of the library and register their names for the whole process, where a
program that has ``tritonclient`` too has them already (docs/adr/0035-proxy.md).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from cloister.errors import Malformed, UsageError

__all__ = ["SERVICE", "message", "parse"]

SERVICE = "inference.GRPCInferenceService"


@cache
def message(name: str) -> Any:
    """Return the class of a message. Raises ``UsageError`` where the library is not there."""
    return _classes()[f"inference.{name}"]


def parse(name: str, data: bytes) -> Any:
    """Return a message out of its bytes. Raises ``Malformed``."""
    try:
        return message(name).FromString(data)
    except Exception as exc:
        if type(exc).__name__ != "DecodeError":  # of the library, which is imported only where it is needed
            raise
        raise Malformed(f"{name}: not the protocol's message") from exc


@cache
def _classes() -> dict[str, Any]:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415 - of an extra
    except ImportError as exc:
        msg = "grpc: grpcio and protobuf are not installed"
        raise UsageError(msg, hint="pip install 'cloister[grpc]'") from exc
    compiled = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("inference.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in compiled.file:
        pool.Add(file)
    names = [file.name for file in compiled.file]
    return dict(message_factory.GetMessageClassesForFiles(names, pool))
