"""``cloister trust``: a consumer writes down whom it trusts."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.attest.appraise import NotChecked, Policy
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.client import CustodianPin, SystemTls, Trust
from cloister.client.trust_file import parse_origin
from cloister.crypto.sign import VerifyKey
from cloister.errors import UsageError
from cloister.wire import parse_b64u

__all__ = ["trust"]

_KEY_BYTES = 32
_MAX_FILE_BYTES = 1 << 20
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def trust() -> None:
    """Decide whom a consumer trusts."""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


def _text(path: Path | None) -> str | None:
    return None if path is None else _read(path).decode("ascii", errors="replace")


def _custodian(url: str | None, key: str | None, ca: Path | None, why: str | None) -> CustodianPin | NotChecked:
    if why is not None:
        return NotChecked(why)
    if url is None or key is None:
        msg = "trust new: want --custodian-url and --custodian-key, or --no-custodian WHY"
        raise UsageError(msg, hint="the custodian's status tells who runs an enclave and whether it is blocked")
    raw = parse_b64u(key, what="--custodian-key", size=_KEY_BYTES)
    return CustodianPin(key=VerifyKey(raw), url=parse_origin(url), ca_pem=_text(ca))


def _models(pairs: tuple[str, ...], why: str | None) -> dict[str, str] | NotChecked:
    if why is not None:
        return NotChecked(why)
    models = dict(pair.partition("=")[::2] for pair in pairs)
    if not models or not all(models.values()):
        msg = "trust new: want --model NAME=DIGEST, or --any-model WHY"
        raise UsageError(msg)
    return models


def _tls(ca: Path | None, why: str | None) -> SystemTls | NotChecked:
    return NotChecked(why) if why is not None else SystemTls(_text(ca))


def _root(path: Path | None) -> VerifyKey | None:
    if path is None:
        return None
    from cloister.testing.simulated_root import load_root_key  # noqa: PLC0415 - in no production process

    return load_root_key(path)


@trust.command()
@click.option("--policy", type=_file, required=True, help="Appraisal policy with your own reference values.")
@click.option("--tpm-authority", type=_file, multiple=True, help="PEM of an authority that enrols TPMs; repeat.")
@click.option("--insecure-simulated-root", type=_file, help="Root of a simulated TEE. Protects nothing.")
@click.option("--custodian-url", help="Where the model's owner answers for its enclaves.")
@click.option("--custodian-key", help="The owner's public key (base64url).")
@click.option("--custodian-ca", type=_file, help="PEM of the owner's TLS authority [default: the system's].")
@click.option("--no-custodian", metavar="WHY", help="Do not ask the owner; say why.")
@click.option("--operator", "operators", multiple=True, help="Who may run the enclave; repeat for more.")
@click.option("--any-operator", metavar="WHY", help="Accept whoever runs it; say why.")
@click.option("--model", "models", multiple=True, help="NAME=DIGEST; repeat for more.")
@click.option("--any-model", metavar="WHY", help="Accept whatever is served under a name; say why.")
@click.option("--tls-ca", type=_file, help="PEM of the enclave's outer TLS authority [default: the system's].")
@click.option("--any-tls", metavar="WHY", help="Do not check the outer certificate; bodies are encrypted anyway.")
@click.option("--out", type=_file, required=True, help="Trust file to write.")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def new(
    terminal: Terminal,
    /,
    *,
    policy: Path,
    tpm_authority: tuple[Path, ...],
    insecure_simulated_root: Path | None,
    custodian_url: str | None,
    custodian_key: str | None,
    custodian_ca: Path | None,
    no_custodian: str | None,
    operators: tuple[str, ...],
    any_operator: str | None,
    models: tuple[str, ...],
    any_model: str | None,
    tls_ca: Path | None,
    any_tls: str | None,
    out: Path,
    force: bool,
) -> None:
    """Write a trust file: whose hardware, which code, whose model, run by whom.

    What you choose not to compare wants a reason, and every verdict shows it.
    """
    if not operators and any_operator is None:
        msg = "trust new: want --operator NAME, or --any-operator WHY"
        raise UsageError(msg)
    made = Trust(
        policy=Policy.parse(_read(policy)),
        tpm_authorities=tuple(_read(path).decode("ascii", errors="replace") for path in tpm_authority),
        simulated_root=_root(insecure_simulated_root),
        custodian=_custodian(custodian_url, custodian_key, custodian_ca, no_custodian),
        operators=NotChecked(any_operator) if any_operator is not None else operators,
        models=_models(models, any_model),
        tls=_tls(tls_ca, any_tls),
    )
    write_file(out, Trust.parse(made.dump()).dump(), force=force)
    terminal.result({"out": str(out)}, lambda console: console.print(f"wrote {out}"))


@trust.command("simulated-root")
@click.argument("path", type=_file)
@click.option("--public", type=_file, help="Write the public half here, for those who verify.")
@pass_terminal
def simulated_root(terminal: Terminal, /, *, path: Path, public: Path | None) -> None:
    """Make the root of a simulated TEE, for learning and tests. Protects nothing."""
    from cloister.testing.simulated import WARNING  # noqa: PLC0415 - in no production process
    from cloister.testing.simulated_root import SimulatedRoot  # noqa: PLC0415 - the same

    terminal.warn(WARNING)
    root = SimulatedRoot.generate()
    root.save(path)
    if public is not None:
        root.save_public(public)
    result = {"out": str(path), "root": root.public.dump()}
    terminal.result({**result}, lambda console: console.print(f"wrote {path}"))
