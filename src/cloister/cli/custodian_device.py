"""``cloister custodian device``: machines whose TPM is enrolled: seen, named, retired, let in again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloister.cli.pending import settled, wait_option
from cloister.cli.remote import from_options, remote_options, segment
from cloister.cli.terminal import Group, Terminal, pass_terminal

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["device"]

_device = click.argument("identity", metavar="DEVICE")


@click.group(cls=Group)
def device() -> None:
    """List, name, retire and readmit machines whose TPM is enrolled ('cloister enclave enrol' enrols one)."""


@device.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are retired.")
@remote_options
@pass_terminal
def list_(terminal: Terminal, /, *, everything: bool, **where: Any) -> None:
    """List devices: enrolled, awaited (they may enrol again), and with --all retired."""
    with from_options(**where) as remote:
        shown = remote.get("/v1/devices")
    listed = [item for item in shown["devices"] if everything or item["state"] != "retired"]
    rows = [(item["id"][:16], item["label"], item["maker"], item["state"], item["enrolled_at"]) for item in listed]
    heads = ("device", "label", "maker", "state", "enrolled")
    terminal.result({"devices": listed}, lambda out: out.print(terminal.table(heads, rows)))


@device.command()
@_device
@remote_options
@pass_terminal
def show(terminal: Terminal, /, *, identity: str, **where: Any) -> None:
    """Show one device, and what runs on it."""
    with from_options(**where) as remote:
        shown = remote.get(f"/v1/devices/{segment(identity)}")
    terminal.result(shown, lambda out: _draw(terminal, shown, out))


def _draw(terminal: Terminal, shown: Any, out: Console) -> None:
    rows = [(name, str(shown[name])) for name in ("id", "label", "maker", "state", "enrolled_at")]
    if shown["retired_at"] is not None:
        rows += [("retired_at", str(shown["retired_at"])), ("reason", str(shown["reason"]))]
    rows += [("runs", str(item)) for item in shown["instances"]]
    out.print(terminal.table(("", ""), rows))


@device.command()
@_device
@click.argument("text", metavar="LABEL")
@remote_options
@pass_terminal
def label(terminal: Terminal, /, *, identity: str, text: str, **where: Any) -> None:
    """Give a device a name for people."""
    with from_options(**where) as remote:
        shown = remote.post(f"/v1/devices/{segment(identity)}/label", {"label": text})
    terminal.result(shown, lambda out: out.print(f"{shown['device'][:16]}  {shown['label']}"))


@device.command()
@_device
@click.option("--reason", default="", help="Why, for the log and for whoever asks later.")
@remote_options
@pass_terminal
def retire(terminal: Terminal, /, *, identity: str, reason: str, **where: Any) -> None:
    """Give a device no key any more, and block what runs on it; says within which bound that stops."""
    with from_options(**where) as remote:
        shown = remote.post(f"/v1/devices/{segment(identity)}/retire", {"reason": reason})
    terminal.result(shown, lambda out: _draw_stops(shown, out))


def _draw_stops(shown: Any, out: Console) -> None:
    out.print(f"retired {shown['device']}")
    for item in shown["instances"]:
        bound = item["stops"]["bound"]
        out.print(f"{item['instance'][:16]}  stops within {bound['seconds']:g} s or {bound['units']} units")


@device.command()
@_device
@wait_option
@remote_options
@pass_terminal
def readmit(terminal: Terminal, /, *, identity: str, wait: bool, **where: Any) -> None:
    """Let a retired device enrol again, with a new key. A second person may have to approve."""
    with from_options(**where) as remote:
        shown = settled(terminal, remote, remote.post(f"/v1/devices/{segment(identity)}/readmit", {}), wait=wait)
    terminal.result(shown, lambda out: out.print("it may enrol again: cloister enclave enrol"))
