"""``cloister custodian host``: make a host of several tenants, and serve them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.custodian_attest import tenant_attestation
from cloister.cli.remote import HOME_VARIABLE, OPERATOR_TOKEN_NAME, custodian_home
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.cli.unlock import lock_with, unlock_options, unlock_with, vault_option
from cloister.cli.verifiers import insecure_options, verifiers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["host"]

_folder = click.Path(path_type=Path, file_okay=False)


@click.group(cls=Group)
def host() -> None:
    """Serve several tenants, each a whole custodian of its own, in one process."""


@host.command("init")
@click.option("--home", type=_folder, help=f"Where to make it [env {HOME_VARIABLE}].")
@click.option("--host", "address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--dns", "names", multiple=True, help="Host name or address for the certificate; repeat for more.")
@click.option("--keys", metavar="DIRECTORY", help="Where key files of tenants are made; keys in the home by default.")
@click.option(
    "--two-operators", is_flag=True, help="Another operator confirms a removal than the one who asked for it."
)
@click.option(
    "--profile",
    type=click.Choice(["development", "production"]),
    default="development",
    show_default=True,
    help="production refuses what is insecure, for every tenant.",
)
@vault_option
@unlock_options
@pass_terminal
def init_command(
    terminal: Terminal,
    /,
    *,
    home: Path | None,
    address: str,
    port: int,
    names: tuple[str, ...],
    keys: str | None,
    two_operators: bool,
    profile: str,
    vault: str | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Make a host without tenants, and the first operator's token.

    The token is written to operator.token in the home, readable to you alone. The vault here is the host's own: it
    signs the operators' log and the listener's certificate, and opens no tenant's.
    """
    from cloister.custodian.tenants.setup import init_host  # noqa: PLC0415 - brings the web application along

    place = custodian_home(home)
    settings: Mapping[str, str | int | bool | tuple[str, ...]] = {
        "name": "host", "host": address, "port": port, "profile": profile, "names": names or ("localhost", "127.0.0.1"),
    }  # fmt: skip
    bounds: dict[str, str | int | bool | tuple[str, ...]] = {"two_operators": two_operators}
    if keys is not None:
        bounds["keys"] = keys
    made = init_host(place, lock_with(vault, key_file, passphrase_file), settings=settings, bounds=bounds)
    write_file(place / OPERATOR_TOKEN_NAME, made.admin_token.encode() + b"\n", private=True)
    result = {
        "home": str(place), "key": made.key.dump(), "url": made.url, "token_file": str(place / OPERATOR_TOKEN_NAME)
    }  # fmt: skip
    terminal.result(result, lambda out: out.print(terminal.table(("", ""), list(result.items()))))
    terminal.say("start it with 'cloister custodian host serve', then 'cloister tenant create'", style="dim")


@host.command()
@click.option("--home", type=_folder, help=f"The host's home [env {HOME_VARIABLE}].")
@insecure_options
@unlock_options
@pass_terminal
def serve(
    terminal: Terminal,
    /,
    *,
    home: Path | None,
    insecure_simulated_root: Path | None,
    insecure_synthetic_vendors: Path | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Serve all tenants until stopped (SIGINT or SIGTERM).

    The options open the host's own vault. Each tenant's opens as unlock.toml in its home says; one that does not is
    reported as locked and keeps no other back.
    """
    from cloister.custodian.serve import serve_host  # noqa: PLC0415 - brings the web server along
    from cloister.custodian.tenants.setup import open_host  # noqa: PLC0415 - the same

    place = custodian_home(home)
    make_verifier, endorsements = verifiers_of(terminal, place, insecure_simulated_root, insecure_synthetic_vendors)
    opened = open_host(
        place,
        unlock_with(place, key_file, passphrase_file),
        make_verifier=make_verifier,
        environment=os.environ,
        endorsements=endorsements,
        beside=tenant_attestation,
    )
    serve_host(opened, home=place, on_listening=lambda url: terminal.say(f"host on {url}"))
