"""PCRs 4, 9 and 11 computed from files: by hand, and against pesign and systemd-measure where they are installed."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloister.attest.tpm.algorithms import Alg
from cloister.attest.tpm.pe import MAX_SECTIONS, PeImage
from cloister.attest.tpm.predict import PHASES, SECTIONS, predict_pcr4, predict_pcr9, predict_pcr11, uki_sections
from cloister.errors import Malformed, UsageError
from mutations import mutated

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
MEASURE = Path("/usr/lib/systemd/systemd-measure")
CONTENTS = {
    ".linux": b"kernel" * 300,
    ".osrel": b"ID=synthetic\n",
    ".cmdline": b"console=ttyS0 quiet",
    ".initrd": b"initrd" * 500,
    ".splash": b"BM",
    ".dtb": b"\xd0\x0d\xfe\xed",
    ".pcrpkey": b"public key",
}
needs_measure = pytest.mark.skipif(
    not MEASURE.exists(), reason="systemd-measure is not installed: apt-get install systemd"
)
needs_pesign = pytest.mark.skipif(
    shutil.which("pesign") is None, reason="pesign is not installed: apt-get install pesign"
)
needs_stub = pytest.mark.skipif(
    not STUB.exists() or shutil.which("objcopy") is None,
    reason="no systemd-stub or objcopy: apt-get install systemd-boot-efi binutils",
)


def pe(
    sections: list[tuple[str, bytes]],
    *,
    plus: bool = True,
    signatures: bytes = b"",
    tail: bytes = b"",
    directories: int = 16,
    **fields: Any,
) -> bytes:
    """Return an image with these sections in this order; ``fields`` replace header fields."""
    fixed = 112 if plus else 96
    size = fixed + 8 * directories
    at = 64 + 24 + size
    headers = at + 40 * len(sections)
    table, bodies, offset = b"", b"", headers
    for name, data in sections:
        raw = data.ljust(-(-len(data) // 16) * 16, b"\x00")
        table += struct.pack("<8sIIII16x", name.encode(), len(data), 0, len(raw), offset)
        bodies, offset = bodies + raw, offset + len(raw)
    offset += len(tail)
    entries = [(0, 0)] * directories
    if signatures:
        entries[4] = (offset, len(signatures))
    optional = struct.pack("<H58xI", fields.get("magic", 0x20B if plus else 0x10B), fields.get("headers", headers))
    optional += struct.pack("<I", fields.get("checksum", 0)).ljust(fixed - 4 - 64, b"\x00")
    optional += struct.pack("<I", fields.get("count", directories)) + b"".join(
        struct.pack("<II", *item) for item in entries
    )
    coff = struct.pack("<HH12xHH", 0x8664, fields.get("number", len(sections)), size, 0x22)
    dos = b"MZ".ljust(60, b"\x00") + struct.pack("<I", fields.get("start", 64))
    return dos + b"PE\x00\x00" + coff + optional + table + bodies + tail + signatures


IMAGE = pe(list(CONTENTS.items()))


def sha(*measured: bytes, alg: str = "sha256") -> bytes:
    value = bytes(hashlib.new(alg).digest_size)
    for data in measured:
        value = hashlib.new(alg, value + hashlib.new(alg, data).digest()).digest()
    return value


# Authenticode


@pytest.mark.parametrize("plus", [True, False], ids=["pe32+", "pe32"])
def test_digest_leaves_out_checksum_entry_and_signatures_and_nothing_else(*, plus: bool) -> None:
    plain = pe([(".text", b"code")], plus=plus)
    signed = pe([(".text", b"code")], plus=plus, signatures=b"signature".ljust(16, b"\x00"), checksum=7)
    assert PeImage.parse(plain).authenticode() == PeImage.parse(signed).authenticode()
    left_out = {*range(64 + 24 + 64, 64 + 24 + 68)}
    entry = 64 + 24 + (112 if plus else 96) + 32
    for at in range(64, len(plain)):
        changed = plain[:at] + bytes((plain[at] ^ 1,)) + plain[at + 1 :]
        if at in left_out:
            assert PeImage.parse(changed).authenticode() == PeImage.parse(plain).authenticode()
        elif not entry <= at < entry + 8:
            try:
                assert PeImage.parse(changed).authenticode() != PeImage.parse(plain).authenticode()
            except Malformed:
                continue


def test_sections_count_in_the_order_of_the_file_and_what_follows_counts_too() -> None:
    data = pe([(".a", b"1" * 16), (".b", b"2" * 16)], tail=b"appended")
    image = PeImage.parse(data)
    entry = 64 + 24 + 112 + 32
    checksum = 64 + 24 + 64
    by_hand = hashlib.sha256(data[:checksum] + data[checksum + 4 : entry] + data[entry + 8 :]).digest()
    assert image.authenticode() == by_hand


def test_image_without_an_entry_for_signatures_is_digested_whole_but_for_the_checksum() -> None:
    data = pe([(".a", b"1")], directories=4)
    checksum = 64 + 24 + 64
    assert PeImage.parse(data).authenticode() == hashlib.sha256(data[:checksum] + data[checksum + 4 :]).digest()


BAD = {
    "no dos header": b"ZM" + IMAGE[2:],
    "pe header inside the dos header": pe([(".a", b"1")], start=4),
    "pe header past the end": pe([(".a", b"1")], start=2**32 - 1),
    "no section": pe([]),
    "too many sections": pe([(".a", b"1")] * (MAX_SECTIONS + 1)),
    "sections past the end": pe([(".a", b"1")], number=90),
    "unknown magic": pe([(".a", b"1")], magic=0x107),
    "too many directories": pe([(".a", b"1")], count=17),
    "fewer directories than there are": pe([(".a", b"1")], count=3),
    "headers past the end": pe([(".a", b"1")], headers=2**32 - 1),
    "headers 0": pe([(".a", b"1")], headers=0),
    "headers over a section": pe([(".a", b"1" * 64)], headers=500),
    "section over another": pe([(".a", b"1" * 16), (".b", b"2" * 16)]).replace(
        struct.pack("<II", 16, 408), struct.pack("<II", 16, 400)
    ),
    "bytes behind the signatures": pe([(".a", b"1")], signatures=bytes(16)) + b"\x00",
    "name that is not ascii": IMAGE.replace(b".osrel", b".\xffsrel"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_image_out_of_form_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        PeImage.parse(data)


def test_section_twice_or_longer_in_memory_than_in_the_file_is_malformed() -> None:
    twice = PeImage.parse(pe([(".linux", b"1"), (".linux", b"2")]))
    longer = PeImage.parse(
        pe([(".linux", b"1" * 16)]).replace(struct.pack("<8sI", b".linux", 16), b".linux\0\0\x11\0\0\0")
    )
    for image in (twice, longer):
        with pytest.raises(Malformed):
            image.section(".linux")
    assert twice.section(".initrd") is None


def test_only_malformed_comes_out() -> None:
    for damaged in mutated(pe([(".linux", b"k" * 40), (".initrd", b"i" * 40)], signatures=bytes(16))):
        try:
            PeImage.parse(damaged).authenticode()
            uki_sections(damaged)
        except Malformed:
            continue


def test_image_truncated_at_any_byte_is_malformed_or_another_image() -> None:
    small = pe([(".a", b"1" * 16)])
    for size in range(len(small)):
        with pytest.raises(Malformed):
            PeImage.parse(small[:size])


@needs_pesign
@pytest.mark.parametrize("name", ["linuxx64.efi.stub", "systemd-bootx64.efi"])
def test_digest_is_the_one_pesign_computes(name: str, tmp_path: Path) -> None:
    path = STUB.parent / name
    if not path.exists():
        path = tmp_path / "image.efi"
        path.write_bytes(IMAGE)
    done = subprocess.run(["pesign", "-h", "-i", str(path)], capture_output=True, text=True, check=True)  # noqa: S603, S607 - fixed words
    assert PeImage.parse(path.read_bytes()).authenticode().hex() in done.stdout


# PCR 4


def test_pcr_4_is_the_boot_attempt_a_separator_and_each_image() -> None:
    loader, kernel = pe([(".text", b"loader")]), pe([(".text", b"kernel")])
    value = sha(b"Calling EFI Application from Boot Option", bytes(4))
    for image in (loader, IMAGE, kernel):
        value = hashlib.sha256(value + PeImage.parse(image).authenticode()).digest()
    assert predict_pcr4([loader, IMAGE, kernel]) == value
    assert predict_pcr4([IMAGE, loader, kernel]) != value


def test_pcr_4_without_an_image_is_a_mistake() -> None:
    with pytest.raises(UsageError):
        predict_pcr4([])


def test_pcr_4_of_what_is_no_image_is_malformed() -> None:
    with pytest.raises(Malformed):
        predict_pcr4([b"#!/bin/sh"])


# PCR 9


def test_pcr_9_is_the_command_line_in_utf_16_then_the_initrd() -> None:
    line = "quiet\0".encode("utf-16-le")
    assert predict_pcr9("quiet", b"initrd") == sha(line, b"initrd")
    assert predict_pcr9(None, b"initrd") == sha(b"initrd")
    assert predict_pcr9("quiet", None) == sha(line)
    assert predict_pcr9(None, None) == bytes(32)


# PCR 11


def by_hand(names: tuple[str, ...], phases: tuple[str, ...] = PHASES, alg: str = "sha256") -> bytes:
    measured = [item for name in names for item in (name.encode() + b"\0", CONTENTS[name])]
    return sha(*measured, *(phase.encode() for phase in phases), alg=alg)


def test_pcr_11_follows_the_canonical_order_not_that_of_the_file() -> None:
    turned = pe(list(reversed(CONTENTS.items())))
    want = by_hand((".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"))
    assert predict_pcr11(uki_sections(turned)) == predict_pcr11(uki_sections(IMAGE)) == want


def test_signature_of_the_outcome_is_not_measured() -> None:
    signed = pe([*CONTENTS.items(), (".pcrsig", b"{}"), (".text", b"code")])
    assert uki_sections(signed) == CONTENTS


@pytest.mark.parametrize(("section", "since"), [(name, since) for name, since in SECTIONS.items() if since > 252])
def test_newer_sections_are_measured_by_newer_stubs(section: str, since: int) -> None:
    plain, more = {".linux": b"k"}, {".linux": b"k", section: b"new"}
    assert predict_pcr11(more, stub=since - 1) == predict_pcr11(plain)
    assert predict_pcr11(more, stub=since) == sha(
        b".linux\0", b"k", section.encode() + b"\0", b"new", *map(str.encode, PHASES)
    )


@pytest.mark.parametrize("count", range(5))
def test_phases_come_one_after_another(count: int) -> None:
    assert predict_pcr11({".linux": CONTENTS[".linux"]}, phases=PHASES[:count]) == by_hand((".linux",), PHASES[:count])


@pytest.mark.parametrize(
    "mistake",
    [{"phases": ("ready",)}, {"phases": (*PHASES, "more")}, {"stub": 251}, {"sections": {".text": b""}}],
)
def test_phases_stubs_and_sections_nobody_knows_are_mistakes(mistake: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        predict_pcr11(**({"sections": {".linux": b"k"}} | mistake))


@needs_measure
@pytest.mark.parametrize("bank", [Alg.SHA256, Alg.SHA384])
def test_pcr_11_is_the_one_systemd_measure_computes(bank: Alg, tmp_path: Path) -> None:
    command = [str(MEASURE), "calculate", f"--bank={bank.name.lower()}", "--json=short"]
    for name, data in CONTENTS.items():
        (tmp_path / name[1:]).write_bytes(data)
        command.append(f"--{name[1:]}={tmp_path / name[1:]}")
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed words
    found = {entry["phase"]: entry["hash"] for entry in json.loads(done.stdout)[bank.name.lower()]}
    for count in range(1, 5):
        want = predict_pcr11(CONTENTS, phases=PHASES[:count], stub=252, bank=bank).hex()
        assert found[":".join(PHASES[:count])] == want


@needs_stub
@needs_measure
def test_sections_of_a_real_unified_image_are_those_that_were_put_in(tmp_path: Path) -> None:
    command, address = ["objcopy"], 0x10000000
    for name, data in CONTENTS.items():
        path = tmp_path / name[1:]
        path.write_bytes(data)
        command += [f"--add-section={name}={path}", f"--change-section-vma={name}={address:#x}"]
        address += 0x1000000
    image = tmp_path / "uki.efi"
    subprocess.run([*command, str(STUB), str(image)], check=True, capture_output=True)  # noqa: S603 - fixed words
    found = uki_sections(image.read_bytes())
    assert {name: data for name, data in found.items() if name != ".sbat"} == CONTENTS
    assert predict_pcr11(found, stub=252) == predict_pcr11(CONTENTS, stub=252)
