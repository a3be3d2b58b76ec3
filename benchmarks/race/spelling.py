"""How an inference is spelled: as the Open Inference Protocol says it, in JSON or with binary tensors, or raw.

A spelled request is a head and a body; ``on_the_wire`` makes of it the bytes that wrk sends. ``Spelling.read`` turns
an answer back into numbers, so that every server is proven to compute the same before it is measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cloister.enclave.oip import HEADER_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from race.nets import Floats

JSON = "json"
BINARY = "binary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request in plain."""

    path: str
    headers: dict[str, str]
    body: bytes

    def on_the_wire(self) -> bytes:
        """Return the request as it travels over HTTP/1.1."""
        fields = {"Host": "localhost", **self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + self.body


class Spelling(Protocol):
    """One way to ask, of one kind of server."""

    def write(self, path: str, inputs: Floats) -> Request:
        """Return the request."""
        ...

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs of an answer as one row; ``headers`` by names in lower case."""
        ...


class OipJson:
    """Open Inference Protocol V2, in JSON."""

    def write(self, path: str, inputs: Floats) -> Request:
        """Return the request."""
        entry = {"name": "x", "datatype": "FP32", "shape": inputs.shape, "data": inputs.reshape(-1).tolist()}
        return Request(
            path=path, headers={"Content-Type": "application/json"}, body=json.dumps({"inputs": [entry]}).encode()
        )

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        del headers
        return np.asarray(json.loads(body)["outputs"][0]["data"], np.float32).reshape(-1)


class OipBinary:
    """Open Inference Protocol V2 with its binary tensor data extension, both ways."""

    def write(self, path: str, inputs: Floats) -> Request:
        """Return the request."""
        entry = {
            "name": "x",
            "datatype": "FP32",
            "shape": inputs.shape,
            "parameters": {"binary_data_size": inputs.nbytes},
        }
        head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
        return Request(path=path, headers=headers, body=head + inputs.tobytes())

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        length = headers.get(HEADER_LENGTH)
        return OipJson().read(headers, body) if length is None else np.frombuffer(body[int(length) :], np.float32)


class PlainJson:
    """A JSON object with the rows, for servers that have no protocol of their own."""

    def write(self, path: str, inputs: Floats) -> Request:
        """Return the request."""
        body = json.dumps({"x": inputs.tolist()}).encode()
        return Request(path=path, headers={"Content-Type": "application/json"}, body=body)

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        del headers
        return np.asarray(json.loads(body)["y"], np.float32).reshape(-1)


class Raw:
    """The bytes of the tensor alone, both ways: the least that a server can be asked with."""

    def write(self, path: str, inputs: Floats) -> Request:
        """Return the request."""
        return Request(path=path, headers={"Content-Type": "application/octet-stream"}, body=inputs.tobytes())

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        del headers
        return np.frombuffer(body, np.float32)


class Upload:
    """The bytes of the tensor as an uploaded file, answered in JSON."""

    def write(self, path: str, inputs: Floats) -> Request:
        """Return the request."""
        mark = "8c1f0e2d6b7a4955"
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        return Request(
            path=path,
            headers={"Content-Type": f"multipart/form-data; boundary={mark}"},
            body=head.encode() + inputs.tobytes() + f"\r\n--{mark}--\r\n".encode(),
        )

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        return PlainJson().read(headers, body)


class ListedJson(PlainJson):
    """JSON that is answered with the rows alone, around which there is no object."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        del headers
        return np.asarray(json.loads(body), np.float32).reshape(-1)


class ListedRaw(Raw):
    """The bytes of the tensor alone, answered in JSON with the rows alone."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Floats:
        """Return the outputs as one row."""
        return ListedJson().read(headers, body)


OIP: Mapping[str, Spelling] = {BINARY: OipBinary(), JSON: OipJson()}
OWN: Mapping[str, Spelling] = {BINARY: Raw(), JSON: PlainJson()}
