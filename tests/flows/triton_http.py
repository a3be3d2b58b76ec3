"""A program with the unmodified tritonclient, over HTTP; run by the interpreter of its own environment.

Takes an address and a local token on stdin, asks everything a consumer may, and writes what it got as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from ml_dtypes import bfloat16
from tritonclient.http.auth import BasicAuth
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
NO_JSON = {"FP16", "BF16"}  # the client's own rule
SMALL = {"INT64": np.array([[-5, 2**53 - 1]]), "UINT64": np.array([[0, 2**53 - 1]], dtype=np.uint64)}


def entry(name: str, array: np.ndarray, kind: str, *, binary: bool) -> triton.InferInput:
    """Return one input."""
    item = triton.InferInput(name, list(array.shape), kind)
    item.set_data_from_numpy(array, binary_data=binary)
    return item


def mirrored(client: triton.InferenceServerClient, *, binary: bool, answer_binary: bool) -> list[str]:
    """Send every type at once and return the names of those that came back as they were."""
    sent = {kind: array if binary and answer_binary else SMALL.get(kind, array) for kind, array in KINDS.items()}
    found = []
    for model, kinds in (("numbers", sorted(set(sent) - {"BYTES"})), ("texts", ["BYTES"])):
        inputs = [entry(f"x_{kind}", sent[kind], kind, binary=binary or kind in NO_JSON) for kind in kinds]
        outputs = [triton.InferRequestedOutput(f"y_{kind}", binary_data=answer_binary) for kind in kinds]
        result = client.infer(model, inputs, outputs=outputs)
        got = {kind: result.as_numpy(f"y_{kind}") for kind in kinds}
        found += [kind for kind in kinds if _same(got[kind], sent[kind], kind, text=not answer_binary)]
    return sorted(found)


def _same(got: np.ndarray, want: np.ndarray, kind: str, *, text: bool) -> bool:
    if kind == "BYTES" and text:
        return [item.encode() for item in got.reshape(-1)] == list(want.reshape(-1))
    return bool(got.dtype == want.dtype and got.shape == want.shape and (got == want).all())


def said(ask: Any) -> str:
    """Return what the client says of a refusal."""
    try:
        ask()
    except InferenceServerException as exc:
        return f"{exc.status()}: {exc.message()}"
    return "nothing"


def row() -> triton.InferInput:
    """Return one picture whose third pixel is the brightest."""
    return entry("image", np.array([[0, 0, 1, 0]], dtype=np.float32), "FP32", binary=True)


def refusals(client: triton.InferenceServerClient, address: str) -> dict[str, str]:
    """Return what is said of what is not done."""
    wrong = entry("image", np.zeros((1, 5), dtype=np.float32), "FP32", binary=True)
    region = triton.InferInput("image", [1, 4], "FP32")
    region.set_shared_memory("region", 16)
    return {
        "compressed": said(lambda: client.infer("digits", [row()], request_compression_algorithm="gzip")),
        "region": said(lambda: client.infer("digits", [region])),
        "sequence": said(lambda: client.infer("digits", [row()], sequence_id=7, sequence_start=True)),
        "shape": said(lambda: client.infer("digits", [wrong])),
        "token": said(triton.InferenceServerClient(address).get_server_metadata),
        "unknown model": said(lambda: client.get_model_metadata("unknown")),
        "unknown version": said(lambda: client.infer("digits", [row()], model_version="1")),
    }


def main() -> None:
    """Ask, and say what came."""
    address, token = sys.stdin.read().split()
    client = triton.InferenceServerClient(address, concurrency=4)
    client.register_plugin(BasicAuth("anybody", token))
    metadata = client.get_model_metadata("digits")
    version = metadata["versions"][0]
    asked = [client.async_infer("digits", [row()]) for _ in range(4)]
    many = [int(one.get_result().as_numpy("label")[0]) for one in asked]
    plain = client.infer(
        "digits",
        [row()],
        model_version=version,
        outputs=[triton.InferRequestedOutput("label", binary_data=False)],
        request_id="seven",
        priority=3,
        timeout=10**8,
        parameters={"note": "n"},
    )
    found = {
        "async": many,
        "classes": [
            client.infer(
                "digits", [row()], outputs=[triton.InferRequestedOutput("label", binary_data=form, class_count=2)]
            )
            .as_numpy("label")
            .astype(str)
            .tolist()
            for form in (False, True)
        ],
        "json": mirrored(client, binary=False, answer_binary=False),
        "binary": mirrored(client, binary=True, answer_binary=True),
        "mixed": mirrored(client, binary=True, answer_binary=False),
        "metadata": metadata,
        "of the version": client.get_model_metadata("digits", version)["inputs"] == metadata["inputs"],
        "plain": plain.get_response(),
        "ready": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("digits", version)],
        "unready": client.is_model_ready("unknown"),
        "refused": refusals(client, address),
        "server": client.get_server_metadata(),
    }
    client.close()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
