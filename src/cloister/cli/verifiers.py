"""Which TEEs a custodian believes: the production table, and what is insecure only where a flag named it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.endorse import Given
from cloister.attest.schemes import KINDS, Site, production_schemes
from cloister.attest.verifier import Scheme, Verifier
from cloister.custodian.config_file import read_config
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.cli.terminal import Terminal
    from cloister.testing.vendors.public import PublicVendors

__all__ = ["insecure_options", "insecure_verifiers", "verifier_maker", "verifiers_of"]

_file = click.Path(path_type=Path, dir_okay=False)


def insecure_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the flags that let in what protects nothing, as ``verifiers_of`` takes them."""
    for option in (
        click.option(
            "--insecure-synthetic-vendors",
            type=_file,
            help="Believe these made-up vendors, not the real ones. Protects nothing.",
        ),
        click.option(
            "--insecure-simulated-root", type=_file, help="Accept simulated TEEs under this root. Protects nothing."
        ),
    ):
        command = option(command)
    return command


def verifiers_of(
    terminal: Terminal, home: Path, simulated_root: Path | None, synthetic_vendors: Path | None
) -> tuple[Callable[[Site], Verifier], Given | None]:
    """Return what builds the verifier, and what made-up vendors endorse. Raises ``UsageError`` in production."""
    flags = {"--insecure-simulated-root": simulated_root, "--insecure-synthetic-vendors": synthetic_vendors}
    _refuse_in_production(home, flags)
    return insecure_verifiers(terminal, simulated_root, synthetic_vendors)


def insecure_verifiers(
    terminal: Terminal, simulated_root: Path | None, synthetic_vendors: Path | None
) -> tuple[Callable[[Site], Verifier], Given | None]:
    """Return the same for who may be insecure, and warn of each flag."""
    if simulated_root is not None:
        from cloister.testing.simulated import WARNING  # noqa: PLC0415 - only where it is asked for

        terminal.warn(WARNING)
    vendors = None if synthetic_vendors is None else _synthetic_vendors(terminal, synthetic_vendors)
    return verifier_maker(simulated_root, vendors), None if vendors is None else Given(vendors.endorsements)


def verifier_maker(root: Path | None, vendors: PublicVendors | None) -> Callable[[Site], Verifier]:
    """Return what builds the verifier: the production table, and only where a flag named them what is insecure.

    The simulated TEE comes beside the table, under ``root``; synthetic ``vendors`` take the place of the real ones.
    """

    def make(site: Site) -> Verifier:
        insecure: tuple[Scheme, ...] = () if vendors is None else vendors.schemes()
        if root is not None:
            from cloister.testing.simulated import SimulatedScheme  # noqa: PLC0415 - in no production process
            from cloister.testing.simulated_root import load_root_key  # noqa: PLC0415 - the same

            insecure = (*insecure, SimulatedScheme(load_root_key(root)))
        kinds = KINDS - {scheme.tee for scheme in insecure}
        return Verifier((*production_schemes(site, kinds), *insecure))

    return make


def _synthetic_vendors(terminal: Terminal, path: Path) -> PublicVendors:
    from cloister.testing.vendors.public import WARNING, PublicVendors  # noqa: PLC0415 - in no production process

    terminal.warn(WARNING)
    return PublicVendors.load(path)


def _refuse_in_production(place: Path, flags: Mapping[str, Path | None]) -> None:
    named = [flag for flag, path in flags.items() if path is not None]
    if named and read_config(place, environment=os.environ, now=datetime.now(UTC)).is_production:
        msg = f"{named[0]}: refused by profile production"
        raise UsageError(msg)
