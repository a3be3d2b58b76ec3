"""``cloister enclave``: run the borrower's server inside a TEE, and say what it measures."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.binding import fold
from cloister.cli.enclave_tee import Tee, attester_for, policy_for, tee_options
from cloister.cli.enclave_top import top
from cloister.cli.endorsement_folder import read_endorsements
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.enclave.config import EnclaveConfig, load_config
from cloister.enclave.evidence import EvidenceSource
from cloister.enclave.measure import measure_software
from cloister.errors import UsageError
from cloister.sealed.huge import HINT, memory_pages
from cloister.stores.place import is_url
from cloister.wire import Json, dump_b64u, parse_b64u

if TYPE_CHECKING:
    from rich.console import Console

    from cloister.enclave.attesters import Attester
    from cloister.enclave.serve import Ready

__all__ = ["enclave"]

_REPORT_BYTES = 64
_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


@click.group(cls=Group)
def enclave() -> None:
    """Run the borrower's server inside a TEE."""


enclave.add_command(top)


def _config(path: Path | None, overrides: dict[str, Any]) -> EnclaveConfig:
    """Return the settings; what the command line names is relative to where it was typed."""
    paths = ("loan", "media", "metrics_token_file", "model_ca", "model_token_file", "tls_certificate", "tls_key")
    for name in paths:
        if overrides.get(name) is not None:
            overrides[name] = str(Path(overrides[name]).absolute())
    places = [item if is_url(item) else str(Path(item).absolute()) for item in overrides.pop("models", ())]
    return load_config(path, env=os.environ, overrides=overrides | ({"models": places} if places else {}))


@enclave.command()
@click.option("--config", "config_file", type=_file, help="TOML file of settings.")
@click.option("--loan-file", "loan", type=_file, help="The loan file the custodian gave you (mode 0600).")
@click.option("--model", "models", metavar="PLACE", multiple=True, help="Folder or URL of a sealed model; repeatable.")
@click.option("--model-ca", type=_file, help="PEM file of the authority of the servers that models come from.")
@click.option("--model-token-file", type=_file, help="File with a bearer token for them (mode 0600).")
@click.option("--listen", help="HOST:PORT to listen on [default 127.0.0.1:8440].")
@click.option("--tls", type=click.Choice(["off", "generated", "files"]), help="Outer TLS.")
@click.option("--tls-certificate", type=_file, help="PEM file, with --tls files.")
@click.option("--tls-key", type=_file, help="PEM file, with --tls files.")
@click.option(
    "--profile", type=click.Choice(["development", "production"]), help="production refuses what is insecure."
)
@click.option("--media", type=_folder, help="Folder in which files come and go on removable media.")
@click.option("--airgapped", is_flag=True, default=None, help="Boot and live by the files in --media alone.")
@click.option(
    "--memory-budget", metavar="SIZE", help="Most memory for models together, such as 8GiB; others wait on disk."
)
@click.option("--metrics", metavar="HOST:PORT", help="Show metrics at this address of their own.")
@click.option("--metrics-token-file", type=_file, help="File with the token a scraper shows (mode 0600).")
@click.option("--traces", metavar="URL", help="Send spans to this OpenTelemetry collector (extra 'otel').")
@click.option("--ready-file", type=_file, help="Write the address here once serving.")
@click.option("--gpu", is_flag=True, help="Attest every NVIDIA GPU of this machine too.")
@click.option(
    "--endorsements", type=_folder, help="Folder of vendors' endorsements to hand on to consumers; read again hourly."
)
@tee_options
@pass_terminal
def serve(
    terminal: Terminal,
    /,
    *,
    config_file: Path | None,
    ready_file: Path | None,
    gpu: bool,
    endorsements: Path | None,
    tee: Tee,
    **settings: Any,
) -> int:
    """Attest, receive the key, open the model into memory, and serve until ended.

    Ends by itself when the custodian blocks it, or after two lease times without renewal.
    """
    from cloister.enclave import serve as server  # noqa: PLC0415 - brings the web server along

    config = _config(config_file, settings)
    if tee.is_simulated and config.profile.value == "production":
        msg = "--tee simulated: refused by profile production"
        raise UsageError(msg)
    if tee.is_simulated:
        terminal.warn(tee.warning())
    read_endorsements(endorsements)  # a folder that cannot be read is said now, not in an hour
    source = EvidenceSource(
        attester=attester_for(tee, measure_software(config)),
        devices=_gpus() if gpu else (),
        endorsements=lambda: read_endorsements(endorsements),
    )

    pages = memory_pages()

    def on_ready(ready: Ready) -> None:
        instance = ready.instance.metering.instance
        if ready_file is not None:
            told = {"instance": instance, "memory_pages": pages, "metrics": ready.metrics, "url": ready.url}
            write_file(ready_file, json.dumps(told).encode(), force=True)
        if pages == "ordinary":
            terminal.say(f"models lie in ordinary pages, and were opened slower than this host could: {HINT}")
        if ready.metrics is not None:
            terminal.say(f"metrics on {ready.metrics}")
        terminal.say(f"serving on {ready.url} as instance {instance[:16]}")

    with terminal.progress("opening models") as report:
        ending = server.serve(config, source, on_ready=on_ready, progress=report)
    result: Json = {"ending": ending.value, "memory_pages": pages}
    terminal.result(result, lambda out: out.print(f"ended: {ending.value}"))
    return 0 if ending is server.Ending.DRAINED else 4


def _gpus() -> tuple[Attester, ...]:
    """Return an attester for each GPU. Raises ``Unavailable`` where there is no driver or no GPU."""
    from cloister.enclave.attesters.nvml import gpu_attesters, load_nvml  # noqa: PLC0415 - needs the vendor's library

    return gpu_attesters(load_nvml())


@enclave.command()
@click.option("--config", "config_file", type=_file, help="TOML file of settings; they are measured too.")
@click.option("--software", type=_file, help="Take a software manifest from a file instead of measuring this one.")
@click.option("--out", type=_file, help="Write the software manifest here.")
@click.option("--policy", type=_file, help="Write an appraisal policy that admits exactly this.")
@click.option(
    "--policy-version", type=click.IntRange(min=1), default=1, show_default=True, help="Must grow with each policy."
)
@click.option("--tls", type=click.Choice(["off", "generated", "files"]), help="Outer TLS, as it will be served.")
@click.option("--profile", type=click.Choice(["development", "production"]), help="Profile, as it will be served.")
@click.option("--force", is_flag=True, help="Replace files.")
@tee_options
@pass_terminal
def measure(
    terminal: Terminal,
    /,
    *,
    config_file: Path | None,
    software: Path | None,
    out: Path | None,
    policy: Path | None,
    policy_version: int,
    force: bool,
    tee: Tee,
    **settings: Any,
) -> None:
    """Print what this build measures: the reference values that custodians and consumers compare.

    Run it on a machine and a build you trust, never on the borrower's.
    """
    from cloister.attest.software import SoftwareManifest  # noqa: PLC0415 - one noun for one branch

    if software is not None:
        manifest = SoftwareManifest.parse(_read(software))
    else:
        # Loan and models are not measured: any path stands for them here.
        manifest = measure_software(_config(config_file, settings | {"loan": "-", "models": ["-"]}))
    made = policy_for(tee, manifest, version=policy_version)
    if out is not None:
        write_file(out, manifest.dump(), force=force)
    if policy is not None:
        write_file(policy, made.dump(), force=force)
    result: Json = {
        "code": manifest.code,
        "policy": made.to_json(),
        "policy_digest": made.digest,
        "software": manifest.digest.hex(),
        "tee": tee.kind,
    }

    def draw(console: Console) -> None:
        rows = [("tee", tee.kind), ("code", manifest.code), ("software", manifest.digest.hex())]
        console.print(terminal.table(("", ""), [*rows, ("policy", made.digest)]))

    terminal.result(result, draw)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise UsageError(msg) from exc


@enclave.command()
@click.option("--report-data", help="64 bytes to bind, base64url [default random].")
@click.option("--config", "config_file", type=_file, help="TOML file of settings; they are measured too.")
@click.option("--out", type=_file, help="Write the raw evidence here.")
@click.option("--force", is_flag=True, help="Replace the file.")
@tee_options
@pass_terminal
def evidence(
    terminal: Terminal,
    /,
    *,
    report_data: str | None,
    config_file: Path | None,
    out: Path | None,
    force: bool,
    tee: Tee,
) -> None:
    """Collect evidence from this machine's TEE and print it, for tests of a setup."""
    if tee.is_simulated:
        terminal.warn(tee.warning())
    data = parse_b64u(report_data, what="--report-data", size=_REPORT_BYTES) if report_data else secrets.token_bytes(64)
    attester = attester_for(tee, measure_software(_config(config_file, {"loan": "-", "models": ["-"]})))
    collected = attester.collect(fold(data, field_bytes=attester.report_data_bytes))
    if out is not None:
        write_file(out, collected.payload, force=force)
    result: Json = {"evidence": dump_b64u(collected.payload), "report_data": dump_b64u(data), "tee": collected.tee}
    words = f"{collected.tee}: {len(collected.payload)} bytes of evidence"
    terminal.result(result, lambda console: console.print(words))


@enclave.command()
@click.option("--loan-file", type=_file, required=True, help="The loan file: it says where the custodian is.")
@click.option("--out", type=_file, required=True, help="Where to write the attestation key's certificate chain (PEM).")
@click.option("--tpm", default="/dev/tpmrm0", show_default=True, help="device:PATH, unix:PATH or a device's path.")
@click.option("--ek-certificate", type=_file, help="Endorsement certificate, where the TPM holds none (PEM or DER).")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def enrol(
    terminal: Terminal, /, *, loan_file: Path, out: Path, tpm: str, ek_certificate: Path | None, force: bool
) -> None:
    """Prove once that this machine's TPM is genuine, and get its attestation key certified."""
    from cloister.cli.enclave_tee import enrol_tpm  # noqa: PLC0415 - brings the TPM client along

    chain, device = enrol_tpm(loan_file, tpm, ek_certificate)
    write_file(out, chain, force=force)
    terminal.result({"device": device, "out": str(out)}, lambda console: console.print(f"enrolled {device}\n{out}"))
