"""``cloister tenant``: what an operator does with the tenants of a host, and nothing of what is theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.remote import (
    ADMIN_TOKEN_NAME,
    OPERATOR_TOKEN_NAME,
    custodian_home,
    from_options,
    remote_options,
    segment,
)
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.custodian.config_file import setting_of
from cloister.custodian.tenants.config import is_host
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.cli.remote import Remote
    from cloister.wire import Json

__all__ = ["tenant"]

_COLUMNS = ("tenant", "state", "health", "cause", "loans", "instances", "units served", "log", "disk")


@click.group(cls=Group)
def tenant() -> None:
    """Make, suspend, resume and erase the tenants of a host; see health and totals, never content."""


def _operator(where: dict[str, Any]) -> Remote:
    return from_options(**where, token_name=OPERATOR_TOKEN_NAME)


@tenant.command()
@click.argument("name")
@click.option("--discoverable", is_flag=True, help="Its public routes (keys, log) are for strangers too.")
@click.option("--key-file", metavar="FILE", help="Key file in the host's folder for keys; made where there is none.")
@click.option("--passphrase-file", metavar="FILE", help="File there with a passphrase, mode 0600.")
@click.option("--vault", metavar="NAME", help="Key service that locks the vault, as for 'cloister custodian init'.")
@click.option("--environment-file", metavar="FILE", help="File there with what the key service needs to know.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="Setting of the tenant; repeat for more.")
@click.option(
    "--digest", "sha256", metavar="SHA256", help="First admin's token as its holder made it: see 'token make'."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the first admin's token.")
@remote_options
@pass_terminal
def create(
    terminal: Terminal,
    /,
    *,
    name: str,
    discoverable: bool,
    key_file: str | None,
    passphrase_file: str | None,
    vault: str | None,
    environment_file: str | None,
    settings: tuple[str, ...],
    sha256: str | None,
    out: Path | None,
    **where: Any,
) -> None:
    """Make a tenant: a custodian of its own with vault, database, log and settings.

    With --digest the first admin has made a token ('cloister custodian token make'), and nobody else sees it. Else it
    is written to --out, on the host's own machine to admin.token in the tenant's home: hand it over, and let whoever it
    is for make tokens of their own and revoke it.
    """
    body: dict[str, Json] = {"name": name, "discoverable": discoverable}
    named = {"key_file": key_file, "passphrase_file": passphrase_file, "environment_file": environment_file}
    body |= {
        member: file for member, file in (*named.items(), ("service", vault), ("sha256", sha256)) if file is not None
    }
    body["settings"] = dict(_settings(settings))
    demand_writable((out,), force=False)
    home = custodian_home(where["home"])
    if sha256 is None and out is None and not (where["url"] is None and is_host(home)):
        msg = "tenant create: want --out FILE for the first admin's token"
        raise UsageError(msg)
    with _operator(where) as remote:
        made = remote.send_json("/operator/tenants", body)
    result = {member: made[member] for member in ("name", "url", "key", "publisher")}
    if sha256 is None:
        place = out or home / "tenants" / name / ADMIN_TOKEN_NAME
        write_file(place, made["token"].encode() + b"\n", private=True)
        result["token_file"] = str(place)
    terminal.result(result, lambda console: console.print(terminal.table(("", ""), list(result.items()))))


def _settings(words: Iterable[str]) -> Iterable[tuple[str, Json]]:
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            msg = f"--set {word}: want NAME=VALUE"
            raise UsageError(msg)
        value = setting_of(name, text)
        yield name, [*value] if isinstance(value, list) else value


@tenant.command("list")
@remote_options
@pass_terminal
def list_command(terminal: Terminal, /, **where: Any) -> None:
    """List tenants: state, health and totals."""
    with _operator(where) as remote:
        found = remote.get("/operator/tenants")
    terminal.result(dict(found), lambda out: out.print(_table(terminal, found["tenants"])))


@tenant.command()
@click.argument("name")
@remote_options
@pass_terminal
def show(terminal: Terminal, /, *, name: str, **where: Any) -> None:
    """Show one tenant's state, health and totals."""
    with _operator(where) as remote:
        found = remote.get(f"/operator/tenants/{segment(name)}")
    terminal.result(dict(found), lambda out: out.print(_table(terminal, [found])))


def _table(terminal: Terminal, tenants: list[dict[str, Any]]) -> Any:
    def line(item: dict[str, Any]) -> tuple[str, ...]:
        figures = item["totals"] or {}
        counts = (figures.get(name) for name in ("loans", "live_instances", "units_served", "log_entries"))
        return (
            item["name"], item["state"], item["health"], item["cause"],
            *("-" if count is None else f"{count:,}" for count in counts), f"{item['disk_bytes']:,}",
        )  # fmt: skip

    return terminal.table(_COLUMNS, [line(item) for item in tenants])


@tenant.command()
@click.argument("name")
@remote_options
@pass_terminal
def suspend(terminal: Terminal, /, *, name: str, **where: Any) -> None:
    """Let a tenant be as if it were not there; its enclaves stop when their leases end."""
    _change(terminal, name, "suspend", where)


@tenant.command()
@click.argument("name")
@remote_options
@pass_terminal
def resume(terminal: Terminal, /, *, name: str, **where: Any) -> None:
    """Let a suspended tenant come back; try one that is locked or failed again."""
    _change(terminal, name, "resume", where)


def _change(terminal: Terminal, name: str, verb: str, where: dict[str, Any]) -> None:
    with _operator(where) as remote:
        found = remote.send_json(f"/operator/tenants/{segment(name)}/{verb}", {})
    terminal.result(dict(found), lambda out: out.print(_table(terminal, [found])))


@tenant.command()
@click.argument("name")
@click.option("--phrase", help="The phrase that the first call printed; erases the tenant for good.")
@remote_options
@pass_terminal
def remove(terminal: Terminal, /, *, name: str, phrase: str | None, **where: Any) -> None:
    """Erase a suspended tenant for good, its vault first. Asked for once, confirmed with --phrase.

    What its database and backups hold is noise without the vault; copies of the vault elsewhere are yours to destroy.
    """
    body: dict[str, Json] = {} if phrase is None else {"phrase": phrase}
    with _operator(where) as remote:
        found = remote.send_json(f"/operator/tenants/{segment(name)}/remove", body)
    if phrase is None:
        terminal.result(dict(found), lambda out: out.print(f"to erase it: --phrase '{found['phrase']}'"))
        terminal.say(f"good until {found['expires_at']}", style="dim")
        return
    terminal.result(dict(found), lambda out: out.print(f"{name}: erased"))
