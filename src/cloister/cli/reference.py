"""``cloister reference``: reference values computed, imported, signed, applied (docs/spec/reference-values.md)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.attest.reference import (
    MAX_REFERENCE_BYTES,
    ReferenceValues,
    into_policy,
    sign_reference,
    verify_reference,
)
from cloister.cli.attest_verify import read_policy
from cloister.cli.evidence_files import read_evidence
from cloister.cli.evidence_options import POLICY_KINDS, Near
from cloister.cli.remote import HOME_VARIABLE, custodian_home
from cloister.cli.terminal import Group, Terminal, demand_writable, pass_terminal, write_file
from cloister.cli.unlock import unlock_options, unlock_with
from cloister.crypto.sign import VerifyKey
from cloister.custodian.setup import open_vault
from cloister.errors import UsageError
from cloister.wire import Fields, dump_time, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.wire import Json

__all__ = ["reference"]

_file = click.Path(path_type=Path, dir_okay=False)
_MAX_FIRMWARE_BYTES = 64 << 20  # bytes of a firmware image
_MAX_IMAGE_BYTES = 512 << 20  # bytes of a kernel, an initrd or a unified image
_MAX_SIGNED_BYTES = 2 * MAX_REFERENCE_BYTES  # bytes of a statement over a set
_UKI_KINDS = ("azure-snp-vtpm", "azure-tdx-vtpm", "gce-vtpm", "tpm")
_OLDEST_STUB = 252
_MAX_SETTING_CHARS = 400


@click.group(cls=Group)
def reference() -> None:
    """Compute, import, sign and apply reference values: what evidence of good software on good machines says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """What every maker of a set takes."""

    name: str
    version: int
    out: Path
    force: bool

    def write(self, terminal: Terminal, tee: str, claims: Mapping[str, Json], inputs: Mapping[str, str]) -> None:
        """Write a set of one TEE and show it. What we write, we must be able to read. Raises ``Malformed``."""
        document: dict[str, Json] = {
            "inputs": dict(inputs),
            "made_at": dump_time(datetime.now(UTC).replace(microsecond=0)),
            "name": self.name,
            "tees": {tee: dict(claims)},
            "v": 1,
            "version": self.version,
        }
        values = ReferenceValues.parse(json.dumps(document).encode())
        write_file(self.out, _pretty(json.loads(values.dump())), force=self.force)
        _show(terminal, values, said=f"wrote {self.out}: not signed yet")


def _output(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of ``_Output``: the command gets a keyword for each."""
    for option in (
        click.option("--force", is_flag=True, help="Replace the file."),
        click.option("--out", type=_file, required=True, help="Write the set here (JSON)."),
        click.option("--version", type=click.IntRange(min=1), default=1, show_default=True, help="Version of the set."),
        click.option("--name", required=True, help="What is deployed, for a person."),
    ):
        command = option(command)
    return command


def _begin(output: Mapping[str, Any]) -> _Output:
    """Return where the set goes, once it may go there."""
    made = _Output(**output)
    demand_writable([made.out], force=made.force)
    return made


@reference.command()
@click.option("--firmware", type=_file, required=True, help="OVMF image for SEV-SNP.")
@click.option("--vcpus", type=click.IntRange(1, 4096), required=True, help="Virtual processors.")
@click.option("--vcpu-type", default="EPYC-v4", show_default=True, help="Their model, as QEMU names it.")
@click.option("--kernel", type=_file, help="Kernel, for direct boot.")
@click.option("--initrd", type=_file, help="Initial RAM disk, with --kernel.")
@click.option("--append", default="", help="Kernel command line, with --kernel.")
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
    **output: Any,
) -> None:
    """Compute the launch digest of an SEV-SNP guest from what it is launched with."""
    from cloister.attest.amd.launch import Launch, launch_digest  # noqa: PLC0415 - brings a library along

    made = _begin(output)
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
    settings = {
        **_setting("append", append),
        "guest-features": guest_features,
        "hypervisor": hypervisor,
        "vcpu-type": vcpu_type,
    }
    inputs = {**_hashes(parts), **settings, "vcpus": str(vcpus)}
    made.write(terminal, "snp", {"measurement": [launch_digest(launch).hex()]}, inputs)


@reference.command()
@click.option("--image", type=_file, required=True, help="Unified kernel image.")
@click.option("--loader", "loaders", type=_file, multiple=True, help="Boot loader started before it; repeat in order.")
@click.option(
    "--stub", type=click.IntRange(_OLDEST_STUB), default=254, show_default=True, help="Version of its systemd-stub."
)
@click.option("--tee", type=Near("KIND", _UKI_KINDS), default="tpm", show_default=True, help="Kind of the TPM.")
@_output
@pass_terminal
def uki(terminal: Terminal, /, *, image: Path, loaders: tuple[Path, ...], stub: int, tee: str, **output: Any) -> None:
    """Compute PCRs 4, 9 and 11 of a machine that boots a unified kernel image.

    For a first boot attempt that succeeds, without GRUB, and with nothing beside the image that its stub adds.
    """
    from cloister.attest.tpm.predict import predict_pcr4, predict_pcr9, predict_pcr11, uki_sections  # noqa: PLC0415

    made = _begin(output)
    data = _read(image, _MAX_IMAGE_BYTES)
    before = [_read(path, _MAX_IMAGE_BYTES) for path in loaders]
    sections = uki_sections(data)
    claims: dict[str, Json] = {
        "pcr.4": [predict_pcr4([*before, data, *filter(None, [sections.get(".linux")])]).hex()],
        "pcr.9": [predict_pcr9(_text(sections.get(".cmdline")), sections.get(".initrd")).hex()],
        "pcr.11": [predict_pcr11(sections, stub=stub).hex()],
    }
    inputs = _hashes({"image": data, **{f"loader{index}": item for index, item in enumerate(before)}})
    made.write(terminal, tee, claims, inputs)


@reference.command()
@click.option("--ccel", type=_file, required=True, help="Event log of a machine that is as it should be (CCEL).")
@_output
@pass_terminal
def tdx(terminal: Terminal, /, *, ccel: Path, **output: Any) -> None:
    """Compute RTMR0 to RTMR3 of a trust domain from an event log.

    A system that extends RTMR2 or RTMR3 from a log of its own has other values there: take those out of the set.
    """
    from cloister.attest.intel.eventlog import CcelLog, rtmrs_of  # noqa: PLC0415 - one of many ways

    made = _begin(output)
    data = read_evidence(ccel, what="event log")
    claims: dict[str, Json] = {f"rtmr{index}": [item.hex()] for index, item in enumerate(rtmrs_of(CcelLog.parse(data)))}
    made.write(terminal, "tdx", claims, _hashes({"ccel": data}))


@reference.command()
@click.option("--sigstruct", type=_file, required=True, help="Signature file of a Gramine enclave (.sig).")
@_output
@pass_terminal
def sgx(terminal: Terminal, /, *, sigstruct: Path, **output: Any) -> None:
    """Take MRENCLAVE, MRSIGNER, product and version from a signature file, once its signature is verified."""
    from cloister.attest.intel.sigstruct import verify_sigstruct  # noqa: PLC0415 - one of many ways

    made = _begin(output)
    data = read_evidence(sigstruct, what="signature file")
    found = verify_sigstruct(data)
    claims: dict[str, Json] = {
        "isvprodid": [found.isvprodid],
        "isvsvn": [found.isvsvn],
        "mrenclave": [found.mrenclave.hex()],
        "mrsigner": [found.mrsigner.hex()],
    }
    made.write(terminal, "sgx", claims, _hashes({"sigstruct": data}))


@reference.command("import")
@click.argument("file", type=_file)
@click.option("--tee", type=Near("KIND", POLICY_KINDS), required=True, help="TEE that the values are for.")
@_output
@pass_terminal
def import_values(terminal: Terminal, /, *, file: Path, tee: str, **output: Any) -> None:
    """Import values somebody else computed: a JSON object, name of a claim to a value or an array of values."""
    made = _begin(output)
    data = read_evidence(file, what="values", cap=MAX_REFERENCE_BYTES)
    members = Fields({"values": parse_json(data, what="values")}, what="import").members("values", cap=128)
    claims: dict[str, Json] = {name: item if isinstance(item, list) else [item] for name, item in members.items()}
    made.write(terminal, tee, claims, _hashes({"imported": data}))


@reference.command()
@click.argument("file", type=_file)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"The custodian's home [env {HOME_VARIABLE}].",
)
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
    """Sign a set with the custodian's publisher key: who relies on it pins that key ('cloister custodian show')."""
    demand_writable([out], force=force)
    values = ReferenceValues.parse(read_evidence(file, what="reference values", cap=MAX_REFERENCE_BYTES))
    place = custodian_home(home)
    vault = open_vault(place, unlock_with(place, key_file, passphrase_file))
    write_file(out, sign_reference(values, vault.publisher_key), force=force)
    key = vault.publisher_key.verify_key.dump()
    terminal.result(
        {"key": key, "name": values.name, "out": str(out), "version": values.version},
        lambda console: console.print(f"signed {values.name}, version {values.version}, with {key}; wrote {out}"),
    )


@reference.command()
@click.argument("file", type=_file)
@click.option("--key", required=True, help="Key that has to have signed it: publisher in 'cloister custodian show'.")
@pass_terminal
def show(terminal: Terminal, /, *, file: Path, key: str) -> None:
    """Verify a signed set and show its values."""
    values = _verified(file, key, newer_than=0)
    _show(terminal, values, said=f"{values.name}, version {values.version}, made {dump_time(values.made_at)}")


@reference.command()
@click.argument("file", type=_file)
@click.option("--key", required=True, help="Key that has to have signed it.")
@click.option("--policy", "policy_file", type=_file, required=True, help="Policy whose TEEs get the values.")
@click.option(
    "--newer-than",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Refuse a set that is not newer than this version: the one you have.",
)
@click.option("--out", type=_file, required=True, help="Write the new policy here, with the next version.")
@click.option("--force", is_flag=True, help="Replace the file.")
@pass_terminal
def apply(
    terminal: Terminal, /, *, file: Path, key: str, policy_file: Path, newer_than: int, out: Path, force: bool
) -> None:
    """Make rules of a signed set in a policy that names its TEEs. A TEE that the policy does not name stays refused."""
    demand_writable([out], force=force)
    values = _verified(file, key, newer_than=newer_than)
    old = read_policy(policy_file)
    if not values.tees.keys() & old.tees.keys():
        msg = f"policy {policy_file}: names {', '.join(sorted(old.tees))}, the set {', '.join(sorted(values.tees))}"
        raise UsageError(msg, hint="a set opens no door: name the tee in the policy first")
    new = into_policy(values, old, version=old.version + 1)
    write_file(out, _pretty(new.to_json()), force=force)
    terminal.result(
        {"digest": new.digest, "out": str(out), "version": new.version},
        lambda console: console.print(f"policy version {new.version}, digest {new.digest}; wrote {out}"),
    )


def _verified(path: Path, key: str, *, newer_than: int) -> ReferenceValues:
    statement = read_evidence(path, what="reference values", cap=_MAX_SIGNED_BYTES)
    pinned = VerifyKey.take(Fields({"--key": key}, what="reference values"), "--key")
    return verify_reference(statement, [pinned], newer_than=newer_than)


def _show(terminal: Terminal, values: ReferenceValues, *, said: str) -> None:
    rows = [
        (tee, name, str(item))
        for tee, claims in values.tees.items()
        for name, found in claims.items()
        for item in found
    ]
    terminal.result(json.loads(values.dump()), lambda out: out.print(terminal.table(("tee", "claim", "value"), rows)))
    terminal.say(said, style="dim")


def _pretty(document: Json) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _read(path: Path, cap: int) -> bytes:
    return read_evidence(path, what="image", cap=cap)


def _hashes(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def _setting(name: str, text: str) -> dict[str, str]:
    """Return a setting as an input; by its digest where it is longer than an input may be, or not to be shown."""
    plain = len(text) <= _MAX_SETTING_CHARS and (text.isprintable() or not text)
    return {name: text} if plain else _hashes({name: text.encode()})


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as exc:
        raise click.BadParameter(text[:64], param_hint="--guest-features") from exc


def _text(cmdline: bytes | None) -> str | None:
    """Return the command line as the stub hands it on: text up to the first zero."""
    return None if cmdline is None else cmdline.split(b"\x00", 1)[0].decode("utf-8", "replace").rstrip("\n")
