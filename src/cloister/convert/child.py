"""The child process of a conversion: loads the source with its library, exports it, and asks it for answers.

``python -m cloister.convert.child FOLDER``: reads the request there, writes model, samples and result. What the
libraries print goes where the parent sends it. The file that is converted may own this process.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloister.convert.conversion import MODEL_NAME, REQUEST_NAME, RESULT_NAME, SAMPLES_NAME, result
from cloister.convert.export import Request, UnfitError
from cloister.convert.samples import draw
from cloister.errors import CloisterError
from cloister.sealed.directory import PlainTree
from cloister.sealed.formats import parse_model
from cloister.sealed.formats.places import plain_files

if TYPE_CHECKING:
    from cloister.convert.export import Export

__all__ = ["main"]

_MODULES = {
    "keras": "cloister.convert.from_keras",
    "skops": "cloister.convert.from_sklearn",
    "sklearn": "cloister.convert.from_sklearn",
    "torch-export": "cloister.convert.from_torch",
    "torchscript": "cloister.convert.from_torch",
}


def main(folder: Path) -> None:
    """Convert, and write how it went."""
    request = _request(folder)
    try:
        said = result("", _convert(request, folder))
    except ModuleNotFoundError as exc:
        said = result("missing", exc.name or str(exc))
    except UnfitError as exc:
        said = result(exc.problem, str(exc))
    except CloisterError as exc:
        said = result("failed", exc.message)
    except Exception as exc:  # noqa: BLE001 - the edge of a process: whatever a library raises is told to the parent
        said = result("failed", f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}")
    (folder / RESULT_NAME).write_text(json.dumps(said), encoding="utf-8")


def _request(folder: Path) -> Request:
    asked = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
    return Request(kind=asked["kind"], source=Path(asked["source"]), trust=asked["trust"], inputs=dict(asked["inputs"]))


def _convert(request: Request, folder: Path) -> str:
    export: Export = importlib.import_module(_MODULES[request.kind]).export(request, folder / MODEL_NAME)
    ports = parse_model(plain_files(PlainTree(folder / MODEL_NAME))).files[0].inputs
    inputs = draw(ports, {port.name: export.shape(port) for port in ports})
    outputs = export.answer([inputs[port.name] for port in ports])
    arrays = {f"in/{name}": array for name, array in inputs.items()}
    arrays |= {f"out/{number}": array for number, array in enumerate(outputs)}
    np.savez(folder / SAMPLES_NAME, **arrays)  # type: ignore[arg-type]  # the stub takes ``allow_pickle`` for one of them
    return export.library


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a model in clear is no business of a core dump
    main(Path(sys.argv[1]))
