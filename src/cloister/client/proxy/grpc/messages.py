"""The protocol's messages, from the compiled interface, in a pool of our own.

Generated modules would demand one version of the library and register their names for the whole process, where a
program that has ``tritonclient`` too has them already (docs/adr/0035-proxy.md).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from cloister.errors import Malformed

__all__ = ["SERVICE", "message", "parse"]

SERVICE = "inference.GRPCInferenceService"


@cache
def message(name: str) -> Any:
    """Return the class of a message."""
    return _classes()[f"inference.{name}"]


def parse(name: str, data: bytes) -> Any:
    """Return a message out of its bytes. Raises ``Malformed``."""
    try:
        return message(name).FromString(data)
    except DecodeError as exc:
        raise Malformed(f"{name}: not the protocol's message") from exc


@cache
def _classes() -> dict[str, Any]:
    compiled = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("inference.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in compiled.file:
        pool.Add(file)
    names = [file.name for file in compiled.file]
    return dict(message_factory.GetMessageClassesForFiles(names, pool))
