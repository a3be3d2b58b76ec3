"""Signed evidence that differs in one claim is refused by that claim's name: rules bite on bytes, not only on values.

Every case is genuine to its (synthetic) vendor: chain, signature and binding hold. What refuses it is the policy alone:
the vendor's own rules, and for claims that these leave open the rules proposed from honest evidence.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

import vendor_kit
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import Firmware
from cloister.attest.appraise import mismatch_code
from cloister.attest.intel.chain import PCK_NAME
from cloister.attest.nvidia.collateral import Relaxed
from cloister.attest.nvidia.devicechain import Arch
from cloister.attest.nvidia.opaque import FieldType
from cloister.attest.parts import dump_parts, parse_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.propose import propose
from cloister.attest.rules import NoneOf, NotChecked, Rule
from cloister.testing.simulated import SimulatedAttester, SimulatedScheme, simulated_policy
from cloister.testing.vendors.amd import Chip, ReportValues
from cloister.testing.vendors.amd.report import LEVELS
from cloister.testing.vendors.arm import CcaToken, PsaToken, component
from cloister.testing.vendors.aws import sample_pcrs
from cloister.testing.vendors.azure import AzureAttester, SnpHardware, TdxHardware
from cloister.testing.vendors.gce import GceAttester, Instance
from cloister.testing.vendors.intel.bodies import EnclaveBody, TdBody
from cloister.testing.vendors.intel.eventlogs import ccel
from cloister.testing.vendors.intel.pki import PlatformSpec
from cloister.testing.vendors.nvidia import NvidiaAttester
from cloister.testing.vendors.vtpm import SyntheticVtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.rats import Evidence
    from cloister.testing.vendors.intel import SyntheticIntel
    from vendor_kit import Side

    Case = tuple[str, str, Callable[[], Side], tuple[str, ...]]

OTHER_32, OTHER_48 = b"\x0f" * 32, b"\x0f" * 48
SOFTWARE_CHECK = "software manifest in software"


def strict(name: str) -> Policy:
    """Return the vendor's own rules over those proposed from the honest evidence called ``name``."""
    side = vendor_kit.side(name)
    proposed = propose(vendor_kit.claims(name), side.scheme.required, version=1)
    rules = {**proposed.tees[side.tee].rules, **side.policy.tees[side.tee].rules}
    return Policy(version=1, tees={side.tee: TeePolicy(rules)})


# Intel.


def enclave(**members: object) -> Side:
    return vendor_kit.sgx(replace(EnclaveBody(), **members))  # type: ignore[arg-type]  # members by name


def td(**members: object) -> Side:
    return vendor_kit.tdx(replace(TdBody(), **members))  # type: ignore[arg-type]  # members by name


def td_bit(bit: int) -> Side:
    return td(td_attributes=TdBody().td_attributes ^ 1 << bit)


def on_platform(made: Callable[[SyntheticIntel], Side], spec: PlatformSpec, *, tdx: bool) -> Side:
    """Return a side on another platform of the vendor, judged by what the vendor publishes about the usual one."""
    usual = vendor_kit.intel()
    platform = replace(usual, platform=spec, pck=usual.issuer.issue(PCK_NAME, platform=spec))
    return replace(made(platform), endorsements={usual.endorsement(tdx=tdx): usual.published(tdx=tdx).dump()})


def below() -> PlatformSpec:
    usual = PlatformSpec()
    return replace(usual, components=(usual.components[0] - 1, *usual.components[1:]))


def of_another_model(*, tdx: bool) -> Side:
    usual = vendor_kit.intel()
    spec = replace(PlatformSpec(), fmspc=bytes.fromhex("90c06f000000"))
    platform = replace(usual, platform=spec, pck=usual.issuer.issue(PCK_NAME, platform=spec))
    return vendor_kit.tdx(vendor=platform) if tdx else vendor_kit.sgx(vendor=platform)


def evaluated_before(*, tdx: bool) -> Side:
    vendor = vendor_kit.intel()
    published = vendor.published(tdx=tdx)
    older = replace(published, tcb_info={**published.tcb_info, "tcbEvaluationDataNumber": 18})
    side = vendor_kit.tdx() if tdx else vendor_kit.sgx()
    return replace(side, endorsements={vendor.endorsement(tdx=tdx): older.dump()})


def booted(*events: tuple[int, bytes]) -> Side:
    return vendor_kit.tdx(log=ccel(events, size=4096))


FIRMWARE, KEYS, KERNEL, LINE = (1, b"td firmware"), (1, b"secure boot"), (2, b"kernel"), (3, b"command line")
INTEL: list[Case] = [
    ("sgx", "debug", lambda: enclave(attributes=bytes.fromhex("0700000000000000e700000000000000")), ("debug",)),
    ("sgx", "another enclave", lambda: enclave(mrenclave=OTHER_32), ("mrenclave",)),
    ("sgx", "another signer", lambda: enclave(mrsigner=OTHER_32), ("mrsigner",)),
    ("sgx", "another product", lambda: enclave(isvprodid=2), ("isvprodid",)),
    ("sgx", "a version below", lambda: enclave(isvsvn=6), ("isvsvn",)),
    ("sgx", "another configuration", lambda: enclave(configid=b"\x01" * 64), ("configid",)),
    ("sgx", "another family", lambda: enclave(isvfamilyid=b"\x01" * 16), ("isvfamilyid",)),
    ("sgx", "exception state", lambda: enclave(miscselect=b"\x01\0\0\0"), ("miscselect",)),
    (
        "sgx",
        "provisioning key",
        lambda: enclave(attributes=bytes.fromhex("1500000000000000e700000000000000")),
        ("provisioning",),
    ),
    (
        "sgx",
        "a platform out of date",
        lambda: on_platform(lambda vendor: vendor_kit.sgx(vendor=vendor), below(), tdx=False),
        ("tcb_status",),
    ),
    ("sgx", "another model of platform", lambda: of_another_model(tdx=False), ("fmspc",)),
    ("sgx", "an older evaluation", lambda: evaluated_before(tdx=False), ("tcb.eval_number",)),
    ("tdx", "debug", lambda: td_bit(0), ("debug",)),
    ("tdx", "profiling", lambda: td_bit(5), ("td_attributes.profiling",)),
    ("tdx", "service td extension", lambda: td_bit(17), ("td_attributes.servtd_ext",)),
    ("tdx", "faults through page tables", lambda: td_bit(28), ("td_attributes.sept_ve_disable",)),
    ("tdx", "migratable", lambda: td_bit(29), ("td_attributes.migratable",)),
    ("tdx", "a reserved bit", lambda: td_bit(40), ("td_attributes.reserved",)),
    ("tdx", "performance counters", lambda: td_bit(63), ("td_attributes.perfmon",)),
    ("tdx", "impossible features", lambda: td(xfam=0x0602E7 | 1 << 40), ("xfam.valid",)),
    ("tdx", "another firmware", lambda: td(mrtd=OTHER_48), ("mrtd",)),
    ("tdx", "another configuration", lambda: td(mrconfigid=OTHER_48), ("mrconfigid",)),
    ("tdx", "another owner", lambda: td(mrowner=OTHER_48), ("mrowner",)),
    ("tdx", "another configuration of the owner", lambda: td(mrownerconfig=OTHER_48), ("mrownerconfig",)),
    ("tdx", "other settings", lambda: booted(FIRMWARE, (1, b"setup mode"), KERNEL, LINE), ("rtmr0",)),
    ("tdx", "another kernel", lambda: booted(FIRMWARE, KEYS, (2, b"other kernel"), LINE), ("rtmr1",)),
    ("tdx", "another command line", lambda: booted(FIRMWARE, KEYS, KERNEL, (3, b"init=/bin/sh")), ("rtmr2",)),
    ("tdx", "more measured later", lambda: booted(FIRMWARE, KEYS, KERNEL, LINE, (4, b"more")), ("rtmr3",)),
    ("tdx", "a service td", lambda: td(kind=3, mrservicetd=OTHER_48), ("service_td",)),
    (
        "tdx",
        "a module below",
        lambda: td(tee_tcb_svn=bytes((4, 1, 2)) + bytes(13)),
        ("tcb_status", "tee_tcb_svn.0"),
    ),
    (
        "tdx",
        "a firmware below",
        lambda: td(tee_tcb_svn=bytes((5, 1, 1)) + bytes(13)),
        ("tcb_status", "tee_tcb_svn.2"),
    ),
    (
        "tdx",
        "a platform out of date",
        lambda: on_platform(lambda vendor: vendor_kit.tdx(vendor=vendor), below(), tdx=True),
        ("tcb_status",),
    ),
    ("tdx", "another model of platform", lambda: of_another_model(tdx=True), ("fmspc",)),
    ("tdx", "an older evaluation", lambda: evaluated_before(tdx=True), ("tcb.eval_number",)),
]

# AMD.


def guest(**members: object) -> Side:
    return vendor_kit.snp(replace(ReportValues(), **members))  # type: ignore[arg-type]  # members by name


def lower(**levels: int) -> Mapping[str, int]:
    return {**LEVELS[Product.MILAN], **levels}


def reported_below(component: str) -> Side:
    """Return a guest on a chip whose certified and reported version is one lower in one part, and nothing else is."""
    usual = LEVELS[Product.MILAN]
    levels = lower(**{component: usual[component] - 1})
    values = replace(ReportValues(), current_tcb=usual, committed_tcb=usual, launch_tcb=usual)
    below_usual = Chip(vendor_kit.amd(), number=1, levels=levels)
    return vendor_kit.snp(values, below_usual)


def clouds_chip() -> Chip:
    return vendor_kit.chip(csp="CN=cloud.example")


AMD: list[Case] = [
    ("snp", "debug", lambda: guest(policy=ReportValues().policy | 1 << 19), ("debug",)),
    ("snp", "migratable", lambda: guest(policy=ReportValues().policy | 1 << 18), ("migratable",)),
    ("snp", "memory on cxl", lambda: guest(policy=ReportValues().policy | 1 << 21), ("policy.cxl_allow",)),
    ("snp", "asked for at level 1", lambda: guest(vmpl=1), ("vmpl",)),
    ("snp", "asked for at level 3", lambda: guest(vmpl=3), ("vmpl",)),
    ("snp", "another guest", lambda: guest(measurement=OTHER_48), ("measurement",)),
    ("snp", "one bit of another guest", lambda: guest(measurement=b"\x5a" * 47 + b"\x5b"), ("measurement",)),
    ("snp", "other host data", lambda: guest(host_data=OTHER_32), ("host_data",)),
    ("snp", "another identity key", lambda: guest(id_key_digest=OTHER_48), ("id_key_digest",)),
    ("snp", "another author key", lambda: guest(author_key_digest=OTHER_48), ("author_key_digest",)),
    ("snp", "another family", lambda: guest(family_id=b"\x01" * 16), ("family_id",)),
    ("snp", "another image", lambda: guest(image_id=b"\x01" * 16), ("image_id",)),
    ("snp", "a guest below", lambda: guest(guest_svn=0), ("guest_svn",)),
    ("snp", "memory with aliases", lambda: guest(platform_info=0x05), ("platform.alias_check",)),
    ("snp", "another chip", lambda: vendor_kit.snp(on=vendor_kit.chip(number=2)), ("chip_id",)),
    ("snp", "boot loader below", lambda: reported_below("bl"), ("tcb.bl",)),
    ("snp", "firmware below", lambda: reported_below("snp"), ("tcb.snp",)),
    ("snp", "microcode below", lambda: reported_below("ucode"), ("tcb.ucode",)),
    ("snp", "launched on older firmware", lambda: guest(launch_tcb=lower(snp=23)), ("launch_tcb.snp",)),
    ("snp", "older firmware may come back", lambda: guest(committed_tcb=lower(snp=23)), ("committed_tcb.snp",)),
    ("snp", "older build may come back", lambda: guest(committed=Firmware(1, 58, 2)), ("committed_firmware",)),
    ("snp", "no identity but a cloud's", lambda: vendor_kit.snp(on=clouds_chip()), ("chip_id", "signing_key")),
]

# AWS.


def registers(**changed: bytes) -> Side:
    return vendor_kit.nitro(pcrs={**sample_pcrs(), **{int(name[3:]): value for name, value in changed.items()}})


BEFORE = vendor_kit.NOW - timedelta(seconds=301)
NITRO: list[Case] = [
    ("nitro", "another image", lambda: registers(pcr0=OTHER_48), ("pcr.0",)),
    ("nitro", "another kernel", lambda: registers(pcr1=OTHER_48), ("pcr.1",)),
    ("nitro", "another application", lambda: registers(pcr2=OTHER_48), ("pcr.2",)),
    ("nitro", "another role", lambda: registers(pcr3=OTHER_48), ("pcr.3",)),
    ("nitro", "another signer", lambda: registers(pcr8=OTHER_48), ("pcr.8",)),
    ("nitro", "a register of another size", lambda: registers(pcr8=b"\x09" * 32), ("pcr.8",)),
    (
        "nitro",
        "debug",
        lambda: registers(pcr0=bytes(48), pcr1=bytes(48), pcr2=bytes(48)),
        ("debug", "pcr.0", "pcr.1", "pcr.2"),
    ),
    (
        "nitro",
        "a document of before",
        lambda: vendor_kit.nitro(timestamp=BEFORE),
        ("age",),
    ),
]

# Arm.


def device(**members: object) -> Side:
    return vendor_kit.psa(token=replace(PsaToken(nonce=b""), **members))  # type: ignore[arg-type]  # members by name


def realm(**members: object) -> Side:
    return vendor_kit.cca(replace(CcaToken(challenge=b""), **members))  # type: ignore[arg-type]  # members by name


REMS = [bytes((0x20 + index,)) * 32 for index in range(4)]
PARTS = [component("RSE_BL2", version="1.0", description="sha-256"), component("RMM", OTHER_32)]
ARM: list[Case] = [
    ("psa", "debug", lambda: device(lifecycle=0x4000), ("debug", "secured")),
    ("psa", "not secured", lambda: device(lifecycle=0x1000), ("secured",)),
    ("psa", "taken out of service", lambda: device(lifecycle=0x6000), ("secured",)),
    (
        "psa",
        "another software",
        lambda: device(changes={2399: [component(measurement=OTHER_32, version="1.0")]}),
        ("measurement.prot", "software"),
    ),
    (
        "psa",
        "one software more",
        lambda: device(changes={2399: [component(version="1.0"), component("APP", OTHER_32)]}),
        ("software",),
    ),
    ("psa", "another signer", lambda: device(changes={2399: [component(signer=OTHER_32)]}), ("signer.prot",)),
    ("cca", "another realm", lambda: realm(realm={44238: OTHER_32}), ("rim",)),
    ("cca", "other software in the realm", lambda: realm(realm={44239: [OTHER_32, *REMS[1:]]}), ("rem.0",)),
    ("cca", "more measured later", lambda: realm(realm={44239: [*REMS[:3], OTHER_32]}), ("rem.3",)),
    ("cca", "another value at launch", lambda: realm(realm={44235: b"\x01" * 64}), ("rpv",)),
    ("cca", "debug", lambda: realm(lifecycle=0x5000), ("debug", "secured")),
    ("cca", "not secured", lambda: realm(lifecycle=0x2000), ("secured",)),
    ("cca", "another platform software", lambda: realm(platform={2399: PARTS}), ("measurement.rmm", "software")),
    ("cca", "another platform configuration", lambda: realm(platform={2401: b"\xce"}), ("config",)),
]

# NVIDIA.


def gpu(fields: Mapping[int, bytes] | None = None, serial: int | None = None) -> Side:
    vendor = vendor_kit.nvidia()
    made = vendor.device(rom=None if serial is None else vendor.rom(serial=serial))
    attester = NvidiaAttester(vendor, replace(made, fields={**made.fields, **(fields or {})}))
    return vendor_kit.of(attester, vendor.scheme(), attester.policy(), attester.endorsements)


OTHER_VBIOS = bytes.fromhex("00a4009601000000")
NVIDIA: list[Case] = [
    ("nvidia-gpu", "another gpu", lambda: gpu(serial=0x412921CE551E4EEDA4), ("device",)),
    ("nvidia-gpu", "another driver", lambda: gpu({FieldType.DRIVER_VERSION: b"535.104\0"}), ("driver",)),
    (
        "nvidia-gpu",
        "another firmware",
        lambda: gpu({FieldType.VBIOS_VERSION: OTHER_VBIOS}),
        ("vbios",),
    ),
    ("nvidia-gpu", "another mode", lambda: gpu({FieldType.FEATURE_FLAG: b"\x00\x00"}), ("cc_mode",)),
    ("nvidia-gpu", "another generation", lambda: vendor_kit.device(Arch.BLACKWELL), ("arch", "chip")),
]

# Clouds.


def instance(**members: object) -> Side:
    chosen = replace(Instance(), **members)  # type: ignore[arg-type]  # members by name
    return vendor_kit.gce(GceAttester(vendor_kit.google(), vendor_kit.DIGEST, chosen))


ROLES = (
    *("ak_public_tpmt", "chain", "eventlog", "hcl_report", "intermediate", "leaf", "pcrs", "quote", "signature_tpmt"),
    *("software", "td_quote"),
)


def without_log(side: Side, vtpm: SyntheticVtpm, pcr: int) -> Side:
    """Return a side that shows another value of a register, and no log that would have to explain it."""
    vtpm.pcrs[pcr] = OTHER_32

    def collect(report_data: bytes) -> Evidence:
        evidence = side.collect(report_data)
        parts = parse_parts(evidence.payload, what="vendor", caps=dict.fromkeys(ROLES, 1 << 20))
        left = {role: data for role, data in parts.items() if role != "eventlog"}
        return replace(evidence, payload=dump_parts(left))

    return replace(side, collect=collect)


def machine(pcr: int | None = None, *, secure_boot: bool = True, software: bytes = vendor_kit.DIGEST) -> Side:
    attester = GceAttester(vendor_kit.google(), software)
    attester.vtpm = SyntheticVtpm(secure_boot=secure_boot, software=software)
    side = vendor_kit.gce(attester)
    return side if pcr is None else without_log(side, attester.vtpm, pcr)


def azure(hardware: SnpHardware | TdxHardware, pcr: int | None = None, **members: object) -> Side:
    """Return an Azure machine; ``members`` are ``software`` and the settings of the machine, with ``_`` for ``-``."""
    attester = AzureAttester(hardware, members.pop("software", vendor_kit.DIGEST))  # type: ignore[arg-type]  # bytes
    attester.configuration |= {name.replace("_", "-"): value for name, value in members.items()}  # type: ignore[misc]  # plain values
    side = vendor_kit.azure(hardware.kind.value, attester)
    return side if pcr is None else without_log(side, attester.vtpm, pcr)


def paravisor(**members: object) -> SnpHardware:
    return SnpHardware(vendor_kit.chip(), replace(ReportValues(), **members))  # type: ignore[arg-type]  # members by name


def td_paravisor(**members: object) -> TdxHardware:
    return TdxHardware(vendor_kit.intel(), replace(TdBody(), **members))  # type: ignore[arg-type]  # members by name


USUAL, USUAL_TD = ReportValues().policy, TdBody().td_attributes
CLOUDS: list[Case] = [
    ("gce-vtpm", "another instance", lambda: instance(instance=7), ("instance",)),
    ("gce-vtpm", "another project", lambda: instance(project="other-project"), ("project",)),
    ("gce-vtpm", "another number of project", lambda: instance(project_number=1), ("project_number",)),
    ("gce-vtpm", "another zone", lambda: instance(zone="us-central1-a"), ("zone",)),
    ("gce-vtpm", "no secure boot", lambda: machine(secure_boot=False), ("pcr.7", "secure_boot")),
    ("gce-vtpm", "another application measured", lambda: machine(pcr=14), ("pcr.14", "secure_boot?")),
    ("gce-vtpm", "another kernel", lambda: machine(pcr=4), ("pcr.4", "secure_boot?")),
    ("gce-vtpm", "another software", lambda: machine(software=OTHER_32), (SOFTWARE_CHECK, "software")),
    ("azure-snp-vtpm", "debug", lambda: azure(paravisor(policy=USUAL | 1 << 19)), ("debug",)),
    ("azure-snp-vtpm", "migratable", lambda: azure(paravisor(policy=USUAL | 1 << 18)), ("migratable",)),
    ("azure-snp-vtpm", "another paravisor", lambda: azure(paravisor(measurement=OTHER_48)), ("measurement",)),
    ("azure-snp-vtpm", "another chip", lambda: azure(SnpHardware(vendor_kit.chip(number=2))), ("chip_id",)),
    ("azure-snp-vtpm", "another kernel", lambda: azure(paravisor(), pcr=4), ("pcr.4", "secure_boot?")),
    ("azure-snp-vtpm", "another machine", lambda: azure(paravisor(), vmUniqueId="another"), ("vm.id",)),
    ("azure-snp-vtpm", "no secure boot", lambda: azure(paravisor(), secure_boot=False), ("vm.secure_boot",)),
    ("azure-snp-vtpm", "another software", lambda: azure(paravisor(), software=OTHER_32), (SOFTWARE_CHECK, "software")),
    ("azure-tdx-vtpm", "debug", lambda: azure(td_paravisor(td_attributes=USUAL_TD | 1)), ("debug",)),
    (
        "azure-tdx-vtpm",
        "migratable",
        lambda: azure(td_paravisor(td_attributes=USUAL_TD | 1 << 29)),
        ("td_attributes.migratable",),
    ),
    ("azure-tdx-vtpm", "another paravisor", lambda: azure(td_paravisor(mrtd=OTHER_48)), ("mrtd",)),
    ("azure-tdx-vtpm", "no virtual tpm", lambda: azure(td_paravisor(), tpm_enabled=False), ("vm.tpm",)),
    ("azure-tdx-vtpm", "another kernel", lambda: azure(td_paravisor(), pcr=4), ("pcr.4", "secure_boot?")),
]

# The simulated one.


def chip(**members: object) -> Side:
    root = vendor_kit.simulated_root()
    attester = SimulatedAttester(root, vendor_kit.MANIFEST, b"c" * 32, **members)  # type: ignore[arg-type]  # by name
    return vendor_kit.of(attester, SimulatedScheme(root.public), simulated_policy(vendor_kit.MANIFEST), {})


SIMULATED: list[Case] = [
    ("simulated", "debug", lambda: chip(debug=True), ("debug",)),
    ("simulated", "migratable", lambda: chip(migratable=True), ("migratable",)),
    ("simulated", "a version below", lambda: chip(svn=0), ("svn",)),
]

CASES = [*INTEL, *AMD, *NITRO, *ARM, *NVIDIA, *CLOUDS, *SIMULATED]


@pytest.mark.parametrize(("name", "what", "made", "claims"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_genuine_evidence_that_differs_is_refused_by_name(
    name: str, what: str, made: Callable[[], Side], claims: tuple[str, ...]
) -> None:
    del what
    expected = {claim: mismatch_code(claim) for claim in claims}
    expected |= {claim[:-1]: "claim_missing" for claim in claims if claim.endswith("?")}
    expected |= {SOFTWARE_CHECK: "software_mismatch"} if SOFTWARE_CHECK in claims else {}
    expected = {claim: code for claim, code in expected.items() if not claim.endswith("?")}
    side = made()
    side.verified()  # genuine: nothing but the policy has anything against it
    assert side.refusal(strict(name)) == expected
    own = vendor_kit.side(name).policy.tees[side.tee].rules
    assert {claim: code for claim, code in expected.items() if claim in own or claim == SOFTWARE_CHECK} == side.refusal(
        vendor_kit.side(name).policy
    )


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
def test_the_honest_evidence_of_the_same_vendor_is_accepted(name: str) -> None:
    side = vendor_kit.side(name)
    assert side.refusal(strict(name)) == {}
    assert side.refusal() == {}


def denying(name: str, **rules: Rule) -> Policy:
    policy = vendor_kit.side(name).policy
    (tee,) = policy.tees
    return Policy(version=1, tees={tee: TeePolicy({**policy.tees[tee].rules, **rules})})


def test_t12_a_generation_is_refused_by_name() -> None:
    milan, genoa = vendor_kit.side("snp"), vendor_kit.side("snp genoa, version 3")
    assert milan.refusal(denying("snp", product=NoneOf(("milan",)))) == {"product": "product_mismatch"}
    assert genoa.refusal(denying("snp genoa, version 3", product=NoneOf(("milan",)))) == {}
    platform = NoneOf((PlatformSpec().fmspc.hex(),))
    assert vendor_kit.side("sgx").refusal(denying("sgx", fmspc=platform)) == {"fmspc": "fmspc_mismatch"}
    assert vendor_kit.side("tdx").refusal(denying("tdx", fmspc=platform)) == {"fmspc": "fmspc_mismatch"}
    hopper = NoneOf(("HOPPER",))
    assert vendor_kit.side("nvidia-gpu").refusal(denying("nvidia-gpu", arch=hopper)) == {"arch": "arch_mismatch"}
    assert vendor_kit.side("nvidia-gpu blackwell").refusal(denying("nvidia-gpu blackwell", arch=hopper)) == {}


def test_t12_a_chip_is_refused_by_its_number_and_so_is_one_that_has_none() -> None:
    listed = NoneOf((vendor_kit.chip().chip_id.hex(), "00" * 64))
    assert vendor_kit.side("snp").refusal(denying("snp", chip_id=listed)) == {"chip_id": "chip_id_mismatch"}
    vlek = "snp with a vlek"
    assert vendor_kit.side(vlek).refusal(denying(vlek, chip_id=listed)) == {"chip_id": "chip_id_mismatch"}
    other = vendor_kit.snp(on=vendor_kit.chip(number=2))
    assert other.refusal(denying("snp", chip_id=listed)) == {}


def test_a_mitigation_that_is_not_in_force_is_missed() -> None:
    side = guest(current_mitigation=1)
    assert side.refusal(strict("snp")) == {"mitigation.current_1": "claim_missing"}


def test_a_gpu_without_its_manifests_does_not_make_their_claims() -> None:
    why = NotChecked("not the point")
    vendor, side = vendor_kit.nvidia(), gpu()
    relaxed = vendor.scheme(relaxed=Relaxed(driver_rim=why, vbios_rim=why, rim_revocation=why))
    names = [name for name in side.endorsements if not name.startswith("nvidia/rim/")]
    without = replace(side, scheme=relaxed, endorsements={name: side.endorsements[name] for name in names})
    assert without.refusal() == {"rim.driver": "claim_missing", "rim.vbios": "claim_missing"}
