"""Start the three parties that the notebooks talk to: python parties.py [FOLDER], until Ctrl-C.

Custodian and enclave are real processes over loopback; the TEE is simulated and PROTECTS NOTHING. Everything lies in
the folder (``notebook-run`` here), and ``parties.json`` in it says where what is.
Needs the extra: pip install 'cloister[demo]'.
"""

import contextlib
import json
import shutil
import signal
import sys
from pathlib import Path

import cloister
from cloister.cli.demo.digits import CARD, Digits, train
from cloister.cli.demo.world import World
from cloister.testing.ports import free_port
from cloister.testing.simulated_root import WARNING, SimulatedRoot


def lend(world: World, digits: Digits, port: int) -> dict[str, str]:
    """Play the custodian: seal a model, publish it, lend it; hand over what the others need."""
    custodian, public = world.custodian, str(world.root / "root.pub.json")
    key = world.run(custodian, "custodian", "init", "--name", "Model Works", "--port", str(port)).value["key"]
    server = world.start(custodian, "custodian", "custodian", "serve", "--insecure-simulated-root", public)
    world.until_port(server, port)
    (custodian / "digits.onnx").write_bytes(digits.onnx)
    (custodian / "card.json").write_text(json.dumps(CARD))
    words = ("model", "seal", "digits.onnx", "--out", "sealed", "--name", "digits", "--card", "card.json")
    digest = world.run(custodian, *words).value["digest"]
    world.run(custodian, "model", "publish", "sealed")
    simulated = ("--tee", "simulated", "--insecure-simulated-root", public)
    world.run(custodian, "enclave", "measure", *simulated, "--policy", "policy.json")
    loan = world.run(
        custodian, "loan", "create", "--borrower", "General Hospital", "--model", f"digits={digest}",
        "--allowance", "300", "--consumer", "clinic", "--policy", "policy.json", "--ttl", "4", "--max-ceiling", "300",
        "--out", str(world.borrower / "loan.json"), "--tokens", str(world.consumer),
    ).value["loan"]  # fmt: skip
    shutil.copytree(custodian / "sealed", world.borrower / "sealed")
    return {"custodian_key": key, "custodian_url": f"https://localhost:{port}", "digest": digest, "loan": loan}


def serve(world: World) -> str:
    """Play the borrower: run the enclave, and return its address."""
    root, ready = str(world.borrower / "root.json"), world.borrower / "ready.json"
    enclave = world.start(
        world.borrower, "enclave", "enclave", "serve", "--loan-file", "loan.json", "--model", "sealed", "--listen",
        f"127.0.0.1:{free_port()}", "--tee", "simulated", "--insecure-simulated-root", root, "--ready-file", str(ready),
    )  # fmt: skip
    return str(world.until_file(enclave, ready)["url"])


def trust(world: World, told: dict[str, str], digits: Digits) -> None:
    """Play the consumer: measure for itself, write down whom it trusts, have something to ask about."""
    consumer, public = world.consumer, str(world.root / "root.pub.json")
    simulated = ("--tee", "simulated", "--insecure-simulated-root", public)
    world.run(consumer, "enclave", "measure", *simulated, "--policy", "mine.json")
    world.run(
        consumer, "trust", "new", "--policy", "mine.json", "--insecure-simulated-root", public, "--custodian-url",
        told["custodian_url"], "--custodian-key", told["custodian_key"], "--custodian-ca",
        str(world.custodian / "home" / "tls" / "ca.pem"), "--operator", "General Hospital", "--model",
        f"digits={told['digest']}", "--any-tls", "everything is on this machine", "--out", "trust.json",
    )  # fmt: skip
    for index in range(4):
        digits.write_image(index, consumer / f"scan-{index}.png")


def main() -> None:
    """Start everything, say where it is, and end it when interrupted."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "notebook-run").absolute()
    print(WARNING, file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C does
    with contextlib.suppress(KeyboardInterrupt), World(folder) as world:
        for variables in world.variables.values():  # one package for all: it is what the enclave measures
            variables["PYTHONPATH"] = str(Path(cloister.__file__).parents[1])
        root = SimulatedRoot.generate()
        root.save(world.borrower / "root.json")
        root.save_public(world.root / "root.pub.json")
        digits = train()
        told = lend(world, digits, free_port())
        told["url"] = serve(world)
        trust(world, told, digits)
        (folder / "parties.new").write_text(json.dumps(told, indent=2))
        (folder / "parties.new").rename(folder / "parties.json")
        print(f"The three parties run, in {folder}. Open the notebooks; Ctrl-C ends all.", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
