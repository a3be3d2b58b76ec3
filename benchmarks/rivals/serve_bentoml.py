"""BentoML: one service, an API for each model and kind of body; JSON, or bytes, which it hands on as a file."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from sessions import PORT, Runner, load_all, names


def json_api(name: str) -> Callable[..., Any]:
    """Return the API that takes rows in JSON."""

    async def infer(self: Any, x: np.ndarray) -> np.ndarray:
        return await self.runner.run(self.nets[name], x.astype(np.float32))

    return infer


def raw_api(name: str) -> Callable[..., Any]:
    """Return the API that takes a body as it is."""

    async def infer(self: Any, file: Path, /) -> np.ndarray:
        net = self.nets[name]
        return await self.runner.run(net, net.parse(file.read_bytes()))  # noqa: ASYNC240 - from memory, as it was put there

    return infer


def _start(service: Any) -> None:
    service.nets, service.runner = load_all(), Runner()


def _apis() -> dict[str, Any]:
    found: dict[str, Any] = {"__init__": _start}
    for name in names():
        for kind, infer in (("json", json_api(name)), ("binary", raw_api(name))):
            infer.__name__ = f"{kind}_{name}"  # by which it is looked up
            found[infer.__name__] = bentoml.api(infer, route=f"/{kind}/{name}")
    return found


service = bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
Nets = service(type("Nets", (), _apis()))

if __name__ == "__main__":
    here = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("bentoml"))
    words = ["serve", "serve_bentoml:Nets", "--host", "127.0.0.1", "--port", str(PORT), "--working-dir", here]
    os.execv(program, [program, *words])  # noqa: S606 - no shell is wanted
