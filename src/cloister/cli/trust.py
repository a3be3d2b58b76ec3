"""``cloister trust``: a consumer writes down whom it trusts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.policy import Policy
from cloister.attest.rules import NotChecked, Rule, wanted
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.client import CustodianPin, SystemTls, Trust
from cloister.client.trust_file import parse_origin
from cloister.crypto.sign import VerifyKey
from cloister.errors import UsageError
from cloister.lending.contract import SignedContract
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["trust"]

_MAX_FILE_BYTES = 1 << 20
_file = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def trust() -> None:
    """Decide whom a consumer trusts."""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc
    if len(data) > _MAX_FILE_BYTES:
        msg = f"{path}: more than {_MAX_FILE_BYTES} bytes"
        raise UsageError(msg)
    return data


def _text(path: Path | None) -> str | None:
    return None if path is None else _read(path).decode("ascii", errors="replace")


def _key(text: str, option: str) -> VerifyKey:
    return VerifyKey.take(Fields({option: text}, what="trust new"), option)


def _custodian(url: str | None, key: str | None, ca: Path | None, why: str | None) -> CustodianPin | NotChecked:
    if why is not None and (url or key or ca):
        msg = "trust new: --no-custodian excludes the other --custodian options"
        raise UsageError(msg)
    if why is not None:
        return NotChecked(why)
    if url is None or key is None:
        msg = "trust new: want --custodian-url and --custodian-key, or --no-custodian WHY"
        raise UsageError(msg, hint="the custodian's status tells who runs an enclave and whether it is blocked")
    return CustodianPin(key=_key(key, "--custodian-key"), url=parse_origin(url), ca_pem=_text(ca))


def _agreed(path: Path | None, key: str | None, custodian: CustodianPin | NotChecked) -> dict[str, Any]:
    """Return which contract counts, and whose signature: both signatures in the file are verified now.

    Raises ``UsageError``, ``Malformed``, and ``Rejected`` as ``SignedContract.verify``.
    """
    borrower = None if key is None else _key(key, "--borrower-key")
    if path is None:
        return {} if borrower is None else {"borrower": borrower}
    if isinstance(custodian, NotChecked):
        msg = "trust new: --contract wants --custodian-key, under which it is verified"
        raise UsageError(msg)
    found = SignedContract.parse(_read(path).rstrip(b"\n")).verify(custodian.key)
    named = found.terms.clauses.borrower
    if named is None or borrower not in (None, named):
        fault = "names no borrower's key" if named is None else "names another borrower's key"
        msg = f"{path}: the contract {fault}"
        raise UsageError(msg)
    return {"borrower": named, "contract": found.digest}


def _models(pairs: tuple[str, ...], why: str | None) -> dict[str, str] | NotChecked:
    if (why is None) != bool(pairs):
        msg = "trust new: want --model NAME=DIGEST, or --any-model WHY, and not both"
        raise UsageError(msg)
    if why is not None:
        return NotChecked(why)
    models = dict(pair.partition("=")[::2] for pair in pairs)
    if len(models) != len(pairs) or not all(models.values()):
        msg = "trust new: want --model NAME=DIGEST, each name once"
        raise UsageError(msg)
    return models


def _tls(ca: Path | None, why: str | None) -> SystemTls | NotChecked:
    if ca is not None and why is not None:
        msg = "trust new: --any-tls excludes --tls-ca"
        raise UsageError(msg)
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
@click.option("--borrower-key", help="The key (base64url) that must have signed the loan's contract.")
@click.option("--contract", type=_file, help="The one signed contract that counts ('cloister contract --out').")
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
    borrower_key: str | None,
    contract: Path | None,
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
    if (any_operator is None) != bool(operators):
        msg = "trust new: want --operator NAME, or --any-operator WHY, and not both"
        raise UsageError(msg)
    custodian = _custodian(custodian_url, custodian_key, custodian_ca, no_custodian)
    made = Trust(
        policy=Policy.parse(_read(policy)),
        tpm_authorities=tuple(_read(path).decode("ascii", errors="replace") for path in tpm_authority),
        simulated_root=_root(insecure_simulated_root),
        custodian=custodian,
        operators=NotChecked(any_operator) if any_operator is not None else operators,
        models=_models(models, any_model),
        tls=_tls(tls_ca, any_tls),
        **_agreed(contract, borrower_key, custodian),
    )
    if made.simulated_root is not None:
        from cloister.testing.simulated import WARNING  # noqa: PLC0415 - in no production process

        terminal.warn(WARNING)
    # What is written can be read: a certificate or a digest out of form is refused now.
    write_file(out, Trust.parse(made.dump()).dump(), force=force)
    terminal.result({"out": str(out)}, lambda console: console.print(f"wrote {out}"))


@trust.command()
@click.argument("path", type=_file)
@pass_terminal
def show(terminal: Terminal, /, *, path: Path) -> None:
    """Show what a trust file compares, and what it does not."""
    loaded = Trust.load(path)
    terminal.result(parse_json(loaded.dump(), what="trust"), lambda out: _draw(terminal, loaded, out))


def _draw(terminal: Terminal, shown: Trust, out: Console) -> None:
    pin, models, operators, tls = shown.custodian, shown.models, shown.operators, shown.tls
    key, agreed = shown.borrower, shown.contract
    rows = [
        ("custodian", _not_checked(pin) if isinstance(pin, NotChecked) else f"{pin.url} {pin.key.dump()}"),
        ("operator", _not_checked(operators) if isinstance(operators, NotChecked) else " or ".join(operators)),
        ("borrower's key", _not_checked(key) if isinstance(key, NotChecked) else key.dump()),
        ("contract", _not_checked(agreed) if isinstance(agreed, NotChecked) else agreed),
        (
            "enclave's tls",
            _not_checked(tls) if isinstance(tls, NotChecked) else "system" if not tls.ca_pem else "pinned",
        ),
    ]
    if isinstance(models, NotChecked):
        rows.append(("models", _not_checked(models)))
    else:
        rows += [(f"model {name}", digest) for name, digest in models.items()]
    out.print(terminal.table(("", ""), rows))
    for tee, rules in shown.policy.tees.items():
        out.print(terminal.table((tee, "wanted"), [(name, _rule(rule)) for name, rule in rules.rules.items()]))


def _not_checked(rule: NotChecked) -> str:
    return f"not checked: {rule.why}"


def _rule(rule: Rule) -> str:
    return _not_checked(rule) if isinstance(rule, NotChecked) else wanted(rule)


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
