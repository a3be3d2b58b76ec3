"""Servers of others: which, in which versions, how they are asked, and how they are brought up.

Each has an environment of its own below the cache folder, made once. One that cannot be installed, or does not come
up, is said and left out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peers.environments import Unreachable, environment

from cloister.testing.ports import free_port
from race.processor import family
from race.server import Row, Server
from race.spelling import BINARY, JSON, OIP, OWN, ListedJson, ListedRaw, Upload
from race.ways import Direct, exchange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from race.nets import Net
    from race.spelling import Spelling

_SCRIPTS = Path(__file__).parent.parent / "rivals"
_RUNTIME = ("numpy==2.4.6", "onnxruntime==1.31.1", "orjson==3.13.0")
_START_S = 120
_OIP_PATH = "/v2/models/{net}/infer"
_OWN_PATH = "/infer/{net}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server of others: its pinned packages, the last of which names it, and how it is asked."""

    name: str
    pins: tuple[str, ...]
    path: str
    spellings: Mapping[str, Spelling]


PEERS = {
    "fastapi": Peer(
        name="FastAPI",
        pins=(*_RUNTIME, "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "fastapi==0.163.2"),
        path=_OWN_PATH,
        spellings=OWN,
    ),
    "litserve": Peer(
        name="LitServe",
        pins=(*_RUNTIME, "python-multipart==0.0.34", "litserve==0.2.19"),
        path=_OWN_PATH,
        spellings={JSON: OWN[JSON], BINARY: Upload()},
    ),
    "mlserver": Peer(name="MLServer", pins=(*_RUNTIME, "mlserver==1.7.1"), path=_OIP_PATH, spellings={JSON: OIP[JSON]}),
    "kserve": Peer(name="KServe SDK", pins=(*_RUNTIME, "kserve==0.21.0"), path=_OIP_PATH, spellings=OIP),
    "bentoml": Peer(
        name="BentoML",
        pins=(*_RUNTIME, "bentoml==1.4.40"),
        path="/{kind}/{net}",
        spellings={BINARY: ListedRaw(), JSON: ListedJson()},
    ),
    "ray": Peer(name="Ray Serve", pins=(*_RUNTIME, "ray[serve]==2.60.0"), path=_OWN_PATH, spellings=OWN),
}


def rows(peer: Peer, server: Server, nets: Sequence[Net]) -> list[Row]:
    """Return the rows of one peer: binary with every net, JSON with small ones, or with all where it has only that."""
    small = frozenset(net.name for net in nets if net.is_small)
    return [
        Row(
            name=peer.name,
            body=body,
            server=server,
            way=Direct(url=server.url, path=partial(_path, peer, body), spelling=spelling),
            only=small if body == JSON and BINARY in peer.spellings else None,
        )
        for body, spelling in peer.spellings.items()
    ]


def _path(peer: Peer, kind: str, net: Net) -> str:
    return peer.path.format(kind=kind, net=net.name)


def start_all(
    names: Sequence[str], nets: Sequence[Net], cache: Path, workers: int, stack: contextlib.ExitStack
) -> list[Row]:
    """Bring up every named peer and return its rows; ``stack`` ends it. Says which are left out, and why."""
    found = []
    for name in names:
        try:
            python = environment(name, cache, PEERS[name].pins)
            server = stack.enter_context(_running(name, python, nets, workers))
        except Unreachable as exc:
            print(f"{PEERS[name].name}: left out, {exc}")
            continue
        found += rows(PEERS[name], server, nets)
    return found


@contextlib.contextmanager
def _running(name: str, python: Path, nets: Sequence[Net], workers: int) -> Iterator[Server]:
    """Run one peer until left. Raises ``Unreachable`` where it does not come up."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as place:
        for net in nets:
            Path(place, f"{net.name}.onnx").write_bytes(net.data)
        settings = {
            "RIVAL_NETS": place,
            "RIVAL_WORKERS": str(workers),
            "RIVAL_PORT": str(port),
            "HOME": place,
            "TMPDIR": place,
            "BENTOML_DO_NOT_TRACK": "True",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        log = Path(place, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [python, str(_SCRIPTS / f"serve_{name}.py")],
                env={"PATH": f"{python.parent}:{os.environ['PATH']}", **settings},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=place, start_new_session=True,
            )  # fmt: skip
        server = Server(name=PEERS[name].name, url=f"http://127.0.0.1:{port}", pid=process.pid, restless=True)
        try:
            _until_up(PEERS[name], server, process, nets, log)
            yield server
        finally:
            _end(process)


def _until_up(peer: Peer, server: Server, process: subprocess.Popen[bytes], nets: Sequence[Net], log: Path) -> None:
    """Wait until every net is answered. Raises ``Unreachable`` with what the process said last."""
    kind, spelling = next(iter(peer.spellings.items()))
    end = time.monotonic() + _START_S
    waiting = list(nets)
    fault: object = "no answer"
    while waiting and process.poll() is None and time.monotonic() < end:
        try:
            exchange(server.url, spelling.write(_path(peer, kind, waiting[0]), waiting[0].inputs(1)))
            waiting.pop(0)
        except (OSError, SystemExit) as exc:
            fault = exc
            time.sleep(0.3)
    if waiting:
        said = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise Unreachable(f"it does not come up: {fault}; {' '.join(said)[:300]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a peer and all that descends from it."""
    pids = family(process.pid)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
