"""The messages of ONNX as tables: which fields there are, what each holds, what of it is kept.

From onnx.proto of ONNX 1.23 (IR version 14 and before): every field of every message, for a field that is not here is
refused. Nothing of a node but its operator is kept, and of weights only where they lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.sealed.formats.protobuf import Field, Kind

if TYPE_CHECKING:
    from cloister.sealed.formats.protobuf import Table

__all__ = ["ELEMENT_BITS", "ELEMENT_NAMES", "EXTERNAL", "PACKED_IN_INT32", "STRING", "TABLE", "TYPED_DATA"]


def _text(name: str, *, repeated: bool = False, kept: bool = False) -> Field:
    return Field(name, Kind.TEXT, repeated, kept)


def _int(name: str, *, repeated: bool = False, kept: bool = False) -> Field:
    return Field(name, Kind.VARINT, repeated, kept)


def _data(name: str) -> Field:
    return Field(name, Kind.BYTES, repeated=True, kept=True)


def _one(name: str, message: str, *, kept: bool = False) -> Field:
    return Field(name, Kind.MESSAGE, repeated=False, kept=kept, message=message)


def _many(name: str, message: str, *, kept: bool = False) -> Field:
    return Field(name, Kind.MESSAGE, repeated=True, kept=kept, message=message)


_PROPS = "StringStringEntry"

TABLE: Table = {
    "Model": {
        1: _int("ir_version", kept=True), 2: _text("producer_name", kept=True), 3: _text("producer_version", kept=True),
        4: _text("domain"), 5: _int("model_version"), 6: _text("doc_string"), 7: _one("graph", "Graph", kept=True),
        8: _many("opset_import", "OperatorSetId", kept=True), 14: _many("metadata_props", _PROPS),
        20: _many("training_info", "TrainingInfo"), 25: _many("functions", "Function"),
        26: _many("configuration", "DeviceConfiguration"),
    },
    "Graph": {
        1: _many("node", "Node"), 2: _text("name"), 5: _many("initializer", "Tensor"), 10: _text("doc_string"),
        11: _many("input", "ValueInfo", kept=True), 12: _many("output", "ValueInfo", kept=True),
        13: _many("value_info", "ValueInfo"), 14: _many("quantization_annotation", "TensorAnnotation"),
        15: _many("sparse_initializer", "SparseTensor"), 16: _many("metadata_props", _PROPS),
    },
    "Node": {
        1: _text("input", repeated=True), 2: _text("output", repeated=True), 3: _text("name"),
        4: _text("op_type", kept=True), 5: _many("attribute", "Attribute"), 6: _text("doc_string"),
        7: _text("domain", kept=True), 8: _text("overload"), 9: _many("metadata_props", _PROPS),
        10: _many("device_configurations", "NodeDeviceConfiguration"),
    },
    "Attribute": {
        1: _text("name"), 2: Field("f", Kind.FIXED32), 3: _int("i"), 4: Field("s", Kind.BYTES), 5: _one("t", "Tensor"),
        6: _one("g", "Graph"), 7: Field("floats", Kind.FIXED32, repeated=True), 8: _int("ints", repeated=True),
        9: Field("strings", Kind.BYTES, repeated=True), 10: _many("tensors", "Tensor"), 11: _many("graphs", "Graph"),
        13: _text("doc_string"), 14: _one("tp", "Type"), 15: _many("type_protos", "Type"), 20: _int("type"),
        21: _text("ref_attr_name"), 22: _one("sparse_tensor", "SparseTensor"),
        23: _many("sparse_tensors", "SparseTensor"),
    },
    "Tensor": {
        1: _int("dims", repeated=True, kept=True), 2: _int("data_type", kept=True),
        3: _one("segment", "Segment", kept=True), 4: _data("float_data"), 5: _data("int32_data"),
        6: _data("string_data"), 7: _data("int64_data"), 8: _text("name", kept=True),
        9: Field("raw_data", Kind.BYTES, kept=True), 10: _data("double_data"), 11: _data("uint64_data"),
        12: _text("doc_string"), 13: _many("external_data", "External", kept=True),
        14: _int("data_location", kept=True), 16: _many("metadata_props", _PROPS),
    },
    "Segment": {1: _int("begin"), 2: _int("end")},
    "SparseTensor": {
        1: _one("values", "Tensor"), 2: _one("indices", "Tensor"), 3: _int("dims", repeated=True, kept=True),
    },
    "ValueInfo": {
        1: _text("name", kept=True), 2: _one("type", "Type", kept=True), 3: _text("doc_string"),
        4: _many("metadata_props", _PROPS),
    },
    "Type": {
        1: _one("tensor_type", "TensorType", kept=True), 4: _one("sequence_type", "ElementType", kept=True),
        5: _one("map_type", "MapType", kept=True), 6: _text("denotation"),
        7: _one("opaque_type", "OpaqueType", kept=True),
        8: _one("sparse_tensor_type", "TensorType", kept=True), 9: _one("optional_type", "ElementType", kept=True),
    },
    "TensorType": {1: _int("elem_type", kept=True), 2: _one("shape", "Shape", kept=True)},
    "ElementType": {1: _one("elem_type", "Type")},
    "MapType": {1: _int("key_type"), 2: _one("value_type", "Type")},
    "OpaqueType": {1: _text("domain"), 2: _text("name")},
    "Shape": {1: _many("dim", "Dimension", kept=True)},
    "Dimension": {1: _int("dim_value", kept=True), 2: _text("dim_param", kept=True), 3: _text("denotation")},
    "StringStringEntry": {1: _text("key"), 2: _text("value")},
    "External": {1: _text("key", kept=True), 2: _text("value", kept=True)},
    "OperatorSetId": {1: _text("domain", kept=True), 2: _int("version", kept=True)},
    "Function": {
        1: _text("name", kept=True), 4: _text("input", repeated=True), 5: _text("output", repeated=True),
        6: _text("attribute", repeated=True), 7: _many("node", "Node"), 8: _text("doc_string"),
        9: _many("opset_import", "OperatorSetId"), 10: _text("domain", kept=True),
        11: _many("attribute_proto", "Attribute"),
        12: _many("value_info", "ValueInfo"), 13: _text("overload"), 14: _many("metadata_props", _PROPS),
    },
    "TrainingInfo": {
        1: _one("initialization", "Graph"), 2: _one("algorithm", "Graph"), 3: _many("initialization_binding", _PROPS),
        4: _many("update_binding", _PROPS),
    },
    "TensorAnnotation": {1: _text("tensor_name"), 2: _many("quant_parameter_tensor_names", _PROPS)},
    "DeviceConfiguration": {1: _text("name"), 2: _int("num_devices"), 3: _text("device", repeated=True)},
    "NodeDeviceConfiguration": {
        1: _text("configuration_id"), 2: _many("sharding_spec", "ShardingSpec"), 3: _int("pipeline_stage"),
    },
    "ShardingSpec": {
        1: _text("tensor_name"), 2: _int("device", repeated=True),
        3: _many("index_to_device_group_map", "IntIntListEntry"),
        4: _many("sharded_dim", "ShardedDim"),
    },
    "IntIntListEntry": {1: _int("key"), 2: _int("value", repeated=True)},
    "ShardedDim": {1: _int("axis"), 2: _many("simple_sharding", "SimpleShardedDim")},
    "SimpleShardedDim": {1: _int("dim_value"), 2: _text("dim_param"), 3: _int("num_shards")},
}  # fmt: skip

STRING = 8  # TensorProto.DataType
EXTERNAL = 1  # TensorProto.DataLocation

ELEMENT_NAMES = {
    1: "FLOAT", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "STRING", 9: "BOOL",
    10: "FLOAT16", 11: "DOUBLE", 12: "UINT32", 13: "UINT64", 14: "COMPLEX64", 15: "COMPLEX128", 16: "BFLOAT16",
    17: "FLOAT8E4M3FN", 18: "FLOAT8E4M3FNUZ", 19: "FLOAT8E5M2", 20: "FLOAT8E5M2FNUZ", 21: "UINT4", 22: "INT4",
    23: "FLOAT4E2M1", 24: "FLOAT8E8M0", 25: "UINT2", 26: "INT2",
}  # fmt: skip
"""Element types by number. FLOAT6E2M3 and FLOAT6E3M2 are left out: no engine of ours has them."""

ELEMENT_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16, 17: 8,
    18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip

TYPED_DATA = {
    1: ("float_data", 4), 14: ("float_data", 8), 11: ("double_data", 8), 15: ("double_data", 16), 7: ("int64_data", 0),
    12: ("uint64_data", 0), 13: ("uint64_data", 0), 8: ("string_data", -1),
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26), ("int32_data", 0)),
}  # fmt: skip
"""By type: the field that holds its values where ``raw_data`` does not, and the bytes of one: 0 for varints, -1 for one
field each."""

PACKED_IN_INT32 = {21: 2, 22: 2, 23: 2, 25: 4, 26: 4}
"""Elements that share one byte, and so one number of ``int32_data``."""
