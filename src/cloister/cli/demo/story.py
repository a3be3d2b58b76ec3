"""The order of the scenes, and what is set up around them."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cloister.cli.demo import attack, hardware, lend, stop
from cloister.cli.demo.cast import Cast
from cloister.cli.demo.digits import train
from cloister.cli.demo.stage import Stage
from cloister.cli.demo.world import TRANSCRIPT, World
from cloister.testing.ports import free_port
from cloister.testing.simulated import WARNING
from cloister.testing.swtpm import is_installed, start_swtpm

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WIRE", "play"]

WIRE = "wire-inside-tls.bin"


def play(console: Console, *, pause: bool, keep: Path | None, tee: str) -> Cast:
    """Play the whole story; return its cast. Raises ``DemoFailed`` at the first claim that does not hold.

    ``keep`` is the folder that stays behind with three running parties (None: all is removed); ``tee`` is
    ``auto``, ``tpm`` or ``simulated``.
    """
    stage = Stage(console, pause=pause)
    with ExitStack() as stack:
        root = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cloister-demo-")))
        world = stack.enter_context(World(root))
        cast = _cast(stage, world, stack, tee)
        lend.open_house(cast)
        lend.seal_and_publish(cast)
        lend.lend_model(cast)
        lend.boot_enclave(cast, stack)
        lend.verify_and_ask(cast)
        stop.exhaust(cast)
        stop.ask_for_more(cast)
        stop.block(cast)
        stop.unblock(cast)
        stop.lose_custodian(cast)
        attack.tamper(cast)
        hardware.release_elsewhere(cast)
        attack.prove_log(cast)
        attack.search_borrower(cast)
        _curtain(cast)
        if keep is not None:
            _stay(cast)
    return cast


def _cast(stage: Stage, world: World, stack: ExitStack, tee: str) -> Cast:
    console = stage.console
    motto = "lend an AI model without giving it away; ask it without being overheard"
    console.print(Text.assemble(("Cloister", "bold"), f": {motto}"))
    with_tpm = tee == "tpm" or (tee == "auto" and is_installed())
    if with_tpm:
        stage.loud("SOFTWARE TPM: real TPM 2.0 commands and quotes, but its keys are in a file. A demo, no protection.")
    else:
        stage.loud(WARNING)
    swtpm = stack.enter_context(start_swtpm(world.root / "tpm")) if with_tpm else None
    beside = stack.enter_context(ThreadPoolExecutor(1))  # what takes seconds, while the first scenes play
    return Cast(
        world=world,
        stage=stage,
        trained=beside.submit(train),
        hardware=beside.submit(hardware.make_hardware, world.borrower),
        swtpm=swtpm,
        custodian_port=free_port(),
        enclave_port=free_port(),
    )


def _curtain(cast: Cast) -> None:
    took = time.monotonic() - cast.stage.started
    lines = Table.grid(padding=(0, 1))
    for claim in cast.stage.proven:
        lines.add_row("✓", Text(claim))
    title = f"{len(cast.stage.proven)} claims proven in {took:.0f} s"
    cast.stage.console.print()
    cast.stage.console.print(Panel(lines, title=title, border_style="green", expand=False))


def _stay(cast: Cast) -> None:
    """Leave three parties running and say what to try, until interrupted."""
    lend.start_enclave(cast)
    world = cast.world
    python = " ".join(world.command())
    home = world.variables[world.custodian]["CLOISTER_CUSTODIAN_HOME"]
    console = cast.stage.console
    console.print(
        f"\nThe three parties run on, in {world.root}. Try, in other terminals:\n", markup=False, soft_wrap=True
    )
    for words in (
        f"{python} loan watch {cast.loan} --home {home}",
        f"{python} loan block {cast.loan} --home {home}",
        f"{python} {' '.join(cast.ask_words(cast.images[0]))}",
        f"{python} verify {cast.url} {' '.join(cast.consumer_words())}",
        f"{python} loan status --loan-file {world.borrower / 'loan.json'}",
        f"{python} audit verify --home {home}",
    ):
        console.print(f"  {words}", markup=False, soft_wrap=True)
    console.print(f"\nWhat each party typed and was told: {TRANSCRIPT} in its folder.")
    console.print(f"What the borrower's proxy records: {WIRE} in the borrower's.")
    console.print("Ctrl-C ends all three.")
    try:
        while True:
            keep_wire(cast)
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("ended")
    keep_wire(cast)


def keep_wire(cast: Cast) -> None:
    """Write what the borrower's proxy has recorded to a file of the borrower's."""
    if cast.tap is not None:
        (cast.world.borrower / WIRE).write_bytes(cast.tap.seen())
