"""What ``verify`` and ``infer`` share: the consumer's options, and how a client comes out of them.

The one place on the consumer's side where a simulated TEE can be let in: the trust must name its root, and the
command line must say so again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.terminal import read_secret
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attest.verifier import Scheme
    from cloister.cli.terminal import Terminal
    from cloister.client import Client, Trust

__all__ = ["DURATION", "Consumer", "consumer_options"]

TOKEN_VARIABLE = "CLOISTER_TOKEN"  # noqa: S105 - the name of a variable
TRUST_VARIABLE = "CLOISTER_TRUST"
_file = click.Path(path_type=Path, dir_okay=False)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_SECONDS = 31 * 86_400


class _Duration(click.ParamType[timedelta]):
    """A duration: ``90``, ``90s``, ``5m``, ``2h``, ``1d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,7})([smhd]?)", str(value), re.ASCII)
        seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
        if not 0 < seconds <= _MAX_SECONDS:
            self.fail(f"{value!r}: want a duration such as 90s, 5m or 2h", param, ctx)
        return timedelta(seconds=seconds)


DURATION = _Duration()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Whom a consumer trusts and how it shows who it is, as the command line says."""

    trust: Path
    token_file: str | None
    insecure_simulated: bool
    timeout: timedelta

    def connect(self, url: str, terminal: Terminal, *, with_token: bool) -> Client:
        """Return a client of the enclave at ``url`` once it is verified. Raises as ``Client.verify``."""
        from cloister.client import Client, Trust  # noqa: PLC0415 - brings the HTTP client along

        trust = Trust.load(self.trust)
        token = self._token() if with_token else None
        try:
            return Client.verify(url, trust, token=token, schemes=self._schemes(trust, terminal), timeout=self.timeout)
        except Rejected as exc:
            if exc.code == "unsupported_tee" and trust.simulated_root is not None:
                exc.hint = "the trust names a simulated TEE, which protects nothing; --insecure-simulated lets it in"
            raise

    def _token(self) -> str | None:
        if self.token_file is not None:
            return read_secret(self.token_file, what="token") or None
        return os.environ.get(TOKEN_VARIABLE) or None

    def _schemes(self, trust: Trust, terminal: Terminal) -> tuple[Scheme, ...]:
        if not self.insecure_simulated:
            return ()
        if trust.simulated_root is None:
            msg = f"--insecure-simulated: {self.trust} names no simulated root"
            raise UsageError(msg)
        from cloister.testing.simulated import WARNING, SimulatedScheme  # noqa: PLC0415 - only where it is asked for

        terminal.warn(WARNING)
        return (SimulatedScheme(trust.simulated_root),)


def consumer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the consumer's options; the command gets ``consumer``."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        consumer = Consumer(
            trust=kwargs.pop("trust"),
            token_file=kwargs.pop("token_file"),
            insecure_simulated=kwargs.pop("insecure_simulated"),
            timeout=kwargs.pop("timeout"),
        )
        return command(*args, consumer=consumer, **kwargs)

    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click keeps options here
    options = (
        click.option(
            "--timeout", type=DURATION, default="60s", show_default=True, help="How long to wait for the next byte."
        ),
        click.option("--insecure-simulated", is_flag=True, help="Let the trust's simulated TEE in. Protects nothing."),
        click.option(
            "--token-file", metavar="FILE", help=f"Consumer token (mode 0600), - for stdin [env {TOKEN_VARIABLE}]."
        ),
        click.option(
            "--trust",
            type=_file,
            envvar=TRUST_VARIABLE,
            required=True,
            help=f"Trust file, from 'cloister trust new' [env {TRUST_VARIABLE}].",
        ),
    )
    decorated: Callable[..., Any] = wrapped
    for option in options:
        decorated = option(decorated)
    return decorated
