"""Codes: model files."""

from __future__ import annotations

from cloister.codes.code import Chapter, Code, Who

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    title="Model files",
    about="What is inside a model, before it is sealed, converted or loaded ([formats](../spec/model-formats.md)).",
    codes=(
        Code(
            name="archive",
            cause="a sealed model has no archives: nobody sees what is in them",
            fix="unpack it first",
            who=Who.MAKER,
            example="model.onnx: archive (got zip, want plain files)",
        ),
        Code(
            name="bad_shape",
            cause="a shape with a negative size, too many dimensions or elements",
            fix="export the model again: [formats](../spec/model-formats.md)",
            who=Who.MAKER,
            example="model.onnx: bad_shape (got dimension -3, want 0 or more)",
        ),
        Code(
            name="code_inside",
            cause="a Keras model with a Lambda layer, which is code",
            fix="replace the layer",
            who=Who.MAKER,
            example="model.onnx: code_inside (got a Keras model with a Lambda layer, want no code)",
        ),
        Code(
            name="conversion_failed",
            cause="the library could not load or export the model",
            fix="see what it says; export the model with the library itself",
            who=Who.MAKER,
            example="model.pt: conversion_failed (got an operator that ONNX does not have, want a model that converts)",
        ),
        Code(
            name="conversion_unsupported",
            cause="a file or model that is not converted",
            fix="see which are: [conversion](conversion.md)",
            who=Who.MAKER,
            example="input text: conversion_unsupported (got string, want numbers)",
        ),
        Code(
            name="duplicate_name",
            cause="two tensors, keys or inputs of one name",
            fix="export the model again",
            who=Who.MAKER,
            example="model.onnx: duplicate_name (got weight, want each tensor once)",
        ),
        Code(
            name="external_missing",
            cause="weights that should lie in a file that is not there",
            fix="seal the whole folder",
            who=Who.MAKER,
            example="model.onnx: external_missing (got weights.bin, want a file of the package)",
        ),
        Code(
            name="gap",
            cause="bytes between tensors that belong to none",
            fix="write the file again with the format's own library",
            who=Who.MAKER,
            example="model.safetensors: gap (got 128 after 96, want tensors without gaps)",
        ),
        Code(
            name="misaligned",
            cause="a tensor of a GGUF file lies on no multiple of its alignment",
            fix="write the file again",
            who=Who.MAKER,
            example="model.gguf: misaligned (got 100, want a multiple of 32)",
        ),
        Code(
            name="model_malformed",
            cause="the enclave found a file that its format does not allow",
            fix="see why with `cloister model inspect`",
            who=Who.MAKER,
            example="model digits: model_malformed",
        ),
        Code(
            name="model_refused",
            cause="the engine does not load this model",
            fix="see what the engine supports: [engines](engines.md)",
            who=Who.MAKER,
            example="onnx runtime: model_refused",
        ),
        Code(
            name="needs_conversion",
            cause="a model that no engine reads as it is",
            fix="`cloister model convert`, or export it to ONNX",
            who=Who.MAKER,
            example="model.onnx: needs_conversion (got HDF5, want ONNX)",
        ),
        Code(
            name="no_model",
            cause="nothing there is ONNX, safetensors or GGUF",
            fix="seal the folder with the model in it",
            who=Who.MAKER,
            example="model.pt: no_model (got no file of a known format, want one)",
        ),
        Code(
            name="no_onnx_file",
            cause="a package without exactly one ONNX file",
            fix="seal a folder with one `.onnx` file",
            who=Who.MAKER,
            example="sealed model: no_onnx_file (got 0 .onnx files, want exactly one)",
        ),
        Code(
            name="outputs_differ",
            cause="the converted model answers otherwise than the one it was made from",
            fix="export it by hand, or look at `--tolerance`: [conversion](conversion.md)",
            who=Who.MAKER,
            example="samples: outputs_differ (got other inputs, want those of the model)",
        ),
        Code(
            name="outside_file",
            cause="a tensor that does not lie within its file",
            fix="the file is cut, or was made to attack; copy or export it again",
            who=Who.MAKER,
            example="model.safetensors: outside_file (got 96 to 256, want within 128 bytes)",
        ),
        Code(
            name="outside_package",
            cause="a model that reads weights from outside of its own files",
            fix="keep the weights beside the `.onnx` file",
            who=Who.MAKER,
            example="model.onnx: outside_package (got an unknown kind of place, want nothing)",
        ),
        Code(
            name="overlap",
            cause="two tensors on the same bytes",
            fix="export the model again",
            who=Who.MAKER,
            example="model.safetensors: overlap (got 64 to 128 and 96 to 160, want each its own bytes)",
        ),
        Code(
            name="pickle",
            cause="a pickle, which runs code when it is loaded",
            fix="convert it, or use safetensors",
            who=Who.MAKER,
            example="model.pt: pickle (got a file of kind pytorch, want no code)",
        ),
        Code(
            name="shard_missing",
            cause="an index names a file that is not there",
            fix="seal the whole folder",
            who=Who.MAKER,
            example=(
                "model.safetensors.index.json: shard_missing (got model-2.safetensors, want a safetensors file "
                "beside it)"
            ),
        ),
        Code(
            name="size_mismatch",
            cause="a tensor has more or fewer bytes than its shape says",
            fix="export the model again",
            who=Who.MAKER,
            example="model.safetensors: size_mismatch (got 120 bytes, want 128)",
        ),
        Code(
            name="tensor_missing",
            cause="an index and its files do not have the same tensors",
            fix="download the model again",
            who=Who.MAKER,
            example="model.safetensors.index.json: tensor_missing (got lm_head.weight, want each tensor in its file)",
        ),
        Code(
            name="too_deep",
            cause="graphs nested too deep",
            fix="export the model without so many branches in one another",
            who=Who.MAKER,
            example="model.onnx: too_deep (got nothing, want at most 16 levels)",
        ),
        Code(
            name="trailing_data",
            cause="bytes behind the last tensor",
            fix="write the file again with the format's own library",
            who=Who.MAKER,
            example="model.safetensors: trailing_data (got 144 bytes of data, want 128)",
        ),
        Code(
            name="two_values",
            cause="a tensor whose values stand in two places",
            fix="export the model again",
            who=Who.MAKER,
            example="model.onnx: two_values (got raw_data, float_data, want values in one place)",
        ),
        Code(
            name="unbounded_calls",
            cause="functions that call themselves, or come to millions of nodes",
            fix="inline the functions",
            who=Who.MAKER,
            example="model.onnx: unbounded_calls (got a function that calls itself, want nothing)",
        ),
        Code(
            name="unknown_type",
            cause="a type that this version does not know",
            fix="see which there are: [formats](../spec/model-formats.md)",
            who=Who.MAKER,
            example="model.onnx: unknown_type (got 99, want nothing)",
        ),
        Code(
            name="unsupported_type",
            cause="the model has a type that cannot be carried",
            fix="change the model's inputs or outputs",
            who=Who.MAKER,
            example="model.onnx: unsupported_type (got a sparse tensor, want dense tensors)",
        ),
    ),
)
