"""Agreement, and inputs drawn from a signature: what is compared, with which tolerance, and what never passes."""

from __future__ import annotations

import numpy as np
import pytest
from formats_kit import cases, model_file

from cloister.convert.agreement import demand_agreement
from cloister.convert.recognise import SourceKind, recognise
from cloister.convert.samples import draw, fits
from cloister.errors import Rejected
from cloister.sealed.formats import Port

ROWS = np.array([[1.0, -2.0], [1000.0, 0.5]], dtype="<f4")


@pytest.mark.parametrize(
    "other",
    [ROWS, ROWS + np.array([[1e-4, 0.0], [0.0, 0.09]], dtype="<f4"), ROWS.astype("<f8")],
    ids=["same", "within", "wider"],
)
def test_floats_may_differ_by_the_tolerance_of_their_row(
    other: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    found = demand_agreement([ROWS], [other], tolerance=1e-4)
    assert (found.outputs, found.values) == (1, 4)


@pytest.mark.parametrize(
    ("reference", "ours"),
    [
        (ROWS, ROWS + np.array([[1e-3, 0], [0, 0]])),
        (ROWS, ROWS + np.array([[0, 0], [0, 0.2]])),
        (ROWS, ROWS[:, :1]),
        (ROWS, ROWS.reshape(-1)),
        (ROWS, np.where(ROWS == 0.5, np.nan, ROWS)),
        (np.array([np.nan, 1.0]), np.array([0.0, 1.0])),
        (np.array([np.inf]), np.array([-np.inf])),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array(["a"]), np.array(["b"])),
        (np.array([True]), np.array([False])),
    ],
)  # fmt: skip
def test_what_differs_is_refused(
    reference: np.ndarray[tuple[int], np.dtype[np.float64]], ours: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    with pytest.raises(Rejected) as refused:
        demand_agreement([reference], [ours], tolerance=1e-4)
    assert refused.value.code == "outputs_differ"


def test_every_output_that_differs_is_named_and_none_may_be_missing() -> None:
    with pytest.raises(Rejected) as refused:
        demand_agreement([ROWS, ROWS, ROWS], [ROWS + 1, ROWS, ROWS * 2], tolerance=1e-4)
    assert [reason.subject for reason in refused.value.reasons] == ["output 0", "output 2"]
    with pytest.raises(Rejected):
        demand_agreement([ROWS, ROWS], [ROWS], tolerance=1e-4)


def test_what_is_not_a_number_agrees_with_itself() -> None:
    odd = np.array([[np.nan, np.inf, 1.0]])
    assert demand_agreement([odd], [odd.copy()], tolerance=0.0).largest == 0


def test_inputs_are_the_same_each_time_and_reach_over_magnitudes() -> None:
    ports = [Port(name="x", dtype="FLOAT", shape=("n", 3)), Port(name="ids", dtype="INT64", shape=(None,))]
    first, second = (draw(ports, {"x": (40, 3), "ids": (7,)}) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["x"].dtype == np.dtype("<f4")
    assert np.abs(first["x"]).max() > 100
    assert np.abs(first["x"]).min() < 0.1
    assert set(first["ids"]) <= set(range(10))
    assert np.array_equal(draw(ports[1:], {"ids": (7,)})["ids"], first["ids"]), "no input depends on another"
    with pytest.raises(Rejected):
        draw([Port(name="s", dtype="STRING", shape=(1,))], {"s": (1,)})


def test_a_shape_fits_where_the_signature_leaves_it_open() -> None:
    port = Port(name="x", dtype="FLOAT", shape=("n", 3, None))
    assert fits(port, (2, 3, 9))
    assert not fits(port, (2, 4, 9))
    assert not fits(port, (2, 3))
    assert fits(Port(name="x", dtype="FLOAT", shape=None), (1, 2))


WHAT = {
    "foreign: PyTorch file": None,
    "foreign: TorchScript": SourceKind.TORCHSCRIPT,
    "foreign: torch.export": None,  # no archive_format in it
    "foreign: Keras with a Lambda layer": SourceKind.KERAS,  # told apart here, refused when it is converted
    "foreign: HDF5": SourceKind.KERAS,
    "foreign: skops": SourceKind.SKOPS,
    "foreign: pickle of protocol 4 that calls": SourceKind.SKLEARN,
    "foreign: pickle in zlib, as joblib writes it": SourceKind.SKLEARN,
    "foreign: text": None,
    "foreign: gzip": None,
    "foreign: archive with a broken directory": None,
}


@pytest.mark.parametrize("name", WHAT)
def test_a_source_is_told_apart_by_its_content(name: str) -> None:
    (data,) = next(case["files"].values() for case in cases() if case["name"] == name)
    if (want := WHAT[name]) is None:
        with pytest.raises(Rejected):
            recognise(model_file("source", data))
    else:
        assert recognise(model_file("source", data)) is want
