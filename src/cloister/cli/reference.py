"""``cloister reference``: reference values computed, imported, signed, applied (docs/spec/reference-values.md)."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.attest.policy import Policy
from cloister.attest.rats import TeeKind
from cloister.attest.reference import ReferenceValues, into_policy, sign_reference, verify_reference
from cloister.cli.custodian import unlock_options, unlock_with
from cloister.cli.evidence_files import read_evidence
from cloister.cli.terminal import Group, Terminal, pass_terminal, write_file
from cloister.crypto.sign import VerifyKey
from cloister.custodian.setup import custodian_home, open_vault
from cloister.wire import Fields, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["reference"]

_file = click.Path(path_type=Path, dir_okay=False)
_MAX_FIRMWARE_BYTES = 64 << 20  # bytes of a firmware image
_MAX_IMAGE_BYTES = 512 << 20  # bytes of a kernel, an initrd or a unified image


@click.group(cls=Group)
def reference() -> None:
    """Compute, import, sign and apply reference values."""


def _output(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every maker of a set takes: its name, its version, where it goes."""
    for option in (
        click.option("--force", is_flag=True, help="Replace the file."),
        click.option("--out", type=_file, required=True, help="Write the set here (JSON)."),
        click.option("--version", type=click.IntRange(min=1), default=1, show_default=True, help="Version of the set."),
        click.option("--name", required=True, help="What is deployed, for a person."),
    ):
        command = option(command)
    return command


@reference.command()
@click.option("--firmware", type=_file, required=True, help="OVMF image for SEV-SNP.")
@click.option("--vcpus", type=click.IntRange(1, 4096), required=True, help="Virtual processors.")
@click.option(
    "--vcpu-type", default="EPYC-v4", show_default=True, help="Model of the virtual processors, as QEMU says."
)
@click.option("--kernel", type=_file, help="Kernel, for direct boot.")
@click.option("--initrd", type=_file, help="Initial RAM disk.")
@click.option("--append", default="", help="Kernel command line.")
@click.option("--guest-features", default="0x1", show_default=True, help="SEV_FEATURES of each processor.")
@click.option(
    "--hypervisor", default="qemu", show_default=True, type=click.Choice(["qemu", "ec2", "gce"]), help="Whose."
)
@_output
@pass_terminal
def snp(
    terminal: Terminal,
    /,
    *,
    firmware: Path,
    vcpus: int,
    vcpu_type: str,
    kernel: Path | None,
    initrd: Path | None,
    append: str,
    guest_features: str,
    hypervisor: str,
    name: str,
    version: int,
    out: Path,
    force: bool,
) -> None:
    """Compute the launch digest of an SEV-SNP guest from what it is launched with."""
    from cloister.attest.amd.launch import Launch, launch_digest  # noqa: PLC0415 - brings a library along

    parts = {"firmware": _read(firmware, _MAX_FIRMWARE_BYTES)}
    parts |= {key: _read(path, _MAX_IMAGE_BYTES) for key, path in (("kernel", kernel), ("initrd", initrd)) if path}
    launch = Launch(
        firmware=parts["firmware"],
        vcpus=vcpus,
        vcpu_type=vcpu_type,
        kernel=parts.get("kernel"),
        initrd=parts.get("initrd", b""),
        cmdline=append,
        guest_features=_number(guest_features),
        hypervisor=hypervisor,
    )
    settings = {"append": append, "guest-features": guest_features, "hypervisor": hypervisor, "vcpu-type": vcpu_type}
    claims = {"measurement": (launch_digest(launch).hex(),)}
    inputs = {**_hashes(parts), **settings, "vcpus": str(vcpus)}
    _write(terminal, _made(name, version, {"snp": claims}, inputs), out, force=force)


@reference.command()
@click.option("--image", type=_file, required=True, help="Unified kernel image.")
@click.option("--loader", "loaders", type=_file, multiple=True, help="Boot loader started before it; repeat in order.")
@click.option("--tee", default="tpm", show_default=True, help="TEE whose policies the PCRs are for.")
@_output
@pass_terminal
def uki(
    terminal: Terminal,
    /,
    *,
    image: Path,
    loaders: tuple[Path, ...],
    tee: str,
    name: str,
    version: int,
    out: Path,
    force: bool,
) -> None:
    """Compute PCRs 4, 9 and 11 of a machine that boots a unified kernel image."""
    from cloister.attest.tpm.predict import predict_pcr4, predict_pcr9, predict_pcr11, uki_sections  # noqa: PLC0415

    data = _read(image, _MAX_IMAGE_BYTES)
    before = [_read(path, _MAX_IMAGE_BYTES) for path in loaders]
    sections = uki_sections(data)
    cmdline = sections.get(".cmdline")
    claims = {
        "pcr.4": (predict_pcr4([*before, data, *filter(None, [sections.get(".linux")])]).hex(),),
        "pcr.9": (predict_pcr9(_text(cmdline), sections.get(".initrd")).hex(),),
        "pcr.11": (predict_pcr11(sections).hex(),),
    }
    inputs = _hashes({"image": data, **{f"loader{index}": item for index, item in enumerate(before)}})
    _write(terminal, _made(name, version, {tee: claims}, inputs), out, force=force)


@reference.command()
@click.option("--ccel", type=_file, required=True, help="Event log of a machine that is as it should be (CCEL).")
@_output
@pass_terminal
def tdx(terminal: Terminal, /, *, ccel: Path, name: str, version: int, out: Path, force: bool) -> None:
    """Compute RTMR0 to RTMR3 of a trust domain from an event log."""
    from cloister.attest.intel.eventlog import CcelLog, rtmrs_of  # noqa: PLC0415 - one of many ways

    data = read_evidence(ccel, what="event log")
    claims = {f"rtmr{index}": (value.hex(),) for index, value in enumerate(rtmrs_of(CcelLog.parse(data)))}
    _write(terminal, _made(name, version, {"tdx": claims}, _hashes({"ccel": data})), out, force=force)


@reference.command()
@click.option("--sigstruct", type=_file, required=True, help="Signature file of a Gramine enclave (.sig).")
@_output
@pass_terminal
def sgx(terminal: Terminal, /, *, sigstruct: Path, name: str, version: int, out: Path, force: bool) -> None:
    """Take MRENCLAVE, MRSIGNER, product and version from a signature file, once its signature is verified."""
    from cloister.attest.intel.sigstruct import SigStruct  # noqa: PLC0415 - one of many ways

    data = read_evidence(sigstruct, what="signature file")
    found = SigStruct.parse(data)
    found.verify()
    claims: Mapping[str, tuple[str | int, ...]] = {
        "isvprodid": (found.isvprodid,),
        "isvsvn": (found.isvsvn,),
        "mrenclave": (found.mrenclave.hex(),),
        "mrsigner": (found.mrsigner.hex(),),
    }
    _write(terminal, _made(name, version, {"sgx": claims}, _hashes({"sigstruct": data})), out, force=force)


@reference.command("import")
@click.argument("file", type=_file)
@click.option("--tee", required=True, help="TEE that the values are for.")
@_output
@pass_terminal
def import_values(
    terminal: Terminal, /, *, file: Path, tee: str, name: str, version: int, out: Path, force: bool
) -> None:
    """Import values somebody else computed: a JSON object, claim to value or array of values."""
    data = read_evidence(file, what="values")
    value = parse_json(data, what="values")
    members = value if isinstance(value, dict) else {"": value}
    claims = {key: item if isinstance(item, list) else [item] for key, item in members.items()}
    document = {
        "inputs": _hashes({"imported": data}),
        "made_at": datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z"),
        "name": name,
        "tees": {tee: claims},
        "v": 1,
        "version": version,
    }
    _write(terminal, ReferenceValues.parse(json.dumps(document).encode()), out, force=force)


@reference.command()
@click.argument("file", type=_file)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="The custodian's home.")
@click.option("--out", type=_file, required=True, help="Write the signed set here.")
@click.option("--force", is_flag=True, help="Replace the file.")
@unlock_options
@pass_terminal
def sign(
    terminal: Terminal,
    /,
    *,
    file: Path,
    home: Path | None,
    out: Path,
    force: bool,
    key_file: Path | None,
    passphrase_file: str | None,
) -> None:
    """Sign a set with the custodian's publisher key: who relies on it pins that key."""
    values = ReferenceValues.parse(read_evidence(file, what="reference values"))
    vault = open_vault(custodian_home(home), unlock_with(key_file, passphrase_file))
    write_file(out, sign_reference(values, vault.publisher_key), force=force)
    key = vault.publisher_key.verify_key.dump()
    terminal.result(
        {"key": key, "name": values.name, "out": str(out), "version": values.version},
        lambda console: console.print(f"signed {values.name}, version {values.version}, with {key}; wrote {out}"),
    )


@reference.command()
@click.argument("file", type=_file)
@click.option("--key", required=True, help="Public key that has to have signed it: see 'cloister custodian show'.")
@pass_terminal
def show(terminal: Terminal, /, *, file: Path, key: str) -> None:
    """Verify a signed set and show its values."""
    values = verify_reference(read_evidence(file, what="reference values"), [_key(key)])
    rows = [
        (tee, name, str(value))
        for tee, claims in values.tees.items()
        for name, found in claims.items()
        for value in found
    ]
    terminal.result(json.loads(values.dump()), lambda out: out.print(terminal.table(("tee", "claim", "value"), rows)))


@reference.command()
@click.argument("file", type=_file)
@click.option("--key", required=True, help="Public key that has to have signed it.")
@click.option("--policy", "policy_file", type=_file, required=True, help="Policy whose TEEs get the values.")
@click.option("--out", type=_file, required=True, help="Write the new policy here, with the next version.")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def apply(terminal: Terminal, /, *, file: Path, key: str, policy_file: Path, out: Path, force: bool) -> None:
    """Make rules of a signed set in a policy that names its TEEs."""
    values = verify_reference(read_evidence(file, what="reference values"), [_key(key)])
    data = read_evidence(policy_file, what="policy")
    old = Policy.parse_toml(data) if policy_file.suffix == ".toml" else Policy.parse(data)
    new = into_policy(values, old, version=old.version + 1)
    write_file(out, json.dumps(new.to_json(), indent=2, sort_keys=True).encode() + b"\n", force=force)
    terminal.result(
        {"digest": new.digest, "out": str(out), "version": new.version},
        lambda console: console.print(f"policy version {new.version}, digest {new.digest}; wrote {out}"),
    )


def _key(text: str) -> VerifyKey:
    return VerifyKey.take(Fields({"--key": text}, what="reference values"), "--key")


def _read(path: Path, cap: int) -> bytes:
    return read_evidence(path, what="image", cap=cap)


def _hashes(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as exc:
        raise click.BadParameter(text, param_hint="--guest-features") from exc


def _text(cmdline: bytes | None) -> str | None:
    """Return the command line as the stub hands it on: text up to the first zero."""
    return None if cmdline is None else cmdline.split(b"\x00", 1)[0].decode("utf-8", "replace").rstrip("\n")


def _made(
    name: str, version: int, tees: Mapping[str, Mapping[str, tuple[str | int, ...]]], inputs: Mapping[str, str]
) -> ReferenceValues:
    made = ReferenceValues(
        name=name,
        version=version,
        made_at=datetime.now(UTC).replace(microsecond=0),
        tees={TeeKind(tee): claims for tee, claims in tees.items()},
        inputs=inputs,
    )
    return ReferenceValues.parse(made.dump())  # what we write, we must be able to read


def _write(terminal: Terminal, values: ReferenceValues, out: Path, *, force: bool) -> None:
    write_file(out, json.dumps(json.loads(values.dump()), indent=2, sort_keys=True).encode() + b"\n", force=force)
    rows = [
        (tee, name, str(item))
        for tee, claims in values.tees.items()
        for name, found in claims.items()
        for item in found
    ]
    terminal.result(
        json.loads(values.dump()), lambda console: console.print(terminal.table(("tee", "claim", "value"), rows))
    )
