"""``cloister demo``: the main job in one terminal: lend, ask unseen, count, stop."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from cloister.cli.terminal import Terminal, Verb, pass_terminal
from cloister.errors import UsageError

__all__ = ["demo"]


@click.command(cls=Verb)
@click.option("--pause", is_flag=True, help="Wait for Enter after each scene.")
@click.option("--keep", is_flag=True, help="Leave the three parties running with commands to try.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where --keep puts everything.")
@click.option("--tee", type=click.Choice(["auto", "tpm", "simulated"]), default="auto", help="auto: tpm with swtpm.")
@pass_terminal
def demo(terminal: Terminal, /, *, pause: bool, keep: bool, folder: Path | None, tee: str) -> None:
    """Watch the whole story on real input, as separate processes over TLS, in under a minute.

    Ends with exit code 0 only if every step did what it says. Uses a software TPM where swtpm is installed,
    a simulated TEE otherwise, then synthetic AMD, NVIDIA, Intel and AWS hardware: these protect nothing.
    Needs the extra: pip install 'cloister[demo]'.
    """
    try:
        from cloister.cli.demo.story import play  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as exc:
        msg = f"demo: {exc.name} is not installed"
        raise UsageError(msg, hint="pip install 'cloister[demo]'") from exc
    place = (folder or Path("demo-run")).absolute() if keep else None
    if place is not None and place.exists():
        msg = f"{place}: exists already"
        raise UsageError(msg, hint="pass another --folder, or remove it")
    console = Console(stderr=terminal.as_json, highlight=False)  # its panels and columns wrap, others' lines do not
    cast = play(console, pause=pause, keep=place, tee=tee)
    terminal.result({"proven": list(cast.stage.proven)})
