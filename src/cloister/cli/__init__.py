"""The command line: one file per noun, loaded only when asked for.

``terminal`` states the rules that every command keeps. What a command may do, its options and its exit
codes are in docs/reference/cli.md.
"""

from __future__ import annotations

import importlib
import sys

import click

from cloister.cli.terminal import Group, run

__all__ = ["app", "main"]

_NOUNS = {
    "alerts": "List what the custodian says is wrong.",
    "allowance": "Hand out a narrower part of a loan.",
    "ask": "Open a page to ask in, unseen by others.",
    "attest": "Collect, verify and explain evidence.",
    "audit": "Prove and read the audit log.",
    "borrower": "See the loan, ask for more, sign contracts.",
    "completion": "Print a shell completion script.",
    "contract": "Read what a loan is agreed on.",
    "custodian": "Run the model owner's server.",
    "demo": "Watch the whole story on real input.",
    "doctor": "Look at this host and say what to do.",
    "drill": "Measure what is promised, for real.",
    "enclave": "Run the borrower's server inside a TEE.",
    "explain": "Say what a code means and what to do.",
    "infer": "Ask a lent model, unseen.",
    "key": "Rotate the keys that wrap model keys.",
    "loan": "Lend, top up, block and watch.",
    "manual": "Write man pages.",
    "model": "Seal and publish models.",
    "policy": "Make, explain and lint appraisal policies.",
    "proxy": "Let programs of this machine ask, unseen.",
    "receipt": "Prove what a consumer was answered.",
    "reference": "Compute and sign reference values.",
    "relay": "Hide from an enclave who asks it.",
    "tenant": "Keep the tenants of a host, unseen.",
    "trust": "Decide whom a consumer trusts.",
    "usage": "State, prove and settle who used what.",
    "verify": "Verify an enclave before asking it.",
}


class _Nouns(Group):
    """The top of the command line; a noun's file is imported when the noun is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return every noun."""
        return sorted(_NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the noun's file and return its command."""
        if cmd_name not in _NOUNS:
            return None
        module = importlib.import_module(f"cloister.cli.{cmd_name}")
        return getattr(module, cmd_name)  # type: ignore[no-any-return]  # every file exports its own name

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the nouns without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_NOUNS.items()))


@click.command(cls=_Nouns, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cloister", prog_name="cloister")
def app() -> None:
    """Lend an AI model without giving it away; ask it without being overheard.

    Exit codes: 0 done, 2 usage, 3 malformed, 4 rejected, 5 unavailable, 6 waits for a second person, 130 interrupted.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(app))
