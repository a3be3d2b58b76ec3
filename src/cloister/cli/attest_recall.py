"""``cloister attest recall``: judge by what is known now whether the keys that left would still leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.policy import Policy
from cloister.cli.attest_verify import AT
from cloister.cli.evidence_files import read_evidence
from cloister.cli.exits import EXIT_REJECTED, EXIT_UNAVAILABLE
from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import UsageError
from cloister.wire import Json, dump_b64u, dump_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import Console

    from cloister.cli.remote import Remote

__all__ = ["recall"]

_MAX_SENT_BYTES = 700 * 1024  # bytes of a bundle that fit into one request of 1 MiB
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Verb)
@click.option(
    "--policy", "policy_file", type=_file, help="Judge by this policy (JSON or TOML), not by each loan's own."
)
@click.option("--bundle", "bundle_file", type=_file, help="Judge by this signed bundle, not by what the custodian has.")
@click.option("--at", "moment", type=AT, help="Judge as of this time; now, where it is not given.")
@click.option(
    "--stop/--no-stop", default=None, help="Block live instances that fall [default: setting stop_on_recall]."
)
@remote_options
@pass_terminal
def recall(
    terminal: Terminal,
    /,
    *,
    policy_file: Path | None,
    bundle_file: Path | None,
    moment: datetime | None,
    stop: bool | None,
    **where: Any,
) -> int:
    """Judge every past key release again, and list the loans and instances that would be refused.

    Exit code 0: all stand. 4: some fall. 5: none falls, and some could not be decided.
    """
    order = _order(policy_file, bundle_file, moment, stop=stop)
    with from_options(**where) as remote:
        pages = list(_pages(remote, order))
    releases = [item for page in pages for item in page["releases"]]
    result: dict[str, Json] = {
        "fallen": sum(page["fallen"] for page in pages),
        "instances": sorted({name for page in pages for name in page["instances"]}),
        "judged": sum(page["judged"] for page in pages),
        "loans": sorted({name for page in pages for name in page["loans"]}),
        "releases": releases,
        "undecided": sum(page["undecided"] for page in pages),
    }
    terminal.result(result, lambda out: _draw(terminal, result, releases, out))
    if result["fallen"]:
        return EXIT_REJECTED
    return EXIT_UNAVAILABLE if result["undecided"] else 0


def _order(
    policy_file: Path | None, bundle_file: Path | None, moment: datetime | None, *, stop: bool | None
) -> dict[str, Json]:
    order: dict[str, Json] = {} if stop is None else {"stop": stop}
    if moment is not None:
        order["at"] = dump_time(moment)
    if policy_file is not None:
        data = read_evidence(policy_file, what="policy")
        policy = Policy.parse_toml(data) if policy_file.suffix == ".toml" else Policy.parse(data)
        order["policy"] = policy.to_json()
    if bundle_file is not None:
        data = read_evidence(bundle_file, what="bundle")
        if len(data) > _MAX_SENT_BYTES:
            msg = f"bundle {bundle_file}: {len(data)} bytes, want at most {_MAX_SENT_BYTES}"
            raise UsageError(msg, hint="put it into the home first: cloister attest bundle import")
        order["bundle"] = dump_b64u(data)
    return order


def _pages(remote: Remote, order: dict[str, Json]) -> Iterator[Any]:
    """Yield the custodian's answers, page by page."""
    after = 0
    while True:
        page = remote.send_json("/v1/recall", {**order, "after": after})
        yield page
        if page["next"] is None:
            return
        after = page["next"]


def _draw(terminal: Terminal, result: dict[str, Json], releases: list[Any], out: Console) -> None:
    rows = [
        (
            item["verdict"],
            item["loan"],
            item["instance"][:16],
            "stopped" if item["stopped"] else "live" if item["live"] else "over",
            ", ".join(dict.fromkeys(reason["code"] for reason in item["reasons"])),
        )
        for item in releases
    ]
    if rows:
        out.print(terminal.table(("verdict", "loan", "instance", "now", "reasons"), rows))
    out.print(f"{result['judged']} releases judged: {result['fallen']} fall, {result['undecided']} undecided")
