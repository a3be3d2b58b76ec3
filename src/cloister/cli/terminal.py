"""The rules of the terminal, in one place.

- Results go to stdout, words about them to stderr. With ``--json`` stdout holds one JSON document and
  nothing else, also for errors.
- Exit codes tell whose fault it was: 0 done, 2 usage, 3 malformed, 4 rejected, 5 unavailable, 6 waits
  for a second person, 130 interrupted. A reader that went away (``| head``) is no error.
- An error ends in a hint where there is one, and in its code for ``cloister explain`` where that says more.
- No secret is taken as an argument or an option value: processes show those to everybody. Secrets come
  from files of mode 0600, from the environment, or from stdin.
- Files are written whole or not at all, and never over an existing one without ``--force``.
- Text of others is text: never markup, and nothing in it steers the terminal (T84).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cloister.cli.exits import (
    EXIT_INTERRUPTED,
    EXIT_PENDING,
    EXIT_REJECTED,
    EXIT_USAGE,
    SAY_NO_MORE,
    codes,
    error_json,
    exit_code,
)
from cloister.cli.progress import bar, spinner
from cloister.errors import CloisterError, Rejected, Unavailable, UsageError
from cloister.journal import Secret
from cloister.wire import STEERING

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import ConsoleOptions, RenderableType

    from cloister.wire import Json

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_PENDING",
    "EXIT_REJECTED",
    "Group",
    "Terminal",
    "Verb",
    "demand_writable",
    "exit_code",
    "pass_terminal",
    "read_secret",
    "run",
    "write_file",
]

_MAX_SECRET_BYTES = 64 * 1024


class _PlainConsole(Console):
    """A console on which text is text: no markup, no emoji codes, and nothing in it steers the terminal (T84)."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Let it through: a reader that went away is no error, and no exit by rich's own code."""
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is to be shown; a character that steers is shown as one that cannot be."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else STEERING.sub(_shown, text), style, control)


def _shown(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else "\N{REPLACEMENT CHARACTER}"


def _unseen(done: int, total: int) -> None:
    """Take a report where nobody looks."""


def _json_text(value: Json, *, indent: int | None = None) -> str:
    """Return JSON whose strings cannot steer a terminal either: what would is written as its escape."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return STEERING.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


class Terminal:
    """Where one command writes: results to stdout, words to stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        """Write plain results, or one JSON document."""
        self.as_json = as_json
        self.out: Console = _PlainConsole()
        self.err: Console = _PlainConsole(stderr=True)

    def result(self, value: Json, show: Callable[[Console], None] | None = None) -> None:
        """Print the result: ``value`` as JSON, or what ``show`` draws. The exit code stands if nobody reads it."""
        with _perhaps_unread():
            if self.as_json:
                click.echo(_json_text(value, indent=2))
            elif show is not None:
                show(self.out)

    def line(self, value: Json) -> None:
        """Print one of many results: one JSON document a line. Ends the command where nobody reads any more."""
        try:
            click.echo(_json_text(value))
        except BrokenPipeError as exc:
            _forget_stdout()
            raise click.exceptions.Exit(0) from exc

    def say(self, text: str, *, style: str = "") -> None:
        """Tell the person something that is not the result."""
        if not self.as_json:
            self.err.print(Text(text, style=style))

    def warn(self, text: str) -> None:
        """Say loudly what must not be overlooked, with ``--json`` too."""
        self.err.print(Text(f"warning: {text}", style="bold yellow"))

    def error(self, error: CloisterError) -> None:
        """Print an error: what was wrong, every reason, and what to do next."""
        if self.as_json:
            with _perhaps_unread():
                click.echo(_json_text({"error": error_json(error)}, indent=2))
            return
        self.err.print(Text.assemble(("error:", "bold red"), " ", error.message))
        if isinstance(error, Rejected) and len(error.reasons) > 1:
            for reason in error.reasons:
                self.err.print(Text(f"  - {reason}"))
        if error.hint:
            self.err.print(Text.assemble(("hint:", "dim"), " ", error.hint))
        if telling := [code for code in codes(error) if code not in SAY_NO_MORE]:
            self.err.print(Text.assemble(("more:", "dim"), f" cloister explain {' '.join(telling)}"))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that hurts; ``yes`` answers, and so does a missing terminal with no."""
        if yes:
            return
        if not sys.stdin.isatty():
            msg = "not confirmed: there is no terminal to ask on"
            raise UsageError(msg, hint="pass --yes", code="not_confirmed")
        click.confirm(question, abort=True, err=True)

    @contextlib.contextmanager
    def progress(self, what: str, *, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
        """Show progress of long work on a terminal; yields ``report(done, total)``, in bytes or another ``unit``."""
        if not self._shows_progress:
            yield _unseen
            return
        with bar(self.err, what, unit=unit) as report:
            yield report

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show on a terminal that long work goes on whose end nobody knows."""
        with spinner(self.err, what) if self._shows_progress else contextlib.nullcontext():
            yield

    @property
    def _shows_progress(self) -> bool:
        return sys.stderr.isatty() and not self.as_json and not self.err.is_dumb_terminal

    @staticmethod
    def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> Table:
        """Return a plain table of literal text."""
        table = Table(
            title=title,
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
            show_header=any(columns),
        )
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if value:
        context.ensure_object(Terminal).as_json = True


class Verb(click.Command):
    """A command; every one takes ``--json``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        option = click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_json,
            help="Print one JSON document.",
        )
        self.params.append(option)


class Group(click.Group):
    """A noun; its commands are verbs. Suggests the nearest name for a wrong one."""

    command_class = Verb

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one may have been meant."""
        import difflib  # noqa: PLC0415 - needed for a wrong word only

        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            ctx.fail(f"no such command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


pass_terminal = click.make_pass_decorator(Terminal, ensure=True)


def run(command: click.Command, args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. The one place that turns errors into exits."""
    arguments = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a poor encoding is no reason to fail
    terminal = Terminal(as_json="--json" in arguments)
    outcome: object = 0
    try:
        outcome = command.main(args=arguments, prog_name="cloister", standalone_mode=False, obj=terminal)
        sys.stdout.flush()
    except CloisterError as exc:
        terminal.error(exc)
        return exit_code(exc)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        terminal.say("interrupted")
        return EXIT_INTERRUPTED
    except click.ClickException as exc:
        return _usage(exc, terminal)
    except BrokenPipeError:
        _forget_stdout()  # the exit code stands where the command had come to its end
    return outcome if isinstance(outcome, int) else 0


@contextlib.contextmanager
def _perhaps_unread() -> Iterator[None]:
    """Go on where the reader went away: the exit code tells the rest."""
    try:
        yield
    except BrokenPipeError:
        _forget_stdout()


def _forget_stdout() -> None:
    """Point stdout elsewhere once its reader went away, or Python complains once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException, terminal: Terminal) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else "cloister"
    terminal.error(UsageError(error.format_message(), hint=f"see '{path} --help'", code="option_wrong"))
    return EXIT_USAGE


def read_secret(path: str, *, what: str, hint: str | None = None) -> Secret[str]:
    """Return one line of text from a file of mode 0600, or from stdin where ``path`` is ``-``.

    Raises ``UsageError`` for a file that others may read, is not there (``hint`` helps), or has no text.
    """
    if path == "-":
        return _one_line(_stdin_line(), what=f"{what} on stdin")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                msg = f"{what} file {path}: not a regular file"
                raise UsageError(msg)
            if status.st_mode & 0o077:
                msg = f"{what} file {path}: mode {stat.S_IMODE(status.st_mode):04o}, want 0600"
                raise UsageError(msg, hint=f"chmod 600 {path}", code="open_to_others")
            return _one_line(file.read(_MAX_SECRET_BYTES), what=f"{what} file {path}")
    except OSError as exc:
        msg = f"{what} file {path}: {exc.strerror}"
        raise UsageError(msg, hint=hint) from exc


def _stdin_line() -> bytes:
    """Return the first line of stdin, bounded; nothing where it is closed."""
    return sys.stdin.buffer.readline(_MAX_SECRET_BYTES) if sys.stdin is not None else b""


def _one_line(data: bytes, *, what: str) -> Secret[str]:
    """Return a secret as text. An empty one is a mistake: nobody means it."""
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError as exc:
        msg = f"{what}: not text"
        raise UsageError(msg) from exc
    if not text or not text.isprintable():
        msg = f"{what}: want one line of text"
        raise UsageError(msg)
    return Secret(text)


def demand_writable(paths: Iterable[Path | None], *, force: bool) -> None:
    """Refuse files that could not be written once what goes into them is spent or made: a unit, a token."""
    for path in paths:
        if path is None:
            continue
        if path.exists() and not force:
            msg = f"{path}: exists already"
            raise UsageError(msg, hint="pass --force to replace it", code="file_exists")
        if not path.absolute().parent.is_dir():
            msg = f"{path}: no such folder"
            raise UsageError(msg)


def write_file(path: Path, data: bytes, *, force: bool = False, private: bool = False) -> None:
    """Write a file whole or not at all (temporary file, then rename); 0600 where ``private``.

    Raises ``UsageError`` where it exists and ``force`` is not set, ``Unavailable`` where it cannot be written.
    """
    if path.exists() and not force:
        msg = f"{path}: exists already"
        raise UsageError(msg, hint="pass --force to replace it", code="file_exists")
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o600 if private else 0o644)
        Path(temporary).replace(path)
    except OSError as exc:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        msg = f"{path}: {exc.strerror}"
        raise Unavailable(msg) from exc
