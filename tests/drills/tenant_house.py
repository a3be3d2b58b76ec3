"""A host in a process of its own, and for each tenant what a drill's house has: enclave, consumers, staff."""

from __future__ import annotations

import shutil
import signal
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2
from drill_house import CHEAP, DrillHouse

import cloister
from cloister.cli.demo.world import World
from cloister.client import CustodianPin
from cloister.crypto.sign import VerifyKey
from cloister.custodian.setup import Initialised
from cloister.custodian.tenants.setup import init_host
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.testing.ports import free_port
from cloister.testing.simulated import SimulatedRoot
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from types import TracebackType

    from cloister.cli.demo.world import Running
    from cloister.client import Trust


class HostProcess:
    """``cloister custodian host serve``, to be killed and started again. Use it in a ``with`` block."""

    def __init__(self, root: Path, **bounds: Any) -> None:
        self.world = World(root)
        self.world.ready_within_s = 60
        self.home = root / "host"
        self.port = free_port()
        self.simulated = SimulatedRoot.generate()
        self.simulated.save_public(root / "simulated-root.pub.json")
        key = KeyFile.create(self.world.custodian / "vault.key")
        settings = {"port": self.port, "sweep_interval_s": 1}
        self.made = init_host(self.home, key, settings=settings, bounds={"start_wait_s": 60, **bounds}, kdf=CHEAP)
        (self.home / "operator.token").touch(mode=0o600)
        (self.home / "operator.token").write_text(self.made.admin_token + "\n")
        self.world.variables[self.world.custodian] |= {
            "CLOISTER_CUSTODIAN_HOME": str(self.home), "PYTHONPATH": str(_source())
        }  # fmt: skip
        self.process: Running | None = None

    def __enter__(self) -> Self:
        self.world.__enter__()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.world.__exit__(kind, value, tb)

    def start(self) -> None:
        """Start it and wait until it listens."""
        public = str(self.world.root / "simulated-root.pub.json")
        words = ("custodian", "host", "serve", "--insecure-simulated-root", public)
        self.process = self.world.start(self.world.custodian, "host", *words)
        self.world.until_port(self.process, self.port)

    def kill(self) -> None:
        """Kill -9, and every tenant's custodian with it."""
        assert self.process is not None
        assert self.process.stop(signal.SIGKILL) == -signal.SIGKILL, self.process.said()[-2000:]

    def stop(self) -> None:
        """End it in good order."""
        assert self.process is not None
        assert self.process.stop() == 0, self.process.said()[-2000:]

    def command(self, *words: str, expect: int | None = 0) -> Any:
        """Run a command as the operator on the host's machine; return what it printed."""
        return self.world.run(self.world.custodian, *words, expect=expect).value


class TenantHouse(DrillHouse):
    """One tenant of a host: its own borrower, enclave and consumers."""

    def __init__(self, root: Path, host: HostProcess, name: str, **more: Any) -> None:
        self.host, self.name = host, name
        super().__init__(root, home=host.home / "tenants" / name, **more)

    @property
    def authority(self) -> Path:
        """The file with the authority of the certificate that the host shows."""
        return self.home / "host-ca.pem"

    def _make(self) -> None:
        said = self.host.command("tenant", "create", self.name, "--set", "max_instances=200")
        token = (self.home / "admin.token").read_text().strip()
        self.made = Initialised(
            home=self.home, key=_key(said["key"]), publisher=_key(said["publisher"]), ca_pem=self.host.made.ca_pem,
            url=said["url"], admin_token=token,
        )  # fmt: skip
        shutil.copy2(self.host.home / "keys" / f"{self.name}.key", self.world.custodian / "vault.key")
        self.simulated = self.host.simulated
        self.simulated.save(self.world.borrower / "simulated-root.json")
        self.simulated.save_public(self.world.root / "simulated-root.pub.json")

    def __enter__(self) -> Self:
        self._stack.enter_context(self.world)
        context = ssl.create_default_context(cafile=str(self.authority))
        client = httpx2.Client(base_url=self.made.url, verify=context, timeout=30, trust_env=False)
        self.http = self._stack.enter_context(client)
        self._publish()
        self._lend()
        return self

    def trust(self) -> Trust:
        """Return whom this tenant's consumers trust."""
        pin = CustodianPin(key=self.made.key, url=self.made.url, ca_pem=self.loan_file["ca_pem"])
        return replace(super().trust(), custodian=pin)


def _source() -> Path:

    return Path(cloister.__file__).parents[1]


def _key(text: str) -> VerifyKey:
    return VerifyKey(parse_b64u(text, what="key"))
