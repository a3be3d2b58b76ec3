"""Whatever our readers take, the formats' own libraries take too, and see the same in it."""

from __future__ import annotations

import random

import onnx
import safetensors
from formats_kit import cases, model_files
from google.protobuf.message import DecodeError

from cloister.errors import Malformed, Rejected
from cloister.sealed.formats import FileSummary, parse_model
from cloister.sealed.formats.onnx_tables import ELEMENT_NAMES

ROUNDS = 6000
VALUES = (0, 1, 2, 7, 8, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x3A, 0x42, 0x7F, 0x80, 0xFF)


def mutated(suffix: str) -> list[bytes]:
    """Return good vectors of one file, and each changed at one or two places, a byte longer or shorter at times."""
    rng = random.Random(20260302)
    seeds = [data for case in cases() if case["expect"] == "ok" for path, data in case["files"].items()
             if path.endswith(suffix) and len(case["files"]) == 1 and 0 < len(data) < 2000]  # fmt: skip
    found = list(seeds)
    for _ in range(ROUNDS):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.choice(VALUES)
                case 1:
                    data[at] = (data[at] + rng.choice((1, 255))) & 255
                case 2:
                    data[at:at] = bytes([rng.choice(VALUES)])
                case _ if len(data) > 1:
                    del data[at]
        found.append(bytes(data))
    return found


def ours(name: str, data: bytes) -> FileSummary | None:
    try:
        return parse_model(model_files({name: data})).files[0]
    except (Malformed, Rejected):
        return None


def test_onnx_sees_the_same_model_in_whatever_is_taken() -> None:
    taken = 0
    for data in mutated(".onnx"):
        found = ours("model.onnx", data)
        if found is None:
            continue
        taken += 1
        try:
            model = onnx.ModelProto.FromString(data)
        except DecodeError as exc:
            raise AssertionError(data.hex()) from exc
        graph = model.graph
        assert model.ir_version == found.facts["ir_version"], data.hex()
        theirs = [(item.name, tuple(item.dims), ELEMENT_NAMES[item.data_type]) for item in graph.initializer]
        assert theirs == [(item.name, item.shape, item.dtype) for item in found.tensors], data.hex()
        assert [item.name for item in graph.output] == [port.name for port in found.outputs], data.hex()
        given = {item.name for item in graph.initializer}
        assert [item.name for item in graph.input if item.name not in given] == [port.name for port in found.inputs]
    assert taken > 200, f"{taken}: the mutations are too wild to tell anything"


def test_safetensors_sees_the_same_tensors_in_whatever_is_taken() -> None:
    taken = 0
    for data in mutated(".safetensors"):
        found = ours("model.safetensors", data)
        if found is None or any(item.dtype.startswith(("F4", "F6")) for item in found.tensors):
            continue
        taken += 1
        theirs = {
            name: (tuple(item["shape"]), item["dtype"], len(item["data"]))
            for name, item in safetensors.deserialize(data)
        }
        assert theirs == {item.name: (item.shape, item.dtype, item.size) for item in found.tensors}, data
    assert taken > 200, f"{taken}: the mutations are too wild to tell anything"
