"""Lines that programs write while they run: closed events, closed fields, no free text (T62, T84, T85)."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journal_kit import INJECTIONS, harmless

from cloister.custodian.logs import Event as CustodianEvent
from cloister.enclave.logs import Event as EnclaveEvent
from cloister.errors import UsageError
from cloister.journal import NUMBERS, UNPRINTABLE, WORDS, EventLog, JournalEvent, LibraryEvent, libraries_to
from cloister.verifier.logs import Event as VerifierEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CANARY = "canary-4d1f"
LIBRARIES = (
    "uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy.engine", "httpx", "httpx2", "starlette", "asyncio",
)  # fmt: skip


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> EventLog:
    return EventLog(lambda: AT, stream)


@pytest.fixture
def taken_over(log: EventLog) -> Iterator[None]:
    with libraries_to(log):
        yield


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Return every line, each proven to be one JSON object that steers nothing."""
    said = stream.getvalue()
    assert said.isascii()
    assert said == "" or said.endswith("\n")
    assert all(harmless(line) for line in said.split("\n"))
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("name", sorted(WORDS))
def test_t84_nothing_that_breaks_a_line_or_steers_a_terminal_enters_a_word(
    name: str, log: EventLog, stream: io.StringIO
) -> None:
    for text in INJECTIONS:
        log.write(EnclaveEvent.READY, **{name: text})
    written = lines(stream)
    assert len(written) == len(INJECTIONS)
    assert {line[name] for line in written} == {UNPRINTABLE}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_number_is_a_number(name: str, log: EventLog, stream: io.StringIO) -> None:
    for value in (0, -1, 2**53, 1.5, float("nan"), float("inf")):
        log.write(EnclaveEvent.READY, **{name: value})
    assert [line[name] for line in lines(stream)] == [0, -1, 2**53, 1.5, UNPRINTABLE, UNPRINTABLE]
    for wrong in ("5", True, None, b"5", [1]):
        with pytest.raises(UsageError):
            log.write(EnclaveEvent.READY, **{name: wrong})  # type: ignore[arg-type]


def test_fields_and_events_are_closed_sets(log: EventLog, stream: io.StringIO) -> None:
    for name in ("message", "text", "reason", "path", "consumer", "token", "msg", "exc_info", "event", "at"):
        with pytest.raises(UsageError):
            log.write(EnclaveEvent.READY, **{name: "x"})
    for event in ("ready", logging.WARNING, "x\n"):
        with pytest.raises(UsageError):
            log.write(event)  # type: ignore[arg-type]
    assert lines(stream) == []


def test_the_vocabularies_are_names_that_need_no_escape() -> None:
    names = [event.value for kind in (CustodianEvent, EnclaveEvent, LibraryEvent) for event in kind]
    assert all(name.isascii() and name.replace("_", "").isalpha() and name.islower() for name in names)
    assert all(issubclass(kind, JournalEvent) for kind in (CustodianEvent, EnclaveEvent, LibraryEvent))


@pytest.mark.usefixtures("taken_over")
@pytest.mark.parametrize(
    "name",
    ["uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy.engine", "httpx", "httpx2", "starlette", "asyncio"],
)
def test_what_libraries_log_loses_its_words(name: str, stream: io.StringIO) -> None:
    logger = logging.getLogger(name)
    try:
        raise ValueError(CANARY)  # noqa: TRY301
    except ValueError:
        logger.exception("failed %s", CANARY)
    logger.error(CANARY, extra={"canary": CANARY}, stack_info=True)
    logger.info(CANARY)
    assert lines(stream) == [
        {
            "at": "2026-03-01T12:00:00Z",
            "event": "server_notice",
            "level": "ERROR",
            "logger": name,
            "error": "ValueError",
        },
        {"at": "2026-03-01T12:00:00Z", "event": "server_notice", "level": "ERROR", "logger": name, "error": "none"},
    ]
    assert CANARY not in stream.getvalue()


def test_loggers_and_classes_with_strange_names_are_not_shown(log: EventLog, stream: io.StringIO) -> None:
    with libraries_to(log):
        for text in INJECTIONS:
            kind = type(text.replace("\x00", "0").encode("ascii", "ignore").decode() or "X", (Exception,), {})
            logging.getLogger("x" + text).error("x", exc_info=(kind, kind(), None))
    written = lines(stream)
    assert len(written) == len(INJECTIONS)
    for line in written:
        assert set(line) == {"at", "event", "level", "logger", "error"}


def test_a_logger_with_a_handler_of_its_own_gets_no_word_past(
    log: EventLog, stream: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    own = logging.getLogger("a.library.that.prints")
    handler = logging.StreamHandler(sys.__stderr__)
    own.addHandler(handler)
    own.propagate = False
    with libraries_to(log):
        own.warning(CANARY)
    assert own.handlers == [handler]
    assert not own.propagate
    own.removeHandler(handler)
    assert CANARY not in "".join(capfd.readouterr())
    assert [line["logger"] for line in lines(stream)] == ["a.library.that.prints"]


@pytest.mark.usefixtures("taken_over")
def test_warnings_lose_their_words(stream: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(CANARY, UserWarning, stacklevel=1)
    assert CANARY not in stream.getvalue() + "".join(capfd.readouterr())


@pytest.mark.usefixtures("taken_over")
def test_a_record_that_cannot_be_formatted_prints_nothing(
    stream: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("uvicorn").error("%d %s", CANARY)  # noqa: PLE1206 - that is the point
    assert [line["event"] for line in lines(stream)] == ["server_notice"]
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.usefixtures("taken_over")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_caught_is_told_by_its_class_alone(stream: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyError(CANARY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(CANARY), None)
    written = [(line["event"], line["error"]) for line in lines(stream)]
    assert written == [("uncaught", "KeyError"), ("uncaught", "ValueError")]
    assert CANARY not in "".join(capfd.readouterr())


def test_everything_is_as_it_was_afterwards(log: EventLog) -> None:
    before = (logging.getLogger().handlers, sys.excepthook, sys.unraisablehook, threading.excepthook)
    with libraries_to(log):
        assert logging.getLogger().handlers != before[0]
    assert (logging.getLogger().handlers, sys.excepthook, sys.unraisablehook, threading.excepthook) == before


def test_a_line_that_cannot_be_written_is_lost() -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    EventLog(lambda: AT, Full()).write(EnclaveEvent.READY)
    closed = io.StringIO()
    closed.close()
    EventLog(lambda: AT, closed).write(EnclaveEvent.READY)


def test_threads_share_a_log_and_no_line_is_torn(log: EventLog, stream: io.StringIO) -> None:
    def say() -> None:
        for number in range(200):
            log.write(EnclaveEvent.READY, seq=number, instance="ab12")

    threads = [threading.Thread(target=say) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == 800


def test_every_event_and_field_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
    names = {event.value for kind in (CustodianEvent, EnclaveEvent, VerifierEvent, LibraryEvent) for event in kind}
    names |= NUMBERS | WORDS
    assert {name for name in names if f"`{name}`" not in page} == set()
