"""Open Inference Protocol: what is accepted, what is refused and how it is named."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from cloister.enclave.engines.tensor import Datatype, Signature, Tensor, TensorSpec
from cloister.enclave.oip import InferRequest, dump_response, fit, parse_request, units_of
from cloister.errors import Malformed, Rejected
from mutations import mutated

CAP = 1 << 20


def spec(
    name: str = "x", datatype: Datatype = Datatype.FP32, shape: tuple[Any, ...] | None = ("batch", 3)
) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs or (spec(),), outputs=(spec("y"),))


def entry(name: str = "x", datatype: str = "FP32", shape: Any = (1, 3), **rest: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), **rest}


def parse(*inputs: dict[str, Any], binary: bytes | None = None, **rest: Any) -> InferRequest:
    head = json.dumps({"inputs": list(inputs), **rest}).encode()
    if binary is None:
        return parse_request(head, header_bytes=None, json_cap=CAP)
    return parse_request(head + binary, header_bytes=len(head), json_cap=CAP)


def fitted(sig: Signature, *inputs: dict[str, Any], binary: bytes | None = None) -> list[np.ndarray]:
    return [tensor.array for tensor in fit(parse(*inputs, binary=binary), sig)]


@pytest.mark.parametrize("data", [[1, 2, 3], [[1, 2, 3]], [[1.0, 2, 3]]])
def test_flat_and_nested_json_are_the_same(data: Any) -> None:
    (array,) = fitted(signature(), entry(data=data))
    assert array.tolist() == [[1, 2, 3]]


JSON_CASES = [
    (Datatype.BOOL, [True, False], [True, False]),
    (Datatype.INT8, [-128, 127], [-128, 127]),
    (Datatype.UINT64, [0, 2**53 - 1], [0, 2**53 - 1]),
    (Datatype.FP32, [-0.0, 2.0**60], [-0.0, 2.0**60]),
    (Datatype.INT64, [-(2**53) + 1, 0], [-(2**53) + 1, 0]),
    (Datatype.FP16, [0.5, 2], [0.5, 2.0]),
    (Datatype.FP64, [0.1, 1e300], [0.1, 1e300]),
    (Datatype.BYTES, ["a", "ü\u0000"], [b"a", "ü\x00".encode()]),
    (Datatype.BF16, [1, -2.5], [0x3F80, 0xC020]),
]


@pytest.mark.parametrize(("datatype", "data", "want"), JSON_CASES, ids=lambda item: getattr(item, "value", ""))
def test_json_carries_every_type_exactly(datatype: Datatype, data: list[Any], want: list[Any]) -> None:
    (array,) = fitted(
        signature(spec(datatype=datatype, shape=("n",))), entry(datatype=datatype.value, shape=(2,), data=data)
    )
    assert array.tolist() == want
    assert array.dtype == datatype.dtype


@pytest.mark.parametrize(
    ("number", "bits"),
    [(1.00390625, 0x3F80), (1.01171875, 0x3F82), (1.005, 0x3F81), (-0.0, 0x8000), (3.3895e38, 0x7F7F)],
)
def test_bf16_is_rounded_to_nearest_ties_to_even(number: float, bits: int) -> None:
    (array,) = fitted(
        signature(spec(datatype=Datatype.BF16, shape=("n",))), entry(datatype="BF16", shape=(1,), data=[number])
    )
    assert array.tolist() == [bits]


MISFITS = [
    ("unknown and missing input", [entry(name="z", data=[1, 2, 3])], ["input z", "input x"]),
    ("wrong datatype", [entry(datatype="FP64", data=[1, 2, 3])], ["input x"]),
    ("no datatype of the protocol", [entry(datatype="float", data=[1, 2, 3])], ["input x"]),
    ("wrong rank", [entry(shape=(3,), data=[1, 2, 3])], ["input x"]),
    ("wrong fixed dimension", [entry(shape=(1, 4), data=[1, 2, 3, 4])], ["input x"]),
    ("too few elements", [entry(data=[1, 2])], ["input x"]),
    ("too many elements", [entry(data=[1, 2, 3, 4])], ["input x"]),
    ("ragged rows", [entry(shape=(2, 3), data=[[1, 2, 3], [4, 5]])], ["input x"]),
    ("nested too deep", [entry(data=[[[1, 2, 3]]])], ["input x"]),
    ("a list among numbers", [entry(data=[1, 2, [3]])], ["input x"]),
    ("strings for numbers", [entry(data=["1", "2", "3"])], ["input x"]),
    ("true for a number", [entry(data=[True, 2, 3])], ["input x"]),
    ("null for a number", [entry(data=[None, 2, 3])], ["input x"]),
    ("an object for data", [entry(data={"0": 1})], ["input x"]),
    ("beyond the type", [entry(data=[1e39, 0, 0])], ["input x"]),
    ("an integer beyond every float", [entry(data=[10**400, 0, 0])], ["input x"]),
]


@pytest.mark.parametrize(("inputs", "subjects"), [case[1:] for case in MISFITS], ids=[case[0] for case in MISFITS])
def test_misfits_are_named_by_input_got_and_want(inputs: list[dict[str, Any]], subjects: list[str]) -> None:
    with pytest.raises(Rejected) as refused:
        fitted(signature(), *inputs)
    assert [reason.subject for reason in refused.value.reasons] == subjects
    assert {reason.code for reason in refused.value.reasons} == {"input"}
    assert all(reason.got and reason.want for reason in refused.value.reasons)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT8", [128]),
        ("UINT8", [-1]),
        ("INT32", [1.0]),
        ("BOOL", [1]),
        ("BYTES", [1]),
        ("FP16", [70000]),
        ("BF16", [3.4e38]),
    ],
)
def test_values_out_of_range_or_of_another_kind_are_refused(datatype: str, data: list[Any]) -> None:
    sig = signature(spec(datatype=Datatype(datatype), shape=("n",)))
    with pytest.raises(Rejected) as refused:
        fitted(sig, entry(datatype=datatype, shape=(1,), data=data))
    assert refused.value.code == "input"


def test_reasons_never_quote_the_data() -> None:
    with pytest.raises(Rejected) as refused:
        fitted(signature(), entry(data=["canary-7f3a", 2, 3]))
    assert "canary" not in str(refused.value)


def test_one_symbol_has_one_size() -> None:
    sig = signature(spec("a", shape=("batch", 2)), spec("b", shape=("batch", 2)))
    with pytest.raises(Rejected) as refused:
        fitted(sig, entry("a", shape=(1, 2), data=[1, 2]), entry("b", shape=(2, 2), data=[1, 2, 3, 4]))
    assert str(refused.value.reasons[0]) == "input b: input (got batch = 2, want 1, as in input a)"


@pytest.mark.parametrize("datatype", [kind for kind in Datatype if kind is not Datatype.BYTES])
def test_binary_data_of_every_fixed_size_type(datatype: Datatype) -> None:
    array = np.array([0, 1], dtype=datatype.dtype)
    sig = signature(spec(datatype=datatype, shape=("n",)))
    raw = array.tobytes()
    item = entry(datatype=datatype.value, shape=(2,), parameters={"binary_data_size": len(raw)})
    (got,) = fitted(sig, item, binary=raw)
    assert np.array_equal(got, array)
    with pytest.raises(Rejected):
        fitted(sig, {**item, "shape": [3]}, binary=raw)


def test_binary_strings_have_their_length_in_front() -> None:
    raw = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0)
    sig = signature(spec(datatype=Datatype.BYTES, shape=("n",)))
    item = entry(datatype="BYTES", shape=(2,), parameters={"binary_data_size": len(raw)})
    (got,) = fitted(sig, item, binary=raw)
    assert got.tolist() == [b"abc", b""]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01",
        struct.pack("<I", 4) + b"abc",
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 1) + b"a" + b"\x00",
        struct.pack("<I", 2) + b"\xff\xfe",
        struct.pack("<I", 0) * 2,
    ],
)
def test_damaged_binary_strings_are_refused(raw: bytes) -> None:
    sig = signature(spec(datatype=Datatype.BYTES, shape=("n",)))
    item = entry(datatype="BYTES", shape=(1,), parameters={"binary_data_size": len(raw)})
    with pytest.raises(Rejected):
        fitted(sig, item, binary=raw)


def test_a_binary_bool_is_zero_or_one() -> None:
    sig = signature(spec(datatype=Datatype.BOOL, shape=("n",)))
    with pytest.raises(Rejected):
        fitted(sig, entry(datatype="BOOL", shape=(1,), parameters={"binary_data_size": 1}), binary=b"\x02")


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("unknown member", {"inputs": [], "model": "other"}),
    ("a parameter that is a list", {"inputs": [], "parameters": {"priority": [1]}}),
    ("a parameter that is null", {"inputs": [], "parameters": {"priority": None}}),
    ("a parameter too long", {"inputs": [], "parameters": {"note": "x" * 1025}}),
    ("a parameter's name too long", {"inputs": [], "parameters": {"x" * 129: 1}}),
    ("too many parameters", {"inputs": [], "parameters": {f"p{number}": 1 for number in range(65)}}),
    ("parameters that are a list", {"inputs": [], "parameters": [["priority", 1]]}),
    ("a timeout below zero", {"inputs": [], "parameters": {"timeout": -1}}),
    ("a timeout of years", {"inputs": [], "parameters": {"timeout": 10**15}}),
    ("a timeout as text", {"inputs": [], "parameters": {"timeout": "1s"}}),
    ("binary output as a number", {"inputs": [], "parameters": {"binary_data_output": 1}}),
    ("unknown input member", {"inputs": [entry(data=[], x=1)]}),
    ("an input's parameter that is an object", {"inputs": [entry(data=[], parameters={"note": {}})]}),
    ("classes below zero", {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": -1}}]}),
    ("classes as text", {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": "3"}}]}),
    ("too many classes", {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 10_001}}]}),
    ("an output's binary data as text", {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "y"}}]}),
    ("data in a region that nobody named", {"inputs": [entry(parameters={"shared_memory_region": ""})]}),
    ("no inputs", {"id": "1"}),
    ("double input", {"inputs": [entry(data=[]), entry(data=[])]}),
    ("double output", {"inputs": [], "outputs": [{"name": "y"}, {"name": "y"}]}),
    ("neither data nor size", {"inputs": [entry()]}),
    ("data and size", {"inputs": [entry(data=[], parameters={"binary_data_size": 0})]}),
    ("negative dimension", {"inputs": [entry(shape=(-1, 3), data=[])]}),
    ("dimension as float", {"inputs": [entry(shape=(1.0, 3), data=[])]}),
    ("dimension as true", {"inputs": [entry(shape=(True, 3), data=[])]}),
    ("too many dimensions", {"inputs": [entry(shape=(1,) * 17, data=[])]}),
    ("too many elements", {"inputs": [entry(shape=(2**20, 2**20), data=[])]}),
    ("elements hidden behind a zero", {"inputs": [entry(shape=(0, 2**31 - 1, 2**31 - 1), data=[])]}),
    ("binary size beyond the body", {"inputs": [entry(parameters={"binary_data_size": 1})]}),
    ("a name too long", {"inputs": [entry(name="x" * 513, data=[])]}),
    ("id as number", {"id": 1, "inputs": []}),
]


@pytest.mark.parametrize("document", [case[1] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_what_the_protocol_does_not_know_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_request(json.dumps(document).encode(), header_bytes=None, json_cap=CAP)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"inputs": [], "inputs": []}',
        b'{"inputs": [NaN]}',
        b'{"inputs": [Infinity]}',
        b'{"inputs": ' + b"[" * 100_000,
        b'{"inputs": [], "id": "\\ud800"}',
        b'{"inputs": [' + b"1" * 5000 + b"]}",
        b"\xef\xbb\xbf{}",
        b"\xff",
    ],
)
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(body, header_bytes=None, json_cap=CAP)


def test_the_header_length_fits_the_body() -> None:
    head = b'{"inputs": []}'
    for size in (len(head) - 1, len(head) + 1):
        with pytest.raises(Malformed):
            parse_request(head, header_bytes=size, json_cap=CAP)
    with pytest.raises(Malformed):
        parse_request(head + b"\x00", header_bytes=len(head), json_cap=CAP)


def test_mutated_requests_raise_malformed_or_rejected_only() -> None:
    raw = struct.pack("<I", 1) + b"a" + np.array([1, 2, 3], dtype="<f4").tobytes()
    document = {
        "id": "1",
        "parameters": {"binary_data_output": True},
        "inputs": [
            entry("s", "BYTES", (1,), parameters={"binary_data_size": 5}),
            entry("x", parameters={"binary_data_size": 12}),
            entry("z", "INT32", (1, 2), data=[[1, 2]]),
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(document).encode()
    sig = signature(spec("s", Datatype.BYTES, ("n",)), spec(), spec("z", Datatype.INT32, ("n", 2)))
    for damaged in mutated(head + raw, seed=7):
        try:
            fit(parse_request(damaged, header_bytes=len(head), json_cap=CAP), sig)
        except (Malformed, Rejected):
            continue


UNITS: list[tuple[str, list[TensorSpec], list[tuple[int, ...]], int]] = [
    ("one row", [spec()], [(1, 3)], 1),
    ("seven rows", [spec()], [(7, 3)], 7),
    ("no rows at all", [spec()], [(0, 3)], 1),
    ("no batch dimension", [spec(shape=(8, 3))], [(8, 3)], 1),
    ("a scalar", [spec(shape=None)], [()], 1),
    ("open rank", [spec(shape=None)], [(5, 2)], 5),
    ("unnamed first dimension", [spec(shape=(None, 3))], [(4, 3)], 4),
    ("items behind a small first input", [spec("a", shape=("n", 1)), spec("b", shape=("m", 1))], [(1, 1), (9, 1)], 9),
    ("items behind a fixed first input", [spec("a", shape=(1, 1)), spec("b", shape=("m", 1))], [(1, 1), (9, 1)], 9),
    ("a scalar beside it", [spec(), spec("t", shape=())], [(4, 3), ()], 4),
    ("a scalar alone", [spec("t", shape=())], [()], 1),
]


@pytest.mark.parametrize(("specs", "shapes", "units"), [case[1:] for case in UNITS], ids=[case[0] for case in UNITS])
def test_units_are_the_items_of_the_decrypted_body(
    specs: list[TensorSpec], shapes: list[tuple[int, ...]], units: int
) -> None:
    """T43: a table of bodies and what they cost."""
    tensors = [
        Tensor(name=one.name, datatype=one.datatype, array=np.zeros(shape, dtype="<f4"))
        for one, shape in zip(specs, shapes, strict=True)
    ]
    assert units_of(tensors, signature(*specs)) == units


REFUSED_PARAMETERS: list[tuple[dict[str, Any], str, str]] = [
    ({"parameters": {"sequence_id": 7, "sequence_start": True, "sequence_end": False}}, "request", "sequence_id"),
    ({"parameters": {"sequence_id": "seven"}}, "request", "sequence_id"),
    ({"parameters": {"sequence_end": True}}, "request", "sequence_end"),
    ({"inputs": [entry(parameters={"shared_memory_region": "r"})]}, "input x", "shared_memory_region"),
    ({"inputs": [entry(data=[1, 2, 3], parameters={"shared_memory_offset": 8})]}, "input x", "shared_memory_offset"),
    ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, "output y", "shared_memory_region"),
]


@pytest.mark.parametrize(("change", "subject", "name"), REFUSED_PARAMETERS)
def test_a_parameter_that_asks_for_what_is_not_done_is_refused_by_name(
    change: dict[str, Any], subject: str, name: str
) -> None:
    document = json.dumps({"inputs": [entry(data=[1, 2, 3])], **change}).encode()
    with pytest.raises(Rejected) as refused:
        fit(parse_request(document, header_bytes=None, json_cap=CAP), signature())
    assert (refused.value.code, refused.value.reasons[0].subject) == ("parameter_refused", subject)
    assert refused.value.reasons[0].got == name


def test_parameters_that_change_nothing_are_named_in_the_answer() -> None:
    said = {"priority": 3, "note": "canary-51c0", "sequence_id": 0, "sequence_start": False, "binary_data_output": True}
    asked = parse(entry(data=[1, 2, 3], parameters={"content_type": "np", "note": 1}), parameters=said)
    assert len(fit(asked, signature())) == 1
    head, _ = answer(asked, np.array([[1]], dtype="<f4"), Datatype.FP32)
    assert head["parameters"] == {"cloister_ignored": "priority,note,content_type"}
    assert "canary" not in json.dumps(head)
    assert "parameters" not in answer(parse(entry(data=[1, 2, 3])), np.array([[1]], dtype="<f4"), Datatype.FP32)[0]


@pytest.mark.parametrize(("said", "want"), [({}, None), ({"timeout": 0}, None), ({"timeout": 1500}, 1500)])
def test_a_timeout_is_read_in_microseconds(said: dict[str, Any], want: int | None) -> None:
    assert parse(entry(data=[1, 2, 3]), parameters=said).parameters.timeout_us == want


CARD = {"labels": {"y": ["zero", "one"], "z": "none"}}
CLASSES: list[tuple[str, Datatype, Any, int, Any]] = [
    ("the highest first", Datatype.FP32, [[0.25, 0.5, 0.125]], 2, [["0.500000:1:one", "0.250000:0:zero"]]),
    ("each item for itself", Datatype.FP64, [[1, 2], [4, 3]], 1, [["2.000000:1:one"], ["4.000000:0:zero"]]),
    ("no more than there are", Datatype.FP32, [[1.0]], 5, [["1.000000:0:zero"]]),
    ("a label that the card has not", Datatype.INT32, [[1, 2, 3]], 1, [["3:2"]]),
    ("of equal ones the first", Datatype.INT64, [[7, 7, 2**62]], 3, [["4611686018427387904:2", "7:0:zero", "7:1:one"]]),
    ("no number last", Datatype.FP32, [[np.nan, -np.inf, 1]], 3, [["1.000000:2", "nan:0:zero", "-inf:1:one"]]),
    ("without a batch", Datatype.UINT8, [3, 255], 1, ["255:1:one"]),
    ("a scalar", Datatype.FP16, 0.5, 1, ["0.500000:0:zero"]),
    ("bits of a half", Datatype.BF16, [[0x3F80, 0xC020]], 1, [["1.000000:0:zero"]]),
    ("truth", Datatype.BOOL, [[False, True]], 1, [["1:1:one"]]),
    ("a plane", Datatype.FP32, [[[1, 2], [3, 0]]], 1, [["3.000000:2"]]),
    ("nobody", Datatype.FP32, np.zeros((0, 3)), 2, np.zeros((0, 2))),
]


@pytest.mark.parametrize(("kind", "values", "count", "want"), [case[1:] for case in CLASSES])
def test_the_highest_values_take_an_outputs_place(kind: Datatype, values: Any, count: int, want: Any) -> None:
    asked = parse(outputs=[{"name": "y", "parameters": {"classification": count}}])
    tensor = Tensor(name="y", datatype=kind, array=np.array(values, dtype=kind.dtype))
    found = json.loads(dump_response(asked, [tensor], model="m", version="v", card=CARD)[0])["outputs"][0]
    assert (found["datatype"], found["shape"]) == ("BYTES", list(np.array(want).shape))
    assert found["data"] == np.array(want).reshape(-1).tolist()


def test_classes_are_of_numbers_and_not_too_many() -> None:
    asked = parse(entry(data=[1, 2, 3]), outputs=[{"name": "y", "parameters": {"classification": 10_000}}])
    for kind in (Datatype.BYTES, Datatype.FP8_E5M2):
        with pytest.raises(Rejected) as refused:
            fit(asked, Signature(inputs=(spec(),), outputs=(spec("y", kind),)))
        assert "classification" in [reason.got for reason in refused.value.reasons]
    many = Tensor(name="y", datatype=Datatype.FP32, array=np.zeros((11, 10_000), dtype="<f4"))
    with pytest.raises(Rejected) as refused:
        dump_response(asked, [many], model="m", version="v", card={"labels": []})
    assert refused.value.code == "output"


def answer(request: InferRequest, array: np.ndarray, datatype: Datatype) -> tuple[dict[str, Any], bytes]:
    body, size = dump_response(request, [Tensor(name="y", datatype=datatype, array=array)], model="m", version="v")
    head = body if size is None else body[:size]
    return json.loads(head), body[len(head) :]


def test_answers_are_json_unless_binary_is_asked_for() -> None:
    array = np.array([[1, 2]], dtype="<f4")
    head, rest = answer(parse(), array, Datatype.FP32)
    assert (head["outputs"][0]["data"], rest) == ([1.0, 2.0], b"")
    head, rest = answer(parse(parameters={"binary_data_output": True}, id="7"), array, Datatype.FP32)
    assert (head["id"], head["outputs"][0]["parameters"], rest) == ("7", {"binary_data_size": 8}, array.tobytes())
    one = parse(parameters={"binary_data_output": True}, outputs=[{"name": "y", "parameters": {"binary_data": False}}])
    assert answer(one, array, Datatype.FP32)[1] == b""


@pytest.mark.parametrize(("datatype", "data", "want"), JSON_CASES, ids=lambda item: getattr(item, "value", ""))
def test_json_answers_read_back_as_they_were(datatype: Datatype, data: list[Any], want: list[Any]) -> None:
    array = np.empty(2, dtype=datatype.dtype)
    array[:] = want
    assert answer(parse(), array, datatype)[0]["outputs"][0]["data"] == data


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        (Datatype.FP32, np.array([np.nan], dtype="<f4")),
        (Datatype.FP16, np.array([np.inf], dtype="<f2")),
        (Datatype.BF16, np.array([0x7F80], dtype="<u2")),
        (Datatype.INT64, np.array([2**53], dtype="<i8")),
        (Datatype.INT64, np.array([-(2**63)], dtype="<i8")),
        (Datatype.UINT64, np.array([2**64 - 1], dtype="<u8")),
        (Datatype.FP8_E5M2, np.array([1], dtype="u1")),
    ],
    ids=lambda item: getattr(item, "value", ""),
)
def test_what_json_cannot_carry_is_refused_and_binary_carries_it(datatype: Datatype, array: np.ndarray) -> None:
    with pytest.raises(Rejected) as refused:
        answer(parse(), array, datatype)
    assert refused.value.code == "output"
    assert answer(parse(parameters={"binary_data_output": True}), array, datatype)[1] == array.tobytes()


def test_outputs_asked_for_exist_and_have_the_form_asked_for() -> None:
    sig = Signature(inputs=(), outputs=(spec("y", Datatype.FP8_E5M2),))
    with pytest.raises(Rejected) as refused:
        fit(parse(outputs=[{"name": "other"}]), sig)
    assert [reason.subject for reason in refused.value.reasons] == ["output other"]
    with pytest.raises(Rejected) as refused:
        fit(parse(), sig)
    assert [reason.subject for reason in refused.value.reasons] == ["output y"]


def test_the_head_of_an_answer_is_written_as_json_writes_it() -> None:
    name = 'y "quoted" \\ \u00e9'
    row = np.array([[0.5, -1.0]], dtype=np.float32)
    tensors = [
        Tensor(name=name, datatype=Datatype.FP32, array=row),
        Tensor(name="z", datatype=Datatype.FP32, array=row),
    ]
    asked = parse(
        entry(data=[1, 2, 3]),
        id='7 "\u00e9',
        parameters={"mood": "blue"},
        outputs=[{"name": name}, {"name": "z", "parameters": {"binary_data": True}}],
    )
    body, size = dump_response(asked, tensors, model="m", version="v")
    want = {
        "model_name": "m",
        "model_version": "v",
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [0.5, -1.0]},
            {"name": "z", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        ],
        "id": '7 "\u00e9',
        "parameters": {"cloister_ignored": "mood"},
    }
    assert body == json.dumps(want, separators=(",", ":")).encode() + row.tobytes()
    assert size == len(body) - row.nbytes
