"""Scenes of attack: a tampered enclave, and what the borrower could see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

import cloister
from cloister.cli.demo.lend import enclave_words, measure, start_enclave
from cloister.cli.demo.search import Needle, files_below, find
from cloister.custodian.setup import open_vault
from cloister.custodian.vaults import unwrap_dek
from cloister.custodian.vaults.encrypted_file import KeyFile
from cloister.sealed.directory import read_envelope

if TYPE_CHECKING:
    from cloister.cli.demo.cast import Cast

__all__ = ["prove_log", "search_borrower", "tamper"]

_REJECTED = 4
_CHANGED = "enclave/gateway.py"
_LEAK = "\n# One changed line: here a copy of every question could leave.\n"


def tamper(cast: Cast) -> None:
    """Run an enclave with one changed line: refused by the custodian, and by a consumer even if approved."""
    world = cast.world
    why = "One changed line is another measurement. The consumer does not take the custodian's word for it either."
    with cast.stage.scene("A tampered enclave", why) as scene:
        tree = world.borrower / "tampered"
        compiled_now = shutil.ignore_patterns("*.pyc.*")  # being written; the rest spares each process compiling it all
        shutil.copytree(Path(cloister.__file__).parent, tree / "cloister", ignore=compiled_now)
        with (tree / "cloister" / _CHANGED).open("a") as file:
            file.write(_LEAK)
        scene.borrower(f"changed one line of {_CHANGED}")
        refused = world.run(world.borrower, *enclave_words(cast), expect=_REJECTED, package=tree)
        codes = [reason["code"] for reason in refused.error["reasons"]]
        scene.custodian("no key: " + ", ".join(codes))
        mismatches = {"measurement_mismatch", "software_mismatch"}
        holds = bool(mismatches & set(codes))
        scene.prove("the custodian refused the key and said why", holds=holds, seen=json.dumps(refused.error)[:400])
        measure(cast, "leaking.json", version=2, package=tree)
        world.run(world.custodian, "loan", "policy", cast.loan, "leaking.json")
        scene.custodian("now suppose it is persuaded to approve that image", style="bold red")
        start_enclave(cast, name="tampered", package=tree)
        refused = world.run(world.consumer, "verify", cast.url, *cast.consumer_words(), expect=_REJECTED)
        codes = [reason["code"] for reason in refused.error["reasons"]]
        scene.consumer("does not ask: " + ", ".join(codes))
        holds = bool(mismatches & set(codes))
        scene.prove("the consumer refused it all the same", holds=holds, seen=json.dumps(refused.error)[:400])
        if cast.enclave is not None:
            cast.enclave.stop()
        measure(cast, "policy.json", version=3)
        world.run(world.custodian, "loan", "policy", cast.loan, "policy.json")
        scene.custodian("back to the honest image")


def prove_log(cast: Cast) -> None:
    """Verify the audit log from files alone, then show that one changed byte is found."""
    world = cast.world
    why = "Every fact is a leaf of a Merkle tree under a signed checkpoint. Whoever has the files can prove them alone."
    with cast.stage.scene("The log cannot lie", why) as scene:
        world.run(world.custodian, "audit", "export", "--out", "log.jsonl")
        words = ("--checkpoint", "log.jsonl.checkpoint", "--key", cast.custodian_key)
        whole = world.run(world.custodian, "audit", "verify", "log.jsonl", *words).value
        scene.custodian(f"{whole['entries']} entries, root {whole['root'][:16]}…")
        scene.prove("the log is whole, proven from files alone", holds=whole["size"] == whole["entries"])
        log = world.custodian / "log.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        at = next(index for index, line in enumerate(lines) if b'"allowance_added"' in line)
        lines[at] = lines[at].replace(b'"units":', b'"units":1', 1)
        (world.custodian / "forged.jsonl").write_bytes(b"".join(lines))
        forged = world.run(world.custodian, "audit", "verify", "forged.jsonl", *words, expect=_REJECTED)
        scene.custodian(f"a forged copy: {forged.error['reasons'][0]['code']}")
        scene.prove("a copy with one more digit in one entry is refused", holds=forged.code == _REJECTED)


def _secrets(cast: Cast) -> list[Needle]:
    """Return what neither the borrower's disk nor its wire may show."""
    world = cast.world
    vault = open_vault(world.custodian / "home", KeyFile(world.custodian / "vault.key"))
    dek, _ = unwrap_dek(vault, read_envelope(world.custodian / "sealed"))
    needles = [Needle(name="the model's key", value=dek)]
    needles.append(Needle(name="the consumer's token", value=(world.consumer / "clinic.token").read_bytes().strip()))
    onnx = cast.digits.onnx
    for at in range(0, len(onnx) - 32, 2048):
        window = onnx[at : at + 32]
        if len(set(window)) > 8:  # noqa: PLR2004 - not runs of one byte
            needles.append(Needle(name="weights of the model", value=window))
    for image in cast.images:
        needles.append(Needle(name="a consumer's file name", value=image.name.encode()))
        with Image.open(image) as opened:
            pixels = np.asarray(opened.convert("L").resize((8, 8)), dtype=np.float32)
        row = (pixels * (16 / 255)).astype(np.float32)[int(np.argmax((pixels > 0).sum(axis=1)))]
        needles.append(Needle(name="a consumer's pixels", value=row.tobytes()))
    for answer in cast.answers:
        values = np.asarray(answer["outputs"]["probabilities"], dtype=np.float32)
        needles.append(Needle(name="an answer", value=values.tobytes()))
        needles.append(Needle(name="an answer", value=str(answer["outputs"]["probabilities"][0][0]).encode()))
    return needles


def search_borrower(cast: Cast) -> None:
    """Search all that the borrower's disk and wire were seen to hold for every secret of the others."""
    world = cast.world
    why = "The borrower is root on its host. This is all it had: its disk, its logs, and its wire inside the TLS."
    with cast.stage.scene("What the borrower saw", why) as scene:
        needles = _secrets(cast)
        traffic = cast.tap.seen() if cast.tap is not None else b""
        places = [*files_below(world.borrower), ("the wire inside the TLS", traffic)]
        size = sum(len(data) for _, data in places)
        scene.borrower(f"{len(places) - 1} files and {len(traffic):,} bytes of traffic")
        scene.custodian(f"searched {size:,} bytes for {len(needles)} secrets, each in ten spellings")
        posts = traffic.count(b"POST /.well-known/ohttp-gateway")
        scene.prove(f"the wire carried the exchanges: {posts} encapsulated requests", holds=posts > len(cast.answers))
        found = find(needles, places)
        scene.prove("none of them is there: ciphertext only", holds=not found, seen=", ".join(found[:5]))
        control = find(needles, [*files_below(world.consumer), *_control(cast)])
        kinds = {needle.name for needle in needles} - {line.rpartition(" in ")[0] for line in control}
        scene.prove("the same search finds each kind of them where it belongs", holds=not kinds, seen=", ".join(kinds))


def _control(cast: Cast) -> list[tuple[str, bytes]]:
    """Return places that must show the secrets which are in no file of the consumer."""
    inside = b"".join(needle.value for needle in _secrets(cast) if needle.name != "a consumer's file name")
    return [("the enclave's memory", inside.hex().encode())]
