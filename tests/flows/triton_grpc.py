"""A program with the unmodified tritonclient, over gRPC; run by the interpreter of its own environment.

Takes a target and a local token on stdin, asks everything a consumer may, and writes what it got as JSON.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import DescriptorProto
from ml_dtypes import bfloat16
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.grpc.auth import BasicAuth
from tritonclient.utils import InferenceServerException

KINDS: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], dtype=np.uint8),
    "UINT16": np.array([[0, 65535]], dtype=np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], dtype=np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], dtype=np.uint64),
    "INT8": np.array([[-128, 127]], dtype=np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], dtype=np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], dtype=np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], dtype=np.int64),
    "FP16": np.array([[0.5, -65504]], dtype=np.float16),
    "FP32": np.array([[0.1, -3e38]], dtype=np.float32),
    "FP64": np.array([[0.1, -1e300]], dtype=np.float64),
    "BF16": np.array([[0.5, -2.0]], dtype=bfloat16),
    "BYTES": np.array([["ü".encode(), b""]], dtype=object),
}
HOLDERS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def entry(name: str, array: np.ndarray, kind: str) -> triton.InferInput:
    """Return one input."""
    item = triton.InferInput(name, list(array.shape), kind)
    item.set_data_from_numpy(array)
    return item


def mirrored(client: triton.InferenceServerClient) -> list[str]:
    """Send every type at once and return the names of those that came back as they were."""
    found = []
    for model, kinds in (("numbers", sorted(set(KINDS) - {"BYTES"})), ("texts", ["BYTES"])):
        result = client.infer(model, [entry(f"x_{kind}", KINDS[kind], kind) for kind in kinds])
        got = {kind: result.as_numpy(f"y_{kind}") for kind in kinds}
        found += [kind for kind in kinds if got[kind].dtype == KINDS[kind].dtype and (got[kind] == KINDS[kind]).all()]
    return sorted(found)


def typed(stub: Any, metadata: Any) -> list[str]:
    """Send typed contents with the client's own messages, and return the types that came back as they were."""
    found = []
    rest = {kind: KINDS[kind] for kind in ("UINT16", "UINT32", "INT16", "INT32")}
    for model, kinds in (("texts", ["BYTES"]), ("typed", [*(set(HOLDERS) - {"BYTES"}), *rest])):
        request = service_pb2.ModelInferRequest(model_name=model)
        for kind in kinds:
            item = request.inputs.add(name=f"x_{kind}", datatype=kind, shape=[1, 2])
            getattr(item.contents, holder(kind)).extend(KINDS[kind].reshape(-1).tolist())
        answer = stub.ModelInfer(request, metadata=metadata)
        assert not answer.raw_output_contents
        for item in answer.outputs:
            values = list(getattr(item.contents, holder(item.datatype)))
            if values == KINDS[item.datatype].reshape(-1).tolist():
                found.append(item.datatype)
    return sorted(found)


def holder(kind: str) -> str:
    """Return the field of a type."""
    return HOLDERS.get(kind) or ("uint_contents" if kind.startswith("U") else "int_contents")


def said(ask: Any) -> str:
    """Return what the client says of a refusal."""
    try:
        ask()
    except InferenceServerException as exc:
        return f"{exc.status()}: {exc.message()}"
    return "nothing"


def row(index: int = 2) -> triton.InferInput:
    """Return one picture whose brightest pixel is ``index``."""
    pixels = np.zeros((1, 4), dtype=np.float32)
    pixels[0, index] = 1
    return entry("image", pixels, "FP32")


def streamed(client: triton.InferenceServerClient) -> list[Any]:
    """Ask through a stream and return the labels in the order they came, or what was said."""
    came: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: came.put((result, error)))
    for index in (1, 3):
        client.async_stream_infer("digits", [row(index)], request_id=str(index))
    client.async_stream_infer("digits", [entry("image", np.zeros((1, 5), dtype=np.float32), "FP32")])
    found = [came.get(timeout=60) for _ in range(3)]
    client.stop_stream()
    return [str(error) if error else int(result.as_numpy("label")[0]) for result, error in found]


def fields() -> dict[str, list[Any]]:
    """Return every field of every message of the client's, as numbers and types on the wire."""
    file = service_pb2.DESCRIPTOR
    found: dict[str, list[Any]] = {}

    def walk(kind: Any) -> None:
        said = DescriptorProto()
        kind.CopyToProto(said)
        found[kind.full_name] = [[one.name, one.number, one.type, one.label] for one in said.field]
        for inner in kind.nested_types:
            walk(inner)

    for kind in file.message_types_by_name.values():
        walk(kind)
    return found


def main() -> None:
    """Ask, and say what came."""
    target, token = sys.stdin.read().split()
    client = triton.InferenceServerClient(target)
    client.register_plugin(BasicAuth("anybody", token))
    metadata = client.get_model_metadata("digits", as_json=True)
    version = metadata["versions"][0]
    plain = client.infer(
        "digits",
        [row()],
        model_version=version,
        outputs=[triton.InferRequestedOutput("label")],
        request_id="seven",
        priority=3,
        timeout=10**8,
        parameters={"note": "n"},
        compression_algorithm="gzip",
    )
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(target))
    found = {
        "fields": fields(),
        "label": int(plain.as_numpy("label")[0]),
        "metadata": metadata,
        "plain": plain.get_response(as_json=True),
        "raw": mirrored(client),
        "ready": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("digits", version)],
        "refused": {
            "sequence": said(lambda: client.infer("digits", [row()], sequence_id=7, sequence_start=True)),
            "shape": said(lambda: client.infer("digits", [entry("image", np.zeros((1, 5), np.float32), "FP32")])),
            "token": said(triton.InferenceServerClient(target).get_server_metadata),
            "unknown version": said(lambda: client.infer("digits", [row()], model_version="1")),
        },
        "server": client.get_server_metadata(as_json=True),
        "stream": streamed(client),
        "typed": typed(stub, (("authorization", f"Bearer {token}"),)),
        "unready": client.is_model_ready("unknown"),
    }
    client.close()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
