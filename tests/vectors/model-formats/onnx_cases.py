"""Cases of ONNX for ``generate.py``: protocol buffers put together by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generate import case

if TYPE_CHECKING:
    from generate import Case


def varint(value: int) -> bytes:
    """Return a varint; negative numbers are 64 bits of two's complement."""
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def num(field: int, value: int) -> bytes:
    """Return a field with a number."""
    return varint(field << 3) + varint(value)


def sub(field: int, *parts: bytes) -> bytes:
    """Return a field with bytes, a text or a message."""
    data = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name: bytes = b"w", dims: tuple[int, ...] = (2, 3), kind: int = 1, *values: bytes) -> bytes:
    """Return a TensorProto; its values, unless given, are 24 bytes raw."""
    shape = b"".join(num(1, size) for size in dims)
    return shape + num(2, kind) + sub(8, name) + b"".join(values or (sub(9, bytes(24)),))


def external(
    *entries: tuple[str, str], kind: int = 1, dims: tuple[int, ...] = (2, 3), name: bytes = b"w", more: bytes = b""
) -> bytes:
    """Return a TensorProto with values elsewhere."""
    where = b"".join(sub(13, sub(1, key.encode()), sub(2, value.encode())) for key, value in entries)
    return tensor(name, dims, kind, where, num(14, 1), more)


def port(name: bytes = b"x", dims: tuple[Any, ...] = ("n", 3), kind: int = 1) -> bytes:
    """Return a ValueInfoProto of a dense tensor."""
    shape = b"".join(sub(1, sub(2, dim.encode()) if isinstance(dim, str) else num(1, dim)) for dim in dims)
    return sub(1, name) + sub(2, sub(1, num(1, kind), sub(2, shape)))


def node(operator: bytes = b"Relu", *attributes: bytes, domain: bytes = b"") -> bytes:
    """Return a NodeProto."""
    return (
        sub(1, b"x")
        + sub(2, b"y")
        + sub(4, operator)
        + b"".join(sub(5, item) for item in attributes)
        + (sub(7, domain) if domain else b"")
    )


def graph(*parts: bytes) -> bytes:
    """Return a GraphProto with one node, one input and one output, and more."""
    return sub(1, node()) + sub(2, b"g") + sub(11, port()) + sub(12, port(b"y")) + b"".join(parts)


def model(*parts: bytes, inside: bytes | None = None) -> bytes:
    """Return a ModelProto: IR version 10, opset 21, a graph, and more."""
    return num(1, 10) + sub(8, num(2, 21)) + sub(7, graph() if inside is None else inside) + b"".join(parts)


def weights(*tensors: bytes) -> bytes:
    """Return a model with these initializers."""
    return model(inside=graph(*(sub(5, item) for item in tensors)))


def nested(depth: int) -> bytes:
    """Return a model whose graphs lie in one another."""
    inner = graph()
    for _ in range(depth):
        inner = graph(sub(1, node(b"If", sub(1, b"then_branch") + sub(6, inner) + num(20, 5))))
    return model(inside=inner)


def types(depth: int) -> bytes:
    """Return a model with a sequence of sequences of ... as its input."""
    kind = sub(1, num(1, 1))
    for _ in range(depth):
        kind = sub(4, sub(1, kind))
    return model(inside=graph(sub(11, sub(1, b"z"), sub(2, kind))))


def function(name: bytes, *calls: bytes) -> bytes:
    """Return a field of ModelProto with a function that calls these."""
    return sub(25, sub(1, name), sub(10, b"f"), *(sub(7, node(call, domain=b"f")) for call in calls))


def single_cases() -> list[tuple[str, str, bytes]]:
    """Return the cases of one file."""
    packed = varint(1) + varint(300) + varint(-1)
    runs = b"".join(num(8, value) for value in range(0, 18000, 3))
    doubling = b"".join(function(b"F%d" % n, b"F%d" % (n + 1), b"F%d" % (n + 1)) for n in range(40)) + function(
        b"F40", b"Relu"
    )
    calls_first = model(doubling, inside=graph(sub(1, node(b"F0", domain=b"f"))))
    circle = model(function(b"A", b"B"), function(b"B", b"C"), function(b"C", b"A"))
    return [
        ("one node", "ok", model()),
        ("raw weights", "ok", weights(tensor())),
        ("a scalar", "ok", weights(tensor(b"s", (), 1, sub(9, bytes(4))))),
        ("an empty tensor", "ok", weights(tensor(b"e", (0, 4), 1, b""))),
        ("floats", "ok", weights(tensor(b"w", (3,), 1, sub(4, bytes(12))))),
        ("floats in two parts", "ok", weights(tensor(b"w", (3,), 1, sub(4, bytes(8)), sub(4, bytes(4))))),
        ("packed integers", "ok", weights(tensor(b"w", (3,), 7, sub(7, packed)))),
        ("half floats in int32_data", "ok", weights(tensor(b"w", (3,), 10, sub(5, packed)))),
        ("four-bit integers in int32_data", "ok", weights(tensor(b"w", (5,), 22, sub(5, packed)))),
        ("four-bit integers raw", "ok", weights(tensor(b"w", (5,), 22, sub(9, bytes(3))))),
        ("texts", "ok", weights(tensor(b"w", (2,), 8, sub(6, b"a"), sub(6, b"")))),
        ("packed dimensions", "ok", weights(sub(1, b"\x02\x03") + num(2, 1) + sub(9, bytes(24)))),
        ("complex", "ok", weights(tensor(b"w", (3,), 14, sub(4, bytes(24))))),
        ("a long list of integers", "ok", model(inside=graph(sub(1, node(b"T", sub(1, b"a") + runs))))),
        ("a constant", "ok", model(inside=graph(sub(1, node(b"Constant", sub(1, b"value") + sub(5, tensor())))))),
        ("sixteen graphs in one another", "ok", nested(15)),
        ("a function", "ok", model(function(b"F", b"Relu", b"Relu"), inside=graph(sub(1, node(b"F", domain=b"f"))))),
        ("nothing", "malformed", b""),
        ("text", "malformed", b"# A model\n"),
        ("no graph", "malformed", num(1, 10)),
        ("no IR version", "malformed", sub(7, graph())),
        ("cut", "malformed", model()[:-1]),
        ("a byte after the end", "malformed", model() + b"\0"),
        ("field zero", "malformed", model(b"\x02\x00")),
        ("unknown field", "malformed", model(num(99, 1))),
        ("unknown field in a tensor", "malformed", weights(tensor() + sub(17, b"x"))),
        ("a group", "malformed", model(b"\x3b\x3c")),
        ("graph of another wire type", "malformed", num(1, 10) + num(7, 1)),
        ("two graphs, which readers merge", "malformed", model(sub(7, graph()))),
        ("a data type twice, of which readers take the last", "malformed", weights(tensor() + num(2, 7))),
        ("raw data twice", "malformed", weights(tensor() + sub(9, bytes(24)))),
        ("a number of eleven bytes", "malformed", model(b"\x28" + b"\x80" * 10 + b"\x01")),
        ("a length of 2^63", "malformed", model(varint(14 << 3 | 2) + varint(1 << 63))),
        ("a length past the message", "malformed", num(1, 10) + varint(7 << 3 | 2) + varint(50) + graph()[:20]),
        ("a length past its message, not past the file", "malformed", model(inside=b"\x12\x7fg") + sub(6, bytes(200))),
        ("a name no utf-8", "malformed", weights(tensor(b"\xff"))),
        ("a name of 70000 bytes", "malformed", weights(tensor(b"n" * 70000))),
        ("5000 dimensions", "malformed", weights(tensor(b"w", (1,) * 5000))),
        ("floats not packed", "malformed", weights(tensor(b"w", (1,), 1, varint(4 << 3 | 5) + bytes(4)))),
        ("packed integers that do not end", "malformed", weights(tensor(b"w", (2,), 7, sub(7, b"\x01\x80")))),
        ("types in one another", "malformed", types(40)),
        ("17 graphs in one another", "too_deep", nested(16)),
        ("data type 0", "unknown_type", weights(tensor(b"w", (6,), 0))),
        ("data type 99", "unknown_type", weights(tensor(b"w", (6,), 99))),
        ("data type 2^32 + 1, which readers cut to 1", "unknown_type", weights(tensor(b"w", (2, 3), (1 << 32) + 1))),
        ("input of type 99", "unknown_type", model(inside=graph(sub(11, port(b"z", (1,), 99))))),
        ("negative dimension", "bad_shape", weights(tensor(b"w", (-2, -3)))),
        ("dimension of 2^63 - 1", "bad_shape", weights(tensor(b"w", (2**63 - 1,)))),
        ("shape that overflows", "bad_shape", weights(tensor(b"w", (1 << 40, 1 << 40)))),
        ("shape that wraps to the right size", "bad_shape", weights(tensor(b"w", (1 << 32, 1 << 32, 6)))),
        ("17 dimensions", "bad_shape", weights(tensor(b"w", (1,) * 16 + (6,)))),
        ("input of open size written as -1", "ok", model(inside=graph(sub(11, port(b"z", (-1, 3)))))),
        ("input of negative size", "bad_shape", model(inside=graph(sub(11, port(b"z", (-2, 3)))))),
        ("input of 17 dimensions", "bad_shape", model(inside=graph(sub(11, port(b"z", (1,) * 17))))),
        ("too few bytes", "size_mismatch", weights(tensor(b"w", (2, 4)))),
        ("too many bytes", "size_mismatch", weights(tensor(b"w", (5,)))),
        ("no bytes", "size_mismatch", weights(tensor(b"w", (5,), 1, b""))),
        ("too few floats", "size_mismatch", weights(tensor(b"w", (3,), 1, sub(4, bytes(8))))),
        ("three and a half floats", "size_mismatch", weights(tensor(b"w", (3,), 1, sub(4, bytes(14))))),
        ("too many packed integers", "size_mismatch", weights(tensor(b"w", (2,), 7, sub(7, packed)))),
        ("values in the field of another type", "size_mismatch", weights(tensor(b"w", (3,), 7, sub(4, bytes(12))))),
        ("texts in raw data", "size_mismatch", weights(tensor(b"w", (2,), 8, sub(9, b"ab")))),
        ("too few texts", "size_mismatch", weights(tensor(b"w", (2,), 8, sub(6, b"a")))),
        (
            "constant with too few bytes",
            "size_mismatch",
            model(inside=graph(sub(1, node(b"Constant", sub(1, b"value") + sub(5, tensor(b"c", (9,))))))),
        ),
        ("values in two places", "two_values", weights(tensor(b"w", (6,), 1, sub(9, bytes(24)), sub(4, bytes(24))))),
        ("a segment", "two_values", weights(tensor() + sub(3, num(1, 0)))),
        (
            "a place and no external location",
            "two_values",
            weights(tensor() + sub(13, sub(1, b"location"), sub(2, b"w.bin"))),
        ),
        ("an unknown kind of place", "outside_package", weights(tensor() + num(14, 2))),
        ("an initializer twice", "duplicate_name", weights(tensor(), tensor())),
        ("an input twice", "duplicate_name", model(inside=graph(sub(11, port())))),
        ("a sparse tensor", "unsupported_type", model(inside=graph(sub(15, sub(1, tensor()))))),
        ("a function that calls itself", "unbounded_calls", model(function(b"F", b"F"))),
        ("three functions in a circle", "unbounded_calls", circle),
        ("functions that come to 2^40 nodes", "unbounded_calls", calls_first),
    ]


def cases() -> list[Case]:
    """Return all cases."""
    found = [case(f"onnx: {name}", expect, {"model.onnx": data}) for name, expect, data in single_cases()]
    place = ("location", "w.bin")

    def beside(name: str, expect: str, *tensors: bytes, more: dict[str, bytes] | None = None) -> Case:
        files = {"model.onnx": weights(*tensors), "w.bin": bytes(64), **(more or {})}
        return case(f"onnx, weights beside it: {name}", expect, files)

    def two(name: bytes, offset: int) -> bytes:
        return external(place, ("offset", str(offset)), ("length", "24"), name=name)

    return [
        *found,
        beside("one tensor", "ok", two(b"w", 0)),
        beside("to the last byte", "ok", two(b"w", 40)),
        beside("no offset, no length", "ok", external(place)),
        beside("a checksum", "ok", external(place, ("checksum", "ab" * 20))),
        beside("two tensors", "ok", two(b"a", 0), two(b"b", 24)),
        beside("two tensors that share their bytes", "ok", two(b"a", 8), two(b"b", 8)),
        case(
            "onnx, weights beside it: in a folder",
            "ok",
            {"m/model.onnx": weights(external(("location", "d/w.bin"))), "m/d/w.bin": bytes(24)},
        ),
        case(
            "onnx, weights beside it: in the folder above",
            "outside_package",
            {"m/model.onnx": weights(external(("location", "../w.bin"))), "w.bin": bytes(24)},
        ),
        beside("an absolute path", "outside_package", external(("location", "/etc/passwd"))),
        beside("a path upwards", "outside_package", external(("location", "../../etc/passwd"))),
        beside("a path by a roundabout", "outside_package", external(("location", "x/../w.bin"))),
        beside("a path with a dot", "outside_package", external(("location", "./w.bin"))),
        beside("a path with a zero byte", "outside_package", external(("location", "w.bin\0.txt"))),
        beside("a path with a backslash", "outside_package", external(("location", "..\\w.bin"))),
        beside("no path", "outside_package", external(("location", ""))),
        beside("no location", "outside_package", external(("offset", "0"))),
        beside("two locations", "outside_package", external(place, place)),
        beside("an unknown key", "outside_package", external(place, ("prepacked_0", "x|0|4|x"))),
        beside(
            "an address in the engine's memory",
            "outside_package",
            external(("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "4096"), ("length", "24")),
        ),
        beside(
            "an address in the engine's memory, and a file of that name",
            "outside_package",
            external(("location", "*/_ORT_MEM_ADDR_/*"), ("length", "24")),
            more={"*/_ORT_MEM_ADDR_/*": bytes(24)},
        ),
        beside("texts", "outside_package", external(place, kind=8, dims=(1,))),
        beside("a file that is not there", "external_missing", external(("location", "v.bin"))),
        beside("the model itself", "external_missing", external(("location", "model.onnx"))),
        beside("a folder", "external_missing", external(("location", "d")), more={"d/w.bin": bytes(24)}),
        case(
            "onnx, weights beside it: a constant's are missing",
            "external_missing",
            {"model.onnx": model(inside=graph(sub(1, node(b"Constant", sub(1, b"value") + sub(5, external(place))))))},
        ),
        beside("past the end", "outside_file", two(b"w", 41)),
        beside("an offset of 2^63 - 1", "outside_file", two(b"w", 2**63 - 1)),
        beside("a negative offset", "outside_file", external(place, ("offset", "-8"))),
        beside("an offset in hex", "outside_file", external(place, ("offset", "0x8"))),
        beside("an offset with a space", "outside_file", external(place, ("offset", " 8"))),
        beside("an offset of 2^64", "outside_file", external(place, ("offset", str(1 << 64)))),
        beside("an offset in other digits", "outside_file", external(place, ("offset", "\u0664"))),
        beside("larger than the file", "outside_file", external(place, dims=(17,))),
        beside("a length too short", "size_mismatch", external(place, ("length", "20"))),
        beside("a length too long", "size_mismatch", external(place, ("length", "28"))),
        beside("values inside too", "two_values", external(place, more=sub(9, bytes(24)))),
        beside("overlap by four bytes", "overlap", two(b"a", 0), two(b"b", 20)),
        beside(
            "one inside the other", "overlap", two(b"a", 8), external(place, ("offset", "12"), dims=(2,), name=b"b")
        ),
        case(
            "onnx: a pickle beside it", "pickle", {"model.onnx": model(), "vocab": b"cbuiltins\nprint\n(S'loaded'\ntR."}
        ),
        case(
            "onnx: bad weights of another format beside it",
            "malformed",
            {"model.onnx": model(), "a.safetensors": b"{}"},
        ),
    ]
