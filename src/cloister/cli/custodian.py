"""``cloister custodian``: make a custodian, run it, bring it back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.custodian_attest import attestation_mount
from cloister.cli.custodian_certificate import certificate
from cloister.cli.custodian_dashboard import dashboard
from cloister.cli.custodian_device import device
from cloister.cli.custodian_host import host
from cloister.cli.custodian_issuer import issuer
from cloister.cli.custodian_login import end_session, login, logout, sessions
from cloister.cli.custodian_proposals import COMMANDS
from cloister.cli.custodian_shares import shares
from cloister.cli.custodian_token import token
from cloister.cli.custodian_top import top
from cloister.cli.remote import ADMIN_TOKEN_NAME, HOME_VARIABLE, custodian_home, home_option
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.cli.unlock import lock_with, unlock_options, unlock_with, vault_option
from cloister.cli.verifiers import insecure_options, verifiers_of
from cloister.custodian.setup import (
    backup_custodian,
    init_custodian,
    migrate_custodian,
    move_custodian,
    open_custodian,
    open_vault,
    recover_custodian,
    restore_custodian,
)
from cloister.custodian.tenants.config import is_host
from cloister.errors import UsageError

if TYPE_CHECKING:
    from cloister.wire import Json

__all__ = ["custodian"]

_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def custodian() -> None:
    """Run the model owner's server: keys, loans, leases, the audit log."""


custodian.add_command(certificate)
custodian.add_command(device)
custodian.add_command(host)
custodian.add_command(issuer)
custodian.add_command(shares)
custodian.add_command(token)
for command in (*COMMANDS, dashboard, login, logout, sessions, end_session, top):
    custodian.add_command(command)


@custodian.command()
@click.option("--home", type=_folder, help=f"Where to make it [env {HOME_VARIABLE}].")
@click.option("--name", default="custodian", show_default=True, help="Name that borrowers and consumers are shown.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--dns", "names", multiple=True, help="Host name or address for the certificate; repeat for more.")
@click.option("--database", metavar="URL", help="postgresql://USER@HOST/NAME, empty; a file in the home by default.")
@click.option(
    "--profile",
    type=click.Choice(["development", "production"]),
    default="development",
    show_default=True,
    help="production refuses what is insecure.",
)
@click.option("--person", help="Who answers for the first admin token; without, nobody in particular does.")
@vault_option
@unlock_options
@pass_terminal
def init(
    terminal: Terminal,
    /,
    *,
    home: Path | None,
    name: str,
    host: str,
    port: int,
    names: tuple[str, ...],
    database: str | None,
    profile: str,
    person: str | None,
    vault: str | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Make a custodian: vault, database, certificates and the first admin token.

    The token is written to admin.token in the home, readable to you alone. A key file that does not
    exist is made; keep it, and a copy of it, away from the home. A key service takes the place of both secrets; its
    PIN or credentials come from the environment.
    """
    place = custodian_home(home)
    settings: dict[str, str | int | bool | tuple[str, ...]] = {
        "name": name, "host": host, "port": port, "profile": profile,
        "names": names or ("localhost", "127.0.0.1"), **({} if database is None else {"database": database}),
    }  # fmt: skip
    made = init_custodian(place, lock_with(vault, key_file, passphrase_file), settings=settings, person=person)
    write_file(place / ADMIN_TOKEN_NAME, made.admin_token.encode() + b"\n", private=True)
    result = {
        "home": str(place), "key": made.key.dump(), "publisher": made.publisher.dump(), "url": made.url,
        "token_file": str(place / ADMIN_TOKEN_NAME),
    }  # fmt: skip
    terminal.result(result, lambda out: out.print(terminal.table(("", ""), list(result.items()))))
    terminal.say("start it with 'cloister custodian serve'", style="dim")


@custodian.command()
@home_option
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
    """Serve until stopped (SIGINT or SIGTERM)."""
    from cloister.custodian.serve import serve_custodian  # noqa: PLC0415 - brings the web server along

    place = custodian_home(home)
    if is_host(place):
        msg = f"custodian home {place}: a host's"
        raise UsageError(msg, hint="serve it with 'cloister custodian host serve'")
    make_verifier, endorsements = verifiers_of(terminal, place, insecure_simulated_root, insecure_synthetic_vendors)
    service = open_custodian(
        place,
        unlock_with(place, key_file, passphrase_file),
        make_verifier=make_verifier,
        environment=os.environ,
        endorsements=endorsements,
    )
    try:
        mounts = attestation_mount(service, place)
    except BaseException:
        service.close()
        raise
    terminal.say(f"custodian {service.config.name} on {service.url}")
    serve_custodian(service, home=place, mounts=mounts)


@custodian.command()
@home_option
@click.option("--out", type=_file, required=True, help="File to write, mode 0600; it must not exist.")
@pass_terminal
def backup(terminal: Terminal, /, *, home: Path | None, out: Path) -> None:
    """Copy the database and the records of variants, also while the custodian serves.

    The copy opens nothing without the vault. Keep vault and key file elsewhere, once; never restore the
    checkpoint together with the database: it is what tells an older one.
    """
    with terminal.working("copying the database"):
        size = backup_custodian(custodian_home(home), out, environment=os.environ)
    terminal.result({"bytes": size, "out": str(out)}, lambda console: console.print(f"{out}: {size:,} bytes"))


@custodian.command()
@home_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("backup_file", metavar="BACKUP", type=_file)
@unlock_options
@pass_terminal
def restore(
    terminal: Terminal,
    /,
    *,
    home: Path | None,
    yes: bool,
    backup_file: Path,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Put a backup in the place of the database, once it is proven whole and this custodian's.

    A file that was there is kept beside it; a PostgreSQL database must be empty. Records of variants come with it, so
    that leaked copies are named as before; those that open are not touched. Says whether the backup is older
    than the checkpoint, so that only recover can start it.
    """
    place = custodian_home(home)
    terminal.confirm("The database will be replaced by the backup. Go on?", yes=yes)
    unlock = unlock_with(place, key_file, passphrase_file)
    with terminal.working("proving the backup and putting it back"):
        done = restore_custodian(place, unlock, backup_file, environment=os.environ)
    result: dict[str, Json] = {
        "entries": done.entries, "kept": None if done.kept is None else str(done.kept), "older": done.older or None,
        "variants": done.variants,
    }  # fmt: skip
    terminal.result(result, lambda out: out.print(f"restored, with {done.entries:,} audit entries"))
    if done.kept is not None:
        terminal.say(f"the database that was there is {done.kept} now", style="dim")
    if done.variants is None:
        terminal.warn("from before backups held records of variants: put back traces/ of the home yourself")
    if done.older:
        terminal.warn(f"older than the checkpoint: {done.older}")
        terminal.say("it starts after 'cloister custodian recover', which stops every enclave", style="dim")


@custodian.command()
@home_option
@click.option("--check", is_flag=True, help="Only say which version it has; exit 1 where it is not the newest.")
@click.option("--to", "target", metavar="DATABASE", help="Carry all of it into this empty database: a URL or a file.")
@pass_terminal
def migrate(terminal: Terminal, /, *, home: Path | None, check: bool, target: str | None) -> None:
    """Bring the database's schema up to date, or carry the database into another one.

    Serving does the first by itself. After --to, set database in config.toml to the new one: the old one stays as
    it is, and is refused as older once the new one has been written to.
    """
    place = custodian_home(home)
    if check and target is not None:
        msg = "migrate: --check and --to"
        raise UsageError(msg, hint="one at a time")
    with terminal.working("looking at the schema" if check else "bringing the schema up to date"):
        before, after = migrate_custodian(place, check=check or target is not None, environment=os.environ)
    if target is not None:
        with terminal.progress("copying", unit="rows") as progress:
            rows = move_custodian(place, target, progress=progress, environment=os.environ)
        terminal.result({"rows": rows}, lambda out: out.print(f"{rows:,} rows carried over"))
        terminal.say("now set database in config.toml", style="dim")
        return
    line = f"schema version {before}" + (f", the newest is {after}" if check else f" to {after}")
    terminal.result({"from": before, "to": after}, lambda out: out.print(line))
    if check and before != after:
        sys.exit(1)


@custodian.command()
@home_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@unlock_options
@pass_terminal
def recover(
    terminal: Terminal, /, *, home: Path | None, yes: bool, key_file: Path | None, passphrase_file: str | None
) -> None:
    """Come back after an older database was restored.

    Raises the epoch, writes off every unit that was leased, grants nothing for one full lease time, and
    makes every enclave attest again.
    """
    place = custodian_home(home)
    terminal.confirm("Every running enclave will be stopped. Go on?", yes=yes)
    unlock = unlock_with(place, key_file, passphrase_file)
    with terminal.working("writing off what was leased"):
        done = recover_custodian(place, unlock, environment=os.environ)
    terminal.result({"epoch": done.epoch}, lambda out: out.print(f"recovered; the epoch is {done.epoch} now"))


@custodian.command()
@home_option
@click.option(
    "--second-publisher-file", type=click.Path(path_type=Path, dir_okay=False),
    help="Write the key of manifests' second signatures here (ML-DSA-65), for who pins it.",
)  # fmt: skip
@unlock_options
@pass_terminal
def show(
    terminal: Terminal,
    /,
    *,
    home: Path | None,
    second_publisher_file: Path | None,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Show the public keys that borrowers and consumers pin."""
    place = custodian_home(home)
    vault = open_vault(place, unlock_with(place, key_file, passphrase_file))
    result = {"key": vault.signing_key.verify_key.dump(), "publisher": vault.publisher_key.verify_key.dump()}
    if second_publisher_file is not None:
        key = vault.second_publisher().public
        write_file(second_publisher_file, key.raw, force=False)
        result["second_publisher"] = key.fingerprint
    terminal.result(result, lambda out: out.print(terminal.table(("", ""), list(result.items()))))
