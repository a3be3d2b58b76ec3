"""Samples of evidence for the tests of the command line: made by the command that everybody has."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.attest.dossier.payload import PAYLOADS
from cloister.attest.parts import parse_parts

if TYPE_CHECKING:
    from cli_kit import Shell

NONCE = "5a5a"
PINNED = ("azure-snp-vtpm", "azure-tdx-vtpm", "gce-vtpm", "nitro", "nvidia-gpu", "sgx", "snp", "tdx")
"""Kinds of samples for which a vendor's root is pinned."""
HOSTILE = ("missing", "folder", "fifo", "device", "unreadable", "name")


class Sample:
    """One sample in the shell's folder."""

    def __init__(self, shell: Shell, tee: str, *, nonce: str = NONCE) -> None:
        shell.ok("attest", "sample", "--tee", tee, "--nonce", nonce, "--out", tee)
        self.tee, self.folder = tee, shell.folder / tee
        self.evidence, self.policy = self.folder / "evidence", self.folder / "policy.json"

    @property
    def given(self) -> tuple[str, ...]:
        """The options by which production judges it."""
        return ("--tee", self.tee, "--evidence", f"{self.evidence}", "--endorsements", f"{self.folder}/endorsements")

    @property
    def trusted(self) -> tuple[str, ...]:
        """The options by which it is accepted."""
        return (*self.given, "--insecure-synthetic-roots", f"{self.folder}/roots.json")

    @cached_property
    def parts(self) -> dict[str, bytes]:
        """The parts of the payload."""
        payload = PAYLOADS[self.tee]
        caps = dict.fromkeys((payload.main, *payload.roles), 1 << 20)
        return parse_parts(self.evidence.read_bytes(), what="sample", caps=caps)

    @cached_property
    def roots(self) -> Any:
        """The document of the roots."""
        return json.loads((self.folder / "roots.json").read_bytes())


def hostile(folder: Path, kind: str) -> Path:
    """Return a path that is no plain file, or none that can be read."""
    import os  # noqa: PLC0415 - here only

    path = folder / "hostile"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            return Path("/dev/zero")
        case "unreadable":
            path.symlink_to(path)
        case "name":
            return folder / ("x" * 300)
    return path
