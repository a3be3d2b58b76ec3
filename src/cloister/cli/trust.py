"""``cloister trust``: decide whom a consumer trusts, in a file; and the root of a simulated TEE for learning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from cloister.attest.appraise import AtLeast, Exact, NotChecked, OneOf, Policy
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.client.trust_file import CustodianPin, SystemTls, Trust, parse_origin
from cloister.crypto.sign import VerifyKey
from cloister.errors import UsageError
from cloister.wire import Fields, Json, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

__all__ = ["trust"]

_MAX_FILE_BYTES = 512 * 1024
_SHOWN_CHARS = 96
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def trust() -> None:
    """Decide whom a consumer trusts."""


@trust.command()
@click.option("--out", type=_file, required=True, help="Trust file to write.")
@click.option("--policy", type=_file, required=True, help="Appraisal policy, from 'cloister enclave measure'.")
@click.option("--tpm-authority", type=_file, multiple=True, help="PEM of who enrolled the TPMs; repeat for more.")
@click.option("--insecure-simulated-root", type=_file, help="Root of a simulated TEE. Protects nothing.")
@click.option("--custodian-url", help="Where the model owner's custodian answers.")
@click.option("--custodian-key", help="Its public key, from 'cloister custodian show'.")
@click.option("--custodian-ca", type=_file, help="PEM of its TLS authority [default the system's].")
@click.option("--custodian-not-checked", metavar="WHY", help="Do not ask the custodian.")
@click.option("--operator", "operators", multiple=True, help="Who may run the enclave, as the loan says; repeatable.")
@click.option("--operator-not-checked", metavar="WHY", help="Anybody may run it.")
@click.option("--model", "models", metavar="NAME=DIGEST", multiple=True, help="Sealed model to accept; repeatable.")
@click.option("--models-not-checked", metavar="WHY", help="Take whatever is under a name.")
@click.option("--enclave-ca", type=_file, help="PEM of the enclave's TLS authority [default the system's].")
@click.option("--tls-not-checked", metavar="WHY", help="Take any TLS certificate: bodies are encrypted inside anyway.")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def new(terminal: Terminal, /, *, out: Path, force: bool, **parts: Any) -> None:
    """Write a trust file: whose hardware, which code, whose model, run by whom.

    What is not compared has to be said, with a reason; the reason is shown with every verification.
    """
    root = parts["insecure_simulated_root"]
    made = Trust(
        policy=Policy.parse(_read(parts["policy"])),
        tpm_authorities=tuple(_read(path).decode("ascii", "replace") for path in parts["tpm_authority"]),
        simulated_root=None if root is None else _simulated_root(terminal, root),
        custodian=_custodian(parts),
        operators=_either(parts["operators"], parts["operator_not_checked"], "--operator"),
        models=_models(parts["models"], parts["models_not_checked"]),
        tls=_tls(parts["enclave_ca"], parts["tls_not_checked"]),
    )
    data = made.dump()
    Trust.parse(data)  # what is written can be read again
    write_file(out, data + b"\n", force=force)
    terminal.result({"out": str(out), "trust": _json(data)}, lambda console: _show(console, terminal, made))


@trust.command()
@click.argument("file", type=_file)
@pass_terminal
def show(terminal: Terminal, /, *, file: Path) -> None:
    """Show what a trust file compares, and what not."""
    loaded = Trust.load(file)
    terminal.result(_json(loaded.dump()), lambda console: _show(console, terminal, loaded))


@trust.command("simulated-root")
@click.argument("file", type=_file)
@click.option("--public", type=_file, help="Write the public half here, for verifiers.")
@pass_terminal
def simulated_root(terminal: Terminal, /, *, file: Path, public: Path | None) -> None:
    """Make the root of a simulated TEE, for learning. It protects nothing."""
    from cloister.testing.simulated_root import WARNING, SimulatedRoot  # noqa: PLC0415 - only where it is asked for

    terminal.warn(WARNING)
    root = SimulatedRoot.generate()
    root.save(file)
    if public is not None:
        root.save_public(public)
    result = {"file": str(file), "public": root.public.dump()}
    terminal.result(result, lambda console: console.print(terminal.table(("", ""), list(result.items()))))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > _MAX_FILE_BYTES:
        msg = f"{path}: longer than {_MAX_FILE_BYTES} bytes"
        raise UsageError(msg)
    return data


def _simulated_root(terminal: Terminal, path: Path) -> VerifyKey:
    from cloister.testing.simulated_root import WARNING, load_root_key  # noqa: PLC0415 - only where it is asked for

    terminal.warn(WARNING)
    return load_root_key(path)


def _custodian(parts: Mapping[str, Any]) -> CustodianPin | NotChecked:
    url, key, ca, why = (parts[f"custodian_{name}"] for name in ("url", "key", "ca", "not_checked"))
    if why is not None:
        if url or key or ca:
            msg = "--custodian-not-checked: excludes the other --custodian options"
            raise UsageError(msg)
        return NotChecked(why)
    if url is None or key is None:
        msg = "trust: want --custodian-url and --custodian-key, or --custodian-not-checked WHY"
        raise UsageError(msg, hint="the model's owner prints the key with 'cloister custodian show'")
    pem = None if ca is None else _read(ca).decode("ascii", "replace")
    return CustodianPin(key=_key(key), url=parse_origin(url), ca_pem=pem)


def _key(text: str) -> VerifyKey:
    return VerifyKey.take(Fields({"--custodian-key": text}, what="trust"), "--custodian-key")


def _either(values: tuple[str, ...], why: str | None, option: str) -> tuple[str, ...] | NotChecked:
    """Return the values, or the reason why there are none; exactly one of the two was given."""
    if (why is None) == (not values):
        msg = f"trust: want {option}, or its -not-checked WHY, and not both"
        raise UsageError(msg)
    return values if why is None else NotChecked(why)


def _models(values: tuple[str, ...], why: str | None) -> Mapping[str, str] | NotChecked:
    chosen = _either(values, why, "--model")
    if isinstance(chosen, NotChecked):
        return chosen
    found: dict[str, str] = {}
    for text in chosen:
        name, _, digest = text.partition("=")
        if not digest or name in found:
            msg = f"--model {text[:_SHOWN_CHARS]}: want NAME=DIGEST, each name once"
            raise UsageError(msg)
        found[name] = digest
    return found


def _tls(ca: Path | None, why: str | None) -> SystemTls | NotChecked:
    if ca is not None and why is not None:
        msg = "--tls-not-checked: excludes --enclave-ca"
        raise UsageError(msg)
    if why is not None:
        return NotChecked(why)
    return SystemTls(None if ca is None else _read(ca).decode("ascii", "replace"))


def _json(data: bytes) -> Json:
    return parse_json(data, what="trust")


def _show(console: Console, terminal: Terminal, trust: Trust) -> None:
    rows = [
        ("custodian", _custodian_line(trust)),
        ("operator", _said(trust.operators, " or ".join)),
        ("models", _said(trust.models, lambda models: ", ".join(f"{n} {d[:16]}…" for n, d in models.items()))),
        ("enclave's tls", _said(trust.tls, lambda tls: "system" if tls.ca_pem is None else "pinned")),
        ("policy", trust.policy.digest),
    ]
    console.print(terminal.table(("", ""), rows))
    for tee, rules in trust.policy.tees.items():
        console.print(Text(f"{tee}", style="bold"))
        lines = [(name, _rule(rule)) for name, rule in rules.rules.items()]
        console.print(terminal.table(("claim", "wanted"), lines))


def _custodian_line(trust: Trust) -> str:
    pin = trust.custodian
    return f"not checked: {pin.why}" if isinstance(pin, NotChecked) else f"{pin.url} {pin.key.key_id}"


def _said(value: Any, show: Any) -> str:
    return f"not checked: {value.why}" if isinstance(value, NotChecked) else str(show(value))


def _rule(rule: Exact | OneOf | AtLeast | NotChecked) -> str:
    match rule:
        case Exact(value):
            return str(value)[:_SHOWN_CHARS]
        case OneOf(values):
            return " or ".join(str(value)[:_SHOWN_CHARS] for value in values)
        case AtLeast(value):
            return f"at least {value}"
        case NotChecked(why):
            return f"not checked: {why}"
