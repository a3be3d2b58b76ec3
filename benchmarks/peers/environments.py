"""Peers that are Python packages: each in a virtual environment of its own, made once below a cache folder.

Versions are pinned. Where the registry cannot be reached, or a package does not install here, one line says so and
its rows are left out. PyTorch, which tensorizer needs, is hundreds of megabytes large, and gigabytes with CUDA.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from figures.goals import at_most
from figures.rounds import Cost, Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

PACKAGES = {
    "tensorizer": ("torch==2.13.0", "numpy==2.4.6", "tensorizer==2.12.1"),
    "cryptotensors": ("numpy==2.4.6", "cryptotensors==0.2.3"),
    "tink": ("tink==1.16.1",),
    "pyrage": ("pyrage==1.4.0",),
}
INSTALL_S = 900


class Unreachable(Exception):
    """A peer that cannot be had here."""


def environment(name: str, cache: Path, pins: tuple[str, ...]) -> Path:
    """Return the interpreter of a peer's environment, made now unless it is there. Raises ``Unreachable``.

    The last of ``pins`` is the peer itself.
    """
    place = cache / f"{name}-{pins[-1].partition('==')[2]}-python{sys.version_info[0]}.{sys.version_info[1]}"
    python, ready = place / "bin" / "python", place / "ready"
    if not ready.exists():
        print(f"{name}: installing {' '.join(pins)} into {place}")
        venv.create(place, with_pip=True, clear=True)
        words = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1"]
        try:
            done = subprocess.run(  # noqa: S603 - our own words
                [python, *words, "--timeout", "15", *pins],
                check=False, capture_output=True, text=True, timeout=INSTALL_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise Unreachable(f"the registry did not answer within {INSTALL_S} s") from exc
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unreachable("not from this registry: " + (errors or ["pip failed"])[-1].removeprefix("ERROR: "))
        ready.touch()
    return python


def _keys() -> str:
    """Return fresh keys for cryptotensors, as JSON Web Keys."""
    signing = Ed25519PrivateKey.generate()
    text = {
        "d": signing.private_bytes_raw(), "x": signing.public_key().public_bytes_raw(), "k": os.urandom(32),
    }  # fmt: skip
    told = {name: base64.b64encode(value).decode() for name, value in text.items()}
    return json.dumps(
        {
            "enc_key": {"alg": "aes256gcm", "k": told["k"], "kid": "encrypting", "kty": "oct"},
            "sign_key": {"alg": "ed25519", "d": told["d"], "kid": "signing", "kty": "okp", "x": told["x"]},
        }
    )


class Peer:
    """A process in a peer's environment."""

    def __init__(self, name: str, python: Path, model: Path, folder: Path) -> None:
        """Start it, and wait until it has proven that it works. Raises ``Unreachable``."""
        self.size = model.stat().st_size
        script = Path(__file__).with_name(f"use_{name}.py")
        self.process = subprocess.Popen(  # noqa: S603 - our own words
            [python, str(script), str(model), str(folder / f"model.{name}")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"CRYPTOTENSORS_KEYS": _keys(), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        self.to, self.said = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        if self.said.readline().strip() != "ready":
            self.end()
            raise Unreachable("it does not run here")

    def ask(self, verb: str) -> Cost:
        """Have it work once."""
        self.to.write(f"{verb}\n")
        self.to.flush()
        wall, cpu = json.loads(self.said.readline())
        return Cost(wall, cpu, self.size)

    def end(self) -> None:
        """End it."""
        self.to.close()
        self.said.close()
        self.process.wait()


def package_rows(names: list[str], cache: Path, model: Path, folder: Path, stack: ExitStack) -> Iterator[Row]:
    """Yield the rows of each peer that can be had; ``stack`` ends their processes."""
    for name in names:
        try:
            peer = Peer(name, environment(name, cache, PACKAGES[name]), model, folder)
        except Unreachable as exc:
            print(f"{name}: left out, {exc}")
            continue
        stack.callback(peer.end)
        for verb in ("open", "seal"):
            yield Row(
                name=f"{name}, {verb}", work=lambda peer=peer, verb=verb: peer.ask(verb),  # type: ignore[misc]
                versus=verb, goal=at_most(1),
            )  # fmt: skip
