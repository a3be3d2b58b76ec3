"""``cloister attest setup``, ``serve``, ``caller`` and ``rotate``: an attestation service of one's own."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import click

from cloister.cli.custodian_attest import SETTINGS_IN_CUSTODIAN
from cloister.cli.metrics_options import metrics_options, metrics_place
from cloister.cli.terminal import Terminal, Verb, pass_terminal, write_file
from cloister.cli.verifiers import insecure_options, insecure_verifiers
from cloister.heap import settle_heap
from cloister.stopping import stop_signals

__all__ = ["caller", "rotate", "serve", "setup"]

_file = click.Path(path_type=Path, dir_okay=False)
_home = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), required=True, help="The service's folder. Required."
)


@click.command(cls=Verb)
@_home
@click.option("--issuer", metavar="URL", required=True, help="Public URL of the service. Required.")
@pass_terminal
def setup(terminal: Terminal, /, *, home: Path, issuer: str) -> None:
    """Make a folder for an attestation service, with a settings file to fill in.

    It has no policy and no caller yet: name policies in service.toml, and add callers by 'attest caller'.
    """
    from cloister.verifier.home import init_home  # noqa: PLC0415 - brings the web server along

    path = init_home(home, issuer=issuer)
    terminal.result({"settings": str(path)}, lambda out: out.print(f"{path}: fill it in, then 'cloister attest serve'"))


@click.command(cls=Verb)
@_home
@click.option("--ready-file", type=_file, help="Write the address here, as JSON, once listening.")
@metrics_options
@insecure_options
@pass_terminal
def serve(
    terminal: Terminal,
    /,
    *,
    home: Path,
    ready_file: Path | None,
    metrics: str | None,
    metrics_token_file: Path | None,
    insecure_simulated_root: Path | None,
    insecure_synthetic_vendors: Path | None,
) -> int:
    """Verify evidence for others and answer signed results, until stopped (SIGINT or SIGTERM).

    Systems of workload identity federate on it by its issuer's URL: docs/reference/attestation-service.md says how.
    """
    from cloister.verifier.home import open_home  # noqa: PLC0415 - brings the web server along
    from cloister.verifier.serve import serve_verifier  # noqa: PLC0415 - the same

    shown = metrics_place(metrics, metrics_token_file)
    make_verifier, given = insecure_verifiers(terminal, insecure_simulated_root, insecure_synthetic_vendors)
    opened = open_home(home, make_verifier=make_verifier, endorsements=given)

    def tell(address: str) -> None:
        settle_heap()
        said = {"address": address, "issuer": opened.settings.issuer}
        if ready_file is not None:
            write_file(ready_file, json.dumps(said).encode(), force=True)
        terminal.result(said, lambda out: out.print(f"listening on {address}\nissuer {opened.settings.issuer}"))

    async def run() -> None:
        stop = asyncio.Event()
        with stop_signals(stop):
            await serve_verifier(opened, home, stop=stop, on_listening=tell, metrics=shown)

    asyncio.run(run())
    return 0


@click.command(cls=Verb)
@_home
@click.argument("name")
@click.option("--out", type=_file, help="Write the token here, mode 0600, and do not show it.")
@pass_terminal
def caller(terminal: Terminal, /, *, home: Path, name: str, out: Path | None) -> None:
    """Let a caller named NAME ask a service: make its API token, shown this once.

    The service keeps a digest of it, one line in the file of callers: who takes the line out shuts the caller out,
    also while the service runs. DIRECTORY may be the home of a custodian or of a host's tenant with a service inside.
    """
    from cloister.verifier.callers import add_caller  # noqa: PLC0415 - of no other command
    from cloister.verifier.home import SETTINGS_NAME, read_home  # noqa: PLC0415 - brings the web server along

    inside = home / SETTINGS_IN_CUSTODIAN
    settings, _ = read_home(inside if inside.exists() else home / SETTINGS_NAME)
    token = add_caller(home / settings.callers, name, rng=os.urandom)
    if out is not None:
        write_file(out, token.encode() + b"\n", private=True)
        terminal.result({"caller": name, "token_file": str(out)}, lambda console: console.print(f"token in {out}"))
        return
    terminal.result({"caller": name, "token": token}, lambda console: console.print(token))


@click.command(cls=Verb)
@_home
@click.option("--incident", is_flag=True, help="At once: keys of before are published no longer.")
@pass_terminal
def rotate(terminal: Terminal, /, *, home: Path, incident: bool) -> None:
    """Make the next signing keys before their time, also while the service runs.

    They are published at once and sign once readers have had time to fetch them (key_ahead_s). With --incident fresh
    keys sign at once and the old ones are gone: tokens of before are refused by who asks for keys again.
    """
    from cloister.verifier.home import SETTINGS_NAME, key_file, read_home, utc_now  # noqa: PLC0415 - the web server
    from cloister.verifier.policies import read_policies  # noqa: PLC0415 - the same
    from cloister.wire import dump_time  # noqa: PLC0415 - the same

    settings, sections = read_home(home / SETTINGS_NAME)
    keys, now = key_file(home, settings, read_policies(home, settings, sections).algorithms), utc_now()
    keys.ring(now)
    ring = keys.rotate(now, incident=incident)
    rows = [(key.kid, key.algorithm, dump_time(key.signs_from)) for key in ring.keys]
    terminal.result(
        {"keys": [{"algorithm": alg, "kid": kid, "signs_from": start} for kid, alg, start in rows]},
        lambda out: out.print(terminal.table(("key", "algorithm", "signs from"), rows)),
    )
