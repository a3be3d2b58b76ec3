"""Many questions on the command line: what is printed and kept, also of a run that was stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from client_town import Reply, Town, scan

from cloister.cli.infer_batch import Batch, infer_batch
from cloister.cli.infer_files import read_batch
from cloister.cli.rate import Rate
from cloister.cli.terminal import Terminal
from cloister.client import Retry
from cloister.client.receipts import VerifiedReceipt
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace
    from typing import Any


def rows(folder: Path, count: int) -> Path:
    path = folder / "rows.npy"
    np.save(path, np.concatenate([scan(number) for number in range(count)]))
    return path


def batch(source: Path, **changes: Any) -> Batch:
    plain = {"model": "digits", "rows": 4, "concurrency": 1, "wait": None, "out": None, "receipts": None}
    return Batch(**{"source": source, "force": False, **plain, **changes})


def ask(wanted: Batch, *, as_json: bool = True, allowance: int = 100) -> int:
    town = Town()
    town.enclave.allowance = allowance
    return infer_batch(Terminal(as_json=as_json), town.client, wanted, lambda value: value)  # type: ignore[return-value, arg-type]


def test_every_row_has_its_answer_and_every_answer_its_receipt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "receipts"
    assert ask(batch(rows(tmp_path, 10), receipts=kept)) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["outputs"]["label"] == list(range(10))
    assert shown["labels"]["label"][3] == "3"
    assert (shown["rows"], shown["total"], shown["units"], shown["remaining"]) == (10, 10, 10, 90)
    found = [VerifiedReceipt.parse(path.read_bytes().strip()) for path in sorted(kept.iterdir())]
    assert [item.receipt.index for item in found] == shown["receipts"] == [1, 2, 3]
    assert kept.stat().st_mode & 0o777 == 0o700


def test_what_was_answered_before_a_refusal_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, kept = tmp_path / "out.npy", tmp_path / "receipts"
    assert ask(batch(rows(tmp_path, 20), out=out, receipts=kept), allowance=10) == 4
    shown = json.loads(capsys.readouterr().out)
    assert (shown["rows"], shown["total"], shown["error"]["code"]) == (8, 20, "allowance_exhausted")
    assert np.load(out).tolist() == list(range(8))
    assert len(list(kept.iterdir())) == 2


def test_people_are_told_how_far_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(batch(rows(tmp_path, 6)), as_json=False) == 0
    assert "6 of 6 rows answered in 2 requests, 6 units used" in capsys.readouterr().out
    with pytest.raises(Rejected, match="allowance_exhausted"):
        ask(batch(rows(tmp_path, 6)), as_json=False, allowance=5)
    assert "4 of 6 rows answered in 1 requests" in capsys.readouterr().out


def test_people_are_told_why_a_question_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    town = Town()
    lost = [False, True]  # taken from the end: the model is described, then the answer is cut

    def cut(reply: Reply) -> Reply:
        if reply.kind == "message/ohttp-chunked-res" and not lost.pop():
            lost.extend((True,) * 9)
            return replace(reply, parts=[part[:-20] for part in reply.parts if isinstance(part, bytes)])
        return reply

    town.reply_change = cut
    connect = partial(town.client, retry=Retry())
    assert infer_batch(Terminal(as_json=False), connect, batch(rows(tmp_path, 4)), lambda _: None) == 0
    said = capsys.readouterr().err
    assert "truncated" in said
    assert "(2 of 4)" in said
    assert town.enclave.allowance == 6


def test_a_folder_has_a_question_in_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in (3, 1, 2):
        np.save(folder / f"{number}.npy", scan(number))
    (folder / ".hidden").write_bytes(b"no question")
    assert ask(batch(folder)) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["label"] == [1, 2, 3]


def test_what_is_no_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(b"")
    for source in (tmp_path / "empty", tmp_path / "picture.png", tmp_path / "missing.npy"):
        with pytest.raises(UsageError):
            read_batch(source)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(UsageError):
        ask(batch(rows(tmp_path, 1), receipts=blocked / "receipts"))


def test_the_rate_is_told_once_there_is_one() -> None:
    from types import SimpleNamespace as Told  # noqa: PLC0415 - what a bar tells its columns

    def shown(speed: float | None) -> str:
        told: SimpleNamespace = Told(speed=speed)
        return Rate("rows").render(told).plain  # type: ignore[arg-type]

    assert (shown(None), shown(1234.5)) == ("rows", "1,234.5 rows/s")
