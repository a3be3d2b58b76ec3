"""Does a request fit the model? Every misfit is named: input, what came, what the model wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.enclave.engines.tensor import Datatype, Tensor
from cloister.enclave.oip.data import BadData, binary_to_array, json_to_array
from cloister.errors import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.enclave.engines.tensor import Signature, TensorSpec
    from cloister.enclave.oip.request import InferRequest, RawInput

__all__ = ["INPUT", "fit", "units_of"]

INPUT = "input"
"""The code of everything that is wrong with a request's tensors (422)."""


def fit(request: InferRequest, signature: Signature) -> tuple[Tensor, ...]:
    """Return the inputs as tensors of exactly the model's names, types and shapes.

    Raises ``Rejected`` with every parameter that asks for what is not done here (code ``parameter_refused``), else with
    every misfit (``input``); no reason quotes a value of the data.
    """
    refused = request.refused
    if refused:
        raise Rejected("; ".join(map(str, refused)), reasons=refused)
    bad: list[Reason] = []
    sent = {item.name: item for item in request.inputs}
    known = {spec.name for spec in signature.inputs}
    if sent.keys() != known:
        wanted = ", ".join(sorted(known))
        bad += [_misfit(name, "unknown input", wanted) for name in sent if name not in known]
        bad += [_misfit(name, "nothing", "an input of this name") for name in sorted(known - set(sent))]
    bad += _output_misfits(request, signature)
    symbols: dict[str, tuple[int, str]] = {}
    tensors = []
    for spec in signature.inputs:
        item = sent.get(spec.name)
        tensor = None if item is None else _tensor(item, spec, symbols, bad)
        if tensor is not None:
            tensors.append(tensor)
    if bad:
        raise Rejected("; ".join(str(reason) for reason in bad), reasons=tuple(bad))
    return tuple(tensors)


def units_of(tensors: Sequence[Tensor], signature: Signature) -> int:
    """Return the inference items of a request that fits: what is charged, never less than 1.

    A model has a batch dimension where an input's first dimension is open. Where several inputs have
    one the largest counts, so that items cannot hide behind a small first input (T43).
    """
    open_first = {
        spec.name
        for spec in signature.inputs
        if spec.shape is None or (spec.shape and isinstance(spec.shape[0], str | None))
    }
    return max([1, *(tensor.shape[0] for tensor in tensors if tensor.name in open_first and tensor.shape)])


def _misfit(name: str, got: str, want: str) -> Reason:
    return Reason(code=INPUT, subject=f"input {name}", got=got, want=want)


def _output_misfits(request: InferRequest, signature: Signature) -> list[Reason]:
    names = ", ".join(spec.name for spec in signature.outputs)
    bad = [
        Reason(code=INPUT, subject=f"output {output.name}", got="unknown output", want=names)
        for output in request.outputs
        if signature.output(output.name) is None
    ]
    asked = {output.name for output in request.outputs} or {spec.name for spec in signature.outputs}
    bad += [
        Reason(
            code=INPUT, subject=f"output {spec.name}", got="json", want="binary_data: 8-bit floats have no json form"
        )
        for spec in signature.outputs
        if spec.name in asked and spec.datatype.is_float8 and not request.wants_binary(spec.name)
    ]
    bad += [
        Reason(code=INPUT, subject=f"output {spec.name}", got="classification", want="the output itself: no numbers")
        for spec in signature.outputs
        if request.classes(spec.name) and (spec.datatype is Datatype.BYTES or spec.datatype.is_float8)
    ]
    return bad


def _tensor(item: RawInput, spec: TensorSpec, symbols: dict[str, tuple[int, str]], bad: list[Reason]) -> Tensor | None:
    if item.datatype != spec.datatype.label:
        bad.append(_misfit(item.name, f"datatype {item.datatype}", spec.datatype.label))
        return None
    if not _shape_fits(item.shape, spec):
        bad.append(_misfit(item.name, f"shape {list(item.shape)}", spec.describe_shape()))
        return None
    bad += _symbol_misfits(item, spec, symbols)
    try:
        if isinstance(item.data, memoryview):
            array = binary_to_array(item.data, spec.datatype, item.shape)
        else:
            array = json_to_array(item.data, spec.datatype, item.shape)
    except BadData as exc:
        bad.append(_misfit(item.name, exc.got, exc.want))
        return None
    return Tensor(name=item.name, datatype=spec.datatype, array=array)


def _shape_fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    if len(shape) != len(spec.shape):
        return False
    return all(not isinstance(want, int) or got == want for got, want in zip(shape, spec.shape, strict=True))


def _symbol_misfits(item: RawInput, spec: TensorSpec, symbols: dict[str, tuple[int, str]]) -> list[Reason]:
    """Hold sizes of one symbol against each other: equal names mean equal sizes (ONNX IR, "Static tensor shapes")."""
    bad = []
    for size, symbol in zip(item.shape, spec.shape or (), strict=False):
        if not isinstance(symbol, str):
            continue
        first, owner = symbols.setdefault(symbol, (size, item.name))
        if first != size:
            bad.append(_misfit(item.name, f"{symbol} = {size}", f"{first}, as in input {owner}"))
    return bad
