"""``cloister loan create``: lend models to a borrower, by options or from one contract file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.policy import Policy
from cloister.cli.contract_file import clauses_json, read_contract_file
from cloister.cli.duration import parse_duration
from cloister.cli.remote import from_options, remote_options
from cloister.cli.terminal import Terminal, Verb, demand_writable, pass_terminal, write_file
from cloister.errors import UsageError
from cloister.lending.terms import NAME
from cloister.wire import Json, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "clause_options", "consumer_json", "create", "no_tokens", "policy_json", "take_clause_options", "token_files",
    "write_tokens",
]  # fmt: skip

_MAX_POLICY_BYTES = 1 << 20
_MAX_OFFLINE_DAYS = 90
_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)
_units = click.IntRange(min=0)
_LIMITS = ("max_ceiling", "max_instances", "rate_cap", "ttl_s", "untrusted_ceiling")


def _spec(text: str, what: str) -> tuple[str, int | None]:
    """Split NAME[=UNITS]."""
    name, found, units = text.partition("=")
    if not found:
        return name, None
    if not units.isdecimal():
        msg = f"--{what} {text}: want NAME or NAME=UNITS"
        raise UsageError(msg)
    return name, int(units)


def _model(text: str, ticketed: tuple[str, ...]) -> Json:
    name, found, rest = text.partition("=")
    digest, colon, units = rest.partition(":")
    if not found or (colon and not units.isdecimal()):
        msg = f"--model {text}: want NAME=DIGEST or NAME=DIGEST:UNITS"
        raise UsageError(msg, hint="'cloister model list' shows digests")
    said: dict[str, Json] = {"digest": digest, "name": name}
    return said | ({"allowance": int(units)} if colon else {}) | ({"ticketed": True} if name in ticketed else {})


def consumer_json(consumers: Iterable[str], *, tokens: bool = True) -> list[Json]:
    """Return consumers as the API takes them, with tokens of their own or without. Raises ``UsageError``."""
    without: dict[str, Json] = {} if tokens else {"token": False}
    made: list[Json] = []
    for name, units in (_spec(text, "consumer") for text in consumers):
        made.append({"id": name} | ({} if units is None else {"allowance": units}) | without)
    return made


def policy_json(path: Path) -> Json:
    """Return the policy in a file. Raises ``UsageError``, ``Malformed``."""
    try:
        return Policy.parse(path.read_bytes()[: _MAX_POLICY_BYTES + 1]).to_json()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg, hint="'cloister enclave measure --policy' writes one for this build") from exc


def token_files(folder: Path | None, names: list[str], *, force: bool) -> dict[str, Path]:
    """Return where each consumer's token goes. Refuses now what could not be written once the token is made."""
    if folder is None or not names:
        return {}
    for name in names:
        if not NAME.fullmatch(name):
            msg = f"--consumer {name}: want lower case letters, digits, . _ -"
            raise UsageError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.token" for name in names}
    demand_writable(files.values(), force=force)
    return files


def write_tokens(files: dict[str, Path], tokens: dict[str, str], *, force: bool) -> list[str]:
    """Write each consumer's token to its file, for its eyes only."""
    for name, path in files.items():
        write_file(path, tokens[name].encode() + b"\n", force=force, private=True)
    return [str(path) for path in files.values()]


def clause_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the clauses of a contract, and its limits."""
    for option in (
        click.option("--max-instances", type=click.IntRange(min=1), help="Enclaves that may live at once."),
        click.option(
            "--untrusted-ceiling", type=click.IntRange(min=1), help="The same where its clock is not trusted."
        ),
        click.option("--max-ceiling", type=click.IntRange(min=1), help="N: units one instance may hold unserved."),
        click.option("--rate-cap", type=_units, help="Units per second, 0 for no cap."),
        click.option("--ttl", "ttl_s", type=click.IntRange(1, 3600), help="T: seconds a lease lives."),
        click.option("--sub-allowances", is_flag=True, help="Let the borrower hand out narrower allowances."),
        click.option("--revocations", is_flag=True, help="None of them counts without the borrower's revocation list."),
        click.option("--borrower-key", metavar="KEY", help="Public key with which the borrower signs the contract."),
        click.option("--refund", type=click.Choice(["none", "unused"]), help="What becomes of unserved units."),
        click.option("--offline", metavar="LASTS:UNITS[:OVERDRAFT]", help="Offline term: 2d:500 or 2d:500:20."),
        click.option(
            "--consumer-budget",
            "budgets",
            multiple=True,
            metavar="[ID=]UNITS/TIME[:fixed]",
            help="Units in any such time for each consumer, or for ID; * for all sub-allowances. Repeat for more.",
        ),
        click.option(
            "--consumer-rate",
            "rates",
            multiple=True,
            metavar="[ID=]UNITS/TIME[:BURST]",
            help="Units in such a time from each enclave, at most BURST at once. Repeat for more.",
        ),
        click.option(
            "--output",
            "outputs",
            multiple=True,
            metavar="MODEL:OUTPUT=RULE",
            help="What is shown of an output: nothing, label, top:K, minimum:X[,fill:X]. Repeat for more.",
        ),
        click.option(
            "--watch",
            "watches",
            multiple=True,
            metavar="KIND:ABOVE[=slow|stop]",
            help="Notice how consumers ask: near:20, regular:150, distinct:N, spread:N, unsure:N. Repeat for more.",
        ),
        click.option("--precision", type=click.IntRange(0, 15), help="Decimal places of floating outputs."),
        click.option("--hours", multiple=True, metavar="DAYS HH:MM-HH:MM", help="When, in UTC; repeat for more."),
        click.option("--purpose", help="What the loan is for, in words."),
    ):
        command = option(command)
    return command


def take_clause_options(said: dict[str, Any]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Take the options of ``clause_options`` out of ``said``: the clauses and the limits that were given."""
    offline = said.pop("offline")
    clauses = clauses_json(
        purpose=said.pop("purpose"),
        hours=said.pop("hours"),
        precision=said.pop("precision"),
        offline=None if offline is None else _offline(offline),
        refund=said.pop("refund"),
        borrower_key=said.pop("borrower_key"),
        sub_allowances=False,
        outputs=said.pop("outputs"),
        rates=said.pop("rates"),
        budgets=said.pop("budgets"),
        watches=said.pop("watches"),
    )
    for name in ("sub_allowances", "revocations"):
        if said.pop(name):
            clauses[name] = True  # with the borrower's key, which the loan may have already
    limits = {name: said.pop(name) for name in _LIMITS}
    return clauses, {name: value for name, value in limits.items() if value is not None}


def _offline(text: str) -> Json:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts[1:]):
        msg = f"--offline {text[:40]}: want LASTS:UNITS or LASTS:UNITS:OVERDRAFT, such as 2d:500:20"
        raise UsageError(msg)
    term: dict[str, Json] = {
        "lasts_s": int(parse_duration(parts[0], days=_MAX_OFFLINE_DAYS).total_seconds()), "units": int(parts[1]),
    }  # fmt: skip
    return term | ({"overdraft": int(parts[2])} if len(parts) > 2 else {})  # noqa: PLR2004 - the third of three


no_tokens = click.option(
    "--no-tokens", is_flag=True, help="Make none: an issuer's word alone says who these consumers are."
)


@click.command(cls=Verb)
@click.option("--from", "source", type=_file, help="Contract file with all of it: 'cloister loan contract --example'.")
@click.option("--borrower", help="Who runs the enclave, as consumers are told.")
@click.option("--model", "models", multiple=True, help="NAME=DIGEST[:UNITS]; repeat for more.")
@click.option("--ticketed", multiple=True, metavar="MODEL", help="Each inference of it takes a signature of yours.")
@click.option("--allowance", type=_units, help="Units of the whole loan: the budget.")
@click.option("--consumer", "consumers", multiple=True, help="NAME[=UNITS]; repeat for more.")
@click.option("--anybody", is_flag=True, help="Serve whoever reaches the enclave.")
@click.option("--policy", type=_file, help="Appraisal policy: which enclaves may have the key.")
@clause_options
@click.option("--out", type=_file, required=True, help="Loan file to write for the borrower (mode 0600).")
@click.option("--tokens", type=_folder, help="Folder for the consumers' token files (mode 0600).")
@no_tokens
@click.option("--force", is_flag=True, help="Replace files.")
@remote_options
@pass_terminal
def create(
    terminal: Terminal,
    /,
    *,
    source: Path | None,
    out: Path,
    tokens: Path | None,
    force: bool,
    home: Path | None,
    url: str | None,
    ca: Path | None,
    token_file: str | None,
    **said: Any,
) -> None:
    """Lend models to a borrower. Tokens are shown in files only, and only now."""
    body = _from_options(said) if source is None else _from_file(source, said)
    listed = [item for item in body["consumers"] or () if isinstance(item, dict) and "id" in item]
    names = [item["id"] for item in listed if item.get("token", True)]
    if names and tokens is None:
        msg = "loan create: consumers get tokens; say where with --tokens"
        raise UsageError(msg, hint="or --no-tokens, where an issuer says who they are")
    demand_writable((out,), force=force)
    files = token_files(tokens, names, force=force)
    with from_options(home=home, url=url, ca=ca, token_file=token_file) as remote:
        made = remote.post("/v1/loans", body)
    write_file(out, dump_json(made["loan_file"]), force=force, private=True)
    written = write_tokens(files, made["consumer_tokens"], force=force)
    result: Json = {"loan": made["loan"], "loan_file": str(out), "token_files": written}
    if "borrower" in body["clauses"]:
        terminal.say("no key is released before the borrower has signed: 'cloister loan accept'")
    terminal.result(result, lambda console: console.print(f"{made['loan']}\nloan file {out}\n" + "\n".join(written)))


def _from_file(source: Path, said: dict[str, Any]) -> dict[str, Any]:
    given = sorted(name for name, value in said.items() if value not in (None, (), False))
    if given:
        msg = f"loan create: --from says all of the contract; leave --{given[0].replace('_', '-')} out"
        raise UsageError(msg)
    body, policy = read_contract_file(source)
    return body | {"policy": policy_json(policy)}


def _from_options(said: dict[str, Any]) -> dict[str, Any]:
    """Return the body that the options say. Raises ``UsageError`` for what is missing."""
    for name, option in (
        ("borrower", "--borrower"),
        ("models", "--model"),
        ("allowance", "--allowance"),
        ("policy", "--policy"),
    ):
        if said[name] in (None, ()):
            msg = f"loan create: missing option {option}"
            raise UsageError(msg, hint="or say all of it in one file with --from")
    if (said["anybody"] and said["consumers"]) or not (said["anybody"] or said["consumers"] or said["sub_allowances"]):
        msg = "loan create: name each --consumer, or say --anybody"
        raise UsageError(msg, hint="--anybody lets everyone who reaches the enclave spend the loan's allowance")
    clauses, limits = take_clause_options(said)
    return {
        "allowance": said["allowance"],
        "borrower": said["borrower"],
        "clauses": clauses,
        "consumers": None if said["anybody"] else consumer_json(said["consumers"], tokens=not said["no_tokens"]),
        "models": [_model(text, said["ticketed"]) for text in said["models"]],
        "policy": policy_json(said["policy"]),
        **limits,
    }
