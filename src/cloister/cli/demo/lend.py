"""Scenes of lending: seal, publish, lend, attest and release, verify and ask."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from cloister.cli.demo.cast import CEILING, OPERATOR, TTL_S
from cloister.cli.demo.digits import CARD
from cloister.cli.demo.tap import Tap
from cloister.testing.simulated_root import SimulatedRoot

if TYPE_CHECKING:
    from contextlib import ExitStack

    from cloister.cli.demo.cast import Cast
    from cloister.cli.demo.stage import Scene

__all__ = ["boot_enclave", "lend_model", "open_house", "seal_and_publish", "start_custodian", "verify_and_ask"]

ALLOWANCE = 6
_SECRET_NAME = "patient-0417-{:02}.png"  # noqa: S105 - the name of a consumer's file, which nobody else may learn


def start_custodian(cast: Cast) -> None:
    """Start the custodian's server and wait until it listens."""
    words = ["custodian", "serve"]
    if cast.swtpm is None:
        words += ["--insecure-simulated-root", str(cast.world.root / "simulated-root.pub.json")]
    if cast.vendors is not None:
        words += ["--insecure-synthetic-vendors", str(cast.vendors)]
    cast.custodian = cast.world.start(cast.world.custodian, "custodian", *words)
    cast.world.until_port(cast.custodian, cast.custodian_port)


def open_house(cast: Cast) -> None:
    """Make a custodian with vault, database, certificates and log, and start it."""
    world = cast.world
    why = "Keys live in an encrypted vault; the database holds wrapped keys only. TLS is on from the start."
    with cast.stage.scene("The custodian opens its house", why) as scene:
        if cast.swtpm is None:
            root = SimulatedRoot.generate()
            root.save(world.borrower / "simulated-root.json")
            root.save_public(world.root / "simulated-root.pub.json")
        else:
            maker = world.custodian / "tpm-maker.pem"
            maker.write_bytes(b"".join(cast.swtpm.ek_roots))
            world.variables[world.custodian]["CLOISTER_CUSTODIAN_EK_ROOTS"] = str(maker)
        made = world.run(world.custodian, "custodian", "init", "--port", str(cast.custodian_port)).value
        cast.custodian_key = made["key"]
        scene.custodian(f"vault, ledger and audit log made\nkey {made['key'][:16]}…")
        start_custodian(cast)
        scene.custodian(f"listening on {made['url']}")
        rights = (world.custodian / "home" / "admin.token").stat().st_mode & 0o077
        scene.prove("the admin token is in a file that only its owner can read", holds=rights == 0)


def seal_and_publish(cast: Cast) -> None:
    """Train a real model on real data, seal it, publish it."""
    world, digits = cast.world, cast.digits
    why = "Every file is encrypted under a fresh key that only the vault can unwrap; a signed manifest lists them."
    with cast.stage.scene("Seal a model and publish it", why) as scene:
        model, card = world.custodian / "digits.onnx", world.custodian / "card.json"
        model.write_bytes(digits.onnx)
        card.write_text(json.dumps(CARD))
        scene.custodian(
            f"trained on 1,347 scans of handwritten digits\n{digits.accuracy:.1%} right on 450 it never saw"
        )
        sealed = world.run(
            world.custodian, "model", "seal", str(model), "--out", "sealed", "--name", "digits", "--card", str(card)
        ).value
        cast.digest = sealed["digest"]
        world.run(world.custodian, "model", "publish", "sealed")
        scene.custodian(f"sealed {sealed['size']:,} bytes\nmodel {cast.digest[:16]}…")
        shutil.copytree(world.custodian / "sealed", world.borrower / "sealed")
        scene.borrower("got the sealed folder: ciphertext and a manifest, no key")
        bulk = b"".join(path.read_bytes() for path in (world.borrower / "sealed" / "blobs").iterdir())
        scene.prove("no 16 bytes of the model are in what the borrower was given", holds=not _shares(digits.onnx, bulk))


def _shares(plain: bytes, sealed: bytes) -> bool:
    windows = {plain[at : at + 16] for at in range(0, len(plain) - 16, 16)}
    return any(window in sealed for window in windows if len(set(window)) > 4)  # noqa: PLR2004 - not runs of zeros


def measure(cast: Cast, name: str, *, version: int = 1, package: Any = None) -> None:
    """Write the policy ``NAME`` that admits exactly the code in ``package`` (ours where None)."""
    words = ("enclave", "measure", "--policy", name, "--policy-version", str(version), *cast.tee_words(), "--force")
    cast.world.run(cast.world.custodian, *words, package=package)


def lend_model(cast: Cast) -> None:
    """Make the loan: allowance, consumers, policy; hand out loan file and token."""
    world = cast.world
    why = "A loan says which model, which enclaves may have its key (by measurement), how many answers, and for whom."
    with cast.stage.scene("Lend it", why) as scene:
        measure(cast, "policy.json")
        made = world.run(
            world.custodian, "loan", "create", "--borrower", OPERATOR, "--model", f"digits={cast.digest}",
            "--allowance", str(ALLOWANCE), "--consumer", "clinic", "--policy", "policy.json",
            "--ttl", str(TTL_S), "--max-ceiling", str(CEILING), "--out", "loan.json", "--tokens", "tokens",
        ).value  # fmt: skip
        cast.loan = made["loan"]
        shutil.move(world.custodian / "loan.json", world.borrower / "loan.json")
        shutil.move(world.custodian / "tokens" / "clinic.token", world.consumer / "clinic.token")
        scene.custodian(f"{cast.loan}\n{ALLOWANCE} answers, leases of {TTL_S} s\nonly this build of the enclave")
        scene.borrower("got the loan file")
        scene.consumer("the clinic got its token")
        cast.images = tuple(world.consumer / _SECRET_NAME.format(index) for index in range(8))
        cast.truths = tuple(cast.digits.write_image(index, path) for index, path in enumerate(cast.images))
        scene.consumer(f"has {len(cast.images)} scans as PNG files")
        shown = world.run(world.custodian, "loan", "show", cast.loan).value
        scene.prove(
            "the ledger holds exactly what was granted",
            holds=shown["meters"]["loan"]["balance"] == ALLOWANCE,
            seen=json.dumps(shown["meters"]),
        )


def enrol_tpm(cast: Cast, scene: Scene) -> None:
    """Prove the TPM genuine once and get its attestation key certified."""
    if cast.swtpm is None:
        return
    world = cast.world
    maker = world.borrower / "tpm-maker.pem"
    maker.write_bytes(b"".join(cast.swtpm.ek_intermediates))
    done = world.run(
        world.borrower, "enclave", "enrol", "--loan-file", "loan.json", "--out", "ak.pem",
        "--tpm", f"unix:{cast.swtpm.socket}", "--ek-certificate", str(maker),
    ).value  # fmt: skip
    scene.borrower(f"TPM enrolled by credential activation\ndevice {done['device'][:16]}…")


def enclave_words(cast: Cast) -> tuple[str, ...]:
    """Return the words that start the enclave server."""
    certificate = () if cast.swtpm is None else ("--ak-certificate", "ak.pem")
    listen = f"127.0.0.1:{cast.enclave_port}"
    return (
        "enclave", "serve", "--loan-file", "loan.json", "--model", "sealed", "--listen", listen,
        "--metrics", "127.0.0.1:0", "--ready-file", "ready.json", *certificate, *cast.tee_words(seed=True),
    )  # fmt: skip


def start_enclave(cast: Cast, *, name: str = "enclave", package: Any = None) -> str:
    """Start an enclave server, wait until it serves, return its instance id."""
    ready = cast.world.borrower / "ready.json"
    ready.unlink(missing_ok=True)
    cast.enclave = cast.world.start(cast.world.borrower, name, *enclave_words(cast), package=package)
    told = cast.world.until_file(cast.enclave, ready)
    cast.metrics_url = str(told["metrics"])
    return str(told["instance"])


def boot_enclave(cast: Cast, stack: ExitStack) -> None:
    """Attest, release the key, open into memory, lease."""
    world = cast.world
    why = "The enclave proves what it is for a fresh nonce. The key comes back encrypted to a key inside that evidence."
    with cast.stage.scene("Attest, release the key, open into memory", why) as scene:
        enrol_tpm(cast, scene)
        certificate, key = _proxy_certificate(cast)
        cast.tap = stack.enter_context(Tap(upstream=("127.0.0.1", cast.enclave_port), certificate=certificate, key=key))
        instance = start_enclave(cast)
        scene.borrower(f"enclave instance {instance[:16]}…\nmodel open in sealed memory")
        scene.borrower("its own proxy ends TLS in front of the enclave and records every byte")
        entries = world.run_lines(world.custodian, "audit", "list")
        kinds = [entry["kind"] for entry in entries]
        scene.custodian("evidence verified, appraised by the loan's policy\nkey released, lease signed")
        released = [entry for entry in entries if entry["kind"] == "key_released"]
        scene.prove("the key left the vault only with its entry in the log", holds=len(released) == 1, seen=str(kinds))
        shown = world.run(world.custodian, "loan", "show", cast.loan).value
        live = [item["id"] for item in shown["instances"] if item["live"]]
        scene.prove("exactly one enclave lives, and it is this one", holds=live == [instance], seen=str(live))


def _proxy_certificate(cast: Cast) -> tuple[Any, Any]:
    """Return the certificate of the borrower's proxy: made like any site's own, by a small authority."""
    from cloister.cli.demo.certificate import write_certificate  # noqa: PLC0415 - X.509 is for this scene only

    return write_certificate(cast.world.borrower)


def write_trust(cast: Cast) -> None:
    """Let the consumer decide whom it trusts, by reference values of its own."""
    world = cast.world
    words: list[str] = []
    if cast.swtpm is None:
        words += cast.tee_words()[2:]
    else:
        words += ["--tpm-authority", str(world.custodian / "home" / "devices" / "ca.pem")]
    world.run(
        world.consumer, "trust", "new", "--policy", str(world.custodian / "policy.json"),
        "--custodian-url", f"https://localhost:{cast.custodian_port}", "--custodian-key", cast.custodian_key,
        "--custodian-ca", str(world.custodian / "home" / "tls" / "ca.pem"), "--operator", OPERATOR,
        "--model", f"digits={cast.digest}", "--tls-ca", str(world.borrower / "proxy-ca.pem"),
        "--out", "trust.json", *words,
    )  # fmt: skip


def verify_and_ask(cast: Cast) -> None:
    """Verify as a consumer, then ask until the allowance is used up."""
    world = cast.world
    why = "The consumer checks evidence for its own nonce by its own reference values, then encrypts to that key."
    with cast.stage.scene("Verify, then ask, unseen", why) as scene:
        write_trust(cast)
        verified = world.run(world.consumer, "verify", cast.url, *cast.consumer_words()).value
        for verdict, words in (("passed", "✓ passed"), ("not_checked", "· not made, with its reason")):
            subjects = dict.fromkeys(check["subject"] for check in verified["checks"] if check["verdict"] == verdict)
            scene.consumer(f"{words}: {', '.join(subjects)}")
        scene.prove(
            "the consumer's own verdict is that every check passed or says why it was not made",
            holds=all(check["verdict"] == "passed" or check["note"] for check in verified["checks"]),
        )
        rights = 0
        remaining = []
        for image, truth in zip(cast.images[:ALLOWANCE], cast.truths, strict=False):
            answer = cast.ask(image).value["answers"][0]
            cast.answers.append(answer)
            rights += answer["label"] == str(truth)
            remaining.append(answer["remaining"])
            scene.consumer(f"a scan of a {truth}: “{answer['label']}”, {answer['remaining']} left")
        scene.prove(f"{rights} of {ALLOWANCE} answers are right", holds=rights >= ALLOWANCE - 1)
        down = list(range(ALLOWANCE - 1, -1, -1))
        scene.prove("the count went down by one with each answer", holds=remaining == down, seen=str(remaining))
