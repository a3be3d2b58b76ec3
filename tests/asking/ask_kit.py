"""A consumer's page on a real socket, before a real enclave and its custodian in memory.

Everything runs in a loop of its own thread, so that a browser and plain clients can come from the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from flow_house import ENCLAVE, House, open_house
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits

from cloister.asking.limits import Limits
from cloister.asking.serve import Entrance, serve_ask
from cloister.cli.contract_words import contract_rows
from cloister.client.proxy.upstream import Upstream
from cloister.client.way import Way
from cloister.serving.place import Place
from page_kit import opened

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cloister.enclave.instance import EnclaveInstance
    from cloister.serving.door import Door
    from cloister.wire import Json

FLOAT = TensorProto.FLOAT
DIGITS_CARD: Json = {
    "description": "Reads one handwritten digit from a small grey scan.",
    "labels": {"scores": [str(digit) for digit in range(10)]},
    "preprocess": {
        "image": {"invert": False, "kind": "image", "layout": "flat", "mode": "L", "range": [0, 16], "size": [8, 8]}
    },
    "task": "image-classification",
}
KIDNEY_CARD: Json = {
    "description": "How well kidneys filter, from a blood value and a person's age.",
    "preprocess": {
        "values": {
            "about": {
                "age": {"maximum": 120, "meaning": "at the time of the sample,", "minimum": 18, "unit": "years"},
                "creatinine": {"maximum": 20, "minimum": 0.1, "unit": "mg/dL"},
                "weight": {"maximum": 250, "minimum": 30, "unit": "kg"},
            },
            "columns": ["age", "creatinine", "weight"],
            "kind": "table",
        }
    },
    "task": "regression",
}


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Mapping[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(array, name) for name, array in weights.items()]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(made.SerializeToString())


def digits_model() -> bytes:
    """Return a classifier of handwritten digits, by least squares: simple, and right nine times out of ten."""
    found = load_digits()
    rows = np.hstack([found.data, np.ones((len(found.data), 1))])
    solved = np.linalg.lstsq(rows, np.eye(10)[found.target], rcond=None)[0].astype(np.float32)
    return _model(
        [
            helper.make_node("Gemm", ["image", "w", "b"], ["raw"]),
            helper.make_node("Mul", ["raw", "heat"], ["hot"]),
            helper.make_node("Softmax", ["hot"], ["scores"], axis=1),
        ],
        [helper.make_tensor_value_info("image", FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", FLOAT, ["batch", 10])],
        {"b": solved[64], "heat": np.float32(5) * np.ones(1, np.float32), "w": solved[:64]},
    )


def kidney_model() -> bytes:
    """Return a number from three."""
    return _model(
        [helper.make_node("MatMul", ["values", "w"], ["filtration"])],
        [helper.make_tensor_value_info("values", FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("filtration", FLOAT, ["batch", 1])],
        {"w": np.array([[-0.5], [-10.0], [1.5]], np.float32)},
    )


def echo_model() -> bytes:
    """Return a model that says what it is told."""
    return _model(
        [helper.make_node("Identity", ["words"], ["said"])],
        [helper.make_tensor_value_info("words", TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info("said", TensorProto.STRING, ["batch"])],
        {},
    )


def raw_model() -> bytes:
    """Return a model of three tensors that are neither picture nor table, each said again."""
    kinds = {
        "ids": (TensorProto.INT64, ["batch", "tokens"]),
        "notes": (TensorProto.STRING, ["batch", "parts"]),
        "series": (FLOAT, ["batch", "steps", 2]),
    }
    return _model(
        [helper.make_node("Identity", [name], [f"{name} again"]) for name in kinds],
        [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"{name} again", *kind) for name, kind in kinds.items()],
        {},
    )


def models() -> dict[str, tuple[bytes, Json]]:
    """Return a model of each kind of form."""
    return {
        "digits": (digits_model(), DIGITS_CARD),
        "echo": (echo_model(), {"description": "Says what it is told."}),
        "kidney": (kidney_model(), KIDNEY_CARD),
    }


def scan(digit: int) -> bytes:
    """Return the picture of a handwritten digit, as a camera would have it: large, and in PNG."""
    found = load_digits()
    pixels = found.images[int(np.argmax(found.target == digit))]
    image = Image.fromarray((pixels / 16 * 255).astype(np.uint8), "L").resize((256, 256), Image.Resampling.NEAREST)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@dataclass
class AskPage:
    """An open page: where it is, the link that lets one in, and the parties behind it."""

    address: str
    door: Door
    house: House
    upstream: Upstream
    loop: asyncio.AbstractEventLoop
    instance: EnclaveInstance
    enclaves: contextlib.AsyncExitStack
    clients: list[httpx2.Client] = field(default_factory=list)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the loop of the parties."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def restart(self) -> None:
        """Put a new instance in the enclave's place."""
        await self.enclaves.aclose()
        self.instance = await self.enclaves.enter_async_context(self.house.enclave())

    def link(self) -> str:
        """Return a fresh link."""
        made: Future[str] = Future()
        self.loop.call_soon_threadsafe(lambda: made.set_result(self.address + self.door.new_link()))
        return made.result(10)

    def client(self) -> httpx2.Client:
        """Return somebody without a cookie."""
        made = httpx2.Client(base_url=self.address, headers={"origin": self.address}, timeout=30)
        self.clients.append(made)
        return made

    def visitor(self) -> Visit:
        """Return somebody who came in by a link of their own."""
        client = self.client()
        answer = client.get(self.link() if not self.door.is_open else "/", follow_redirects=True)
        assert answer.status_code == 200, answer.text
        return Visit(client, self.door.prefix)


@dataclass
class Visit:
    """A visitor without a browser."""

    client: httpx2.Client
    prefix: str

    def get(self, path: str) -> httpx2.Response:
        return self.client.get(self.prefix + path)

    def hidden(self, path: str) -> dict[str, str]:
        """Return the hidden fields of the page's forms."""
        return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', self.get(path).text))

    def ask(
        self, model: str, *, fields: Mapping[str, str] | None = None, files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None, **hidden: str,
    ) -> httpx2.Response:  # fmt: skip
        """Fill in the form of a model, and follow to where the answer is."""
        data = {**self.hidden(f"/models/{model}"), **(fields or {}), **hidden}
        parts = [(name, (None, value)) for name, value in data.items()] + list((files or {}).items())
        return self.client.post(
            f"{self.prefix}/models/{model}", files=parts, headers=dict(headers or {}), follow_redirects=True
        )

    def post(self, path: str, **fields: str) -> httpx2.Response:
        return self.client.post(self.prefix + path, data=fields, follow_redirects=True)


def ask_page(
    folder: Path,
    *,
    given: Mapping[str, tuple[bytes, Json]] | None = None,
    allowance: int = 100,
    site: str | None = None,
    limits: Limits | None = None,
    **lent: Any,
) -> AbstractContextManager[AskPage]:
    """Open custodian, enclave and page; they end with the block."""

    async def serve(ended: asyncio.Event, told: Future[AskPage]) -> None:
        parts = given or models()
        files = {name: model for name, (model, _) in parts.items()}
        async with open_house(folder, models=files, cards={name: card for name, (_, card) in parts.items()}) as house:
            await house.lend(allowance, **lent)
            async with contextlib.AsyncExitStack() as enclaves:
                instance = await enclaves.enter_async_context(house.enclave())
                await _serve(_Behind(house, instance, enclaves), site, limits or Limits(), ended, told)

    return opened(serve)


@dataclass
class _Behind:
    """The parties behind a page."""

    house: House
    instance: EnclaveInstance
    enclaves: contextlib.AsyncExitStack


async def _serve(
    behind: _Behind, site: str | None, limits: Limits, ended: asyncio.Event, told: Future[AskPage]
) -> None:
    house = behind.house
    upstream = await Upstream.verify(
        ENCLAVE,
        house.trust(),
        token=house.tokens.get("clinic"),
        schemes=house.schemes(),
        transport=house.wires,
        clock=house.clock,
    )
    async with upstream:
        loop = asyncio.get_running_loop()
        await serve_ask(
            upstream,
            Entrance(place=Place("127.0.0.1", 0), site=site, secure=False, tls=None),
            way=Way.AUTO,
            contract_rows=contract_rows,
            limits=limits,
            stop=ended,
            on_listening=lambda address, door: told.set_result(
                AskPage(address, door, house, upstream, loop, behind.instance, behind.enclaves)
            ),
        )
