"""Scenes of counting and stopping: exhausted, asked for more, blocked, unblocked, custodian gone."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

from cloister.cli.demo.cast import TTL_S
from cloister.cli.demo.lend import start_custodian, start_enclave

if TYPE_CHECKING:
    from cloister.cli.demo.cast import Cast
    from cloister.cli.demo.stage import Scene
    from cloister.cli.demo.world import Running

__all__ = ["ask_for_more", "block", "exhaust", "lose_custodian", "unblock"]

GRANTED = 400
_ASK_EVERY_S = 0.25
_REJECTED = 4
_WAIT_S = 20


def exhaust(cast: Cast) -> None:
    """Ask once more with nothing left: the enclave refuses, before the model runs."""
    why = "The enclave itself counts. No client is trusted with the count, and the custodian is not on the path."
    with cast.stage.scene("Nothing left: the enclave refuses", why) as scene:
        refused = cast.ask(cast.images[6], expect=_REJECTED)
        scene.consumer(f"asked once more: {refused.error['code']}")
        holds = refused.error["code"] == "allowance_exhausted"
        scene.prove("the enclave refused with allowance_exhausted", holds=holds, seen=json.dumps(refused.error))
        metrics = cast.metrics()
        ran = sum(int(value) for name, value in metrics.items() if name.startswith("cloister_units_total"))
        scene.borrower(f"units served by the enclave: {ran}")
        scene.prove(f"the model ran for the {len(cast.answers)} answers that were granted, not once more",
                    holds=ran == len(cast.answers), seen=str(ran))  # fmt: skip


def ask_for_more(cast: Cast) -> None:
    """Let the borrower ask, the custodian approve, and a waiting consumer go on."""
    world = cast.world
    why = "A consumer may wait for units. The borrower asks with a reason; the custodian approves or denies."
    with cast.stage.scene("More, please", why) as scene:
        words = (*cast.ask_words(cast.images[6]), "--wait", str(_WAIT_S), "--json")
        waiting = world.start(world.consumer, "waiting", *words)
        scene.consumer("asks again and waits")
        asked = world.run(
            world.borrower, "loan", "request", "--loan-file", "loan.json",
            "--units", str(GRANTED), "--reason", "a busy week in radiology",
        ).value  # fmt: skip
        scene.borrower(f"asked for {GRANTED}: “a busy week in radiology”")
        shown = world.run(world.custodian, "loan", "show", cast.loan).value
        ask = next(item for item in shown["requests"] if item["state"] == "open")
        scene.prove("the custodian sees the request and its reason", holds=ask["id"] == asked["id"], seen=str(ask))
        world.run(world.custodian, "loan", "approve", cast.loan, asked["id"])
        scene.custodian(f"approved {GRANTED}: added, not replaced")
        code = waiting.wait(within_s=_WAIT_S)
        scene.prove("the waiting question was answered without being asked anew", holds=code == 0, seen=waiting.said())
        scene.consumer("got its answer")
        summary = world.run(world.borrower, "loan", "status", "--loan-file", "loan.json").value
        meter = summary["meters"]["loan"]
        whole = meter["granted"] == meter["balance"] + meter["held"] + meter["spent"] + meter["written_off"]
        scene.prove("every unit is in the ledger: granted = balance + held + spent + written off",
                    holds=whole and meter["granted"] == GRANTED + len(cast.answers), seen=str(meter))  # fmt: skip


def start_asking(cast: Cast, name: str) -> Running:
    """Start a consumer that keeps asking, and wait for its first answer."""
    folder = cast.world.consumer
    words = (cast.url, str(folder / "trust.json"), str(folder / "clinic.token"), str(_ASK_EVERY_S))
    asking = cast.world.start_module(folder, name, "cloister.cli.demo.asker", *words, *map(str, cast.images))
    cast.until_line(asking, "answer", within_s=_WAIT_S)
    return asking


def block(cast: Cast) -> None:
    """Block the loan while a consumer keeps asking, and measure how long answers still come."""
    world = cast.world
    why = "One command. The bound is printed before it happens, and holds even where the network is cut."
    with cast.stage.scene("Block", why) as scene:
        asking = start_asking(cast, "asking")
        scene.consumer("keeps asking, four times a second")
        before = time.time()
        done = world.run(world.custodian, "loan", "block", cast.loan, "--reason", "a token may have leaked").value
        after = time.time()
        bound = done["bound"]
        scene.custodian(f"blocked: stops within {bound['seconds']:g} s\nor {bound['units']} units, whichever is first")
        last = _last_answer_once_silent(cast, asking, bound["seconds"])
        served = sum(1 for line in cast.lines(asking) if line.kind == "answer" and line.at > after)
        took = max(0.0, last - before)
        scene.consumer(f"last answer {took:.1f} s after the block, then refused")
        scene.prove(f"answers ended within the printed bound ({took:.1f} s of {bound['seconds']:g} s, {served} units)",
                    holds=took <= bound["seconds"], seen=asking.said()[-300:])  # fmt: skip
        asking.stop(signal.SIGKILL)
        code = _enclave(cast).wait(within_s=bound["seconds"] + 2 * TTL_S)
        scene.borrower("the enclave dropped its keys and ended")
        scene.prove(
            "told to stop, the enclave process ended by itself",
            holds=code == _REJECTED,
            seen=_enclave(cast).said()[-300:],
        )


def _enclave(cast: Cast) -> Running:
    if cast.enclave is None:
        msg = "no enclave was started"
        raise RuntimeError(msg)
    return cast.enclave


def _last_answer_once_silent(cast: Cast, asking: Running, bound_s: float) -> float:
    """Return when the last answer came, once the enclave has ended or the bound has passed."""
    deadline = time.monotonic() + bound_s + 1
    while time.monotonic() < deadline and _enclave(cast).process.poll() is None:
        time.sleep(0.1)
    time.sleep(2 * _ASK_EVERY_S)
    return max(line.at for line in cast.lines(asking) if line.kind == "answer")


def unblock(cast: Cast) -> None:
    """Lift the block and start the honest enclave again: a new instance, with nothing carried over."""
    world = cast.world
    why = "An enclave starts with keys of its own and ceiling zero: restarting, copying and rolling back win nothing."
    with cast.stage.scene("Unblock, start again", why) as scene:
        world.run(world.custodian, "loan", "unblock", cast.loan)
        scene.custodian("unblocked")
        instance = start_enclave(cast)
        scene.borrower(f"a new instance {instance[:16]}…")
        answer = cast.ask(cast.images[7]).value["answers"][0]
        scene.consumer(f"verified it anew: “{answer['label']}”, {answer['remaining']} left")
        scene.prove("the new instance began its own count", holds=answer["index"] == 1, seen=str(answer["index"]))


def lose_custodian(cast: Cast) -> None:
    """Kill the custodian: the enclave stops by itself. Start it again: nothing was lost."""
    why = "No renewal, no lease; no lease, no answer. Cutting the network is no way around the kill switch."
    with cast.stage.scene("The custodian is gone: the enclave stops by itself", why) as scene:
        asking = start_asking(cast, "asking-on")
        if cast.custodian is None:
            scene.prove("a custodian is running", holds=False)
            return
        killed = time.time()
        cast.custodian.stop(signal.SIGKILL)
        scene.custodian("killed (SIGKILL)", style="bold red")
        code = _enclave(cast).wait(within_s=3 * TTL_S + 2)
        ended = time.time() - killed
        last = max(line.at for line in cast.lines(asking) if line.kind == "answer") - killed
        asking.stop(signal.SIGKILL)
        scene.consumer(f"last answer {max(0.0, last):.1f} s later, then refused")
        scene.borrower(f"without renewal for {ended:.1f} s the enclave ended")
        bound = TTL_S * 1.001 + 1
        scene.prove(f"no answer came later than one lease of {TTL_S} s allows", holds=last <= bound, seen=f"{last:.1f}")
        scene.prove(
            "left alone, the enclave process ended by itself",
            holds=code == _REJECTED,
            seen=_enclave(cast).said()[-300:],
        )
        start_custodian(cast)
        _prove_whole(cast, scene)


def _prove_whole(cast: Cast, scene: Scene) -> None:
    scene.custodian("started again on the same database")
    meter = cast.world.run(cast.world.custodian, "loan", "show", cast.loan).value["meters"]["loan"]
    whole = meter["granted"] == meter["balance"] + meter["held"] + meter["spent"] + meter["written_off"]
    scene.prove("after the kill every unit is still in the ledger", holds=whole, seen=str(meter))
