"""Writes the newest schema's vector: a small custodian's database as SQL text, its checkpoint, what must be found.

Run once for each new schema, never again: ``python tests/vectors/database/generate.py``. An older file is what that
version really wrote; it is made by that version's own source, and stays.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "custodian")]

from custodian_kit import Bench  # noqa: E402 - found through the path above


def main() -> None:
    """Play a short life of a custodian and write it down."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        lent = bench.lend(allowance=100, max_ceiling=10)
        toy = lent.boot()
        toy.renew()
        toy.serve(3)
        toy.renew()
        bench.post(f"/v1/loans/{lent.id}/top-up", {"units": 7})
        bench.post("/v1/blocks", {"kind": "loan", "subject": lent.id, "reason": "unpaid"})
        shown = lent.show()["meters"]["loan"]
        bench.close()
        with contextlib.closing(sqlite3.connect(bench.home / "custodian.db")) as database:
            version = database.execute("SELECT version FROM schema_version").fetchone()[0]
            dump = "\n".join(database.iterdump()) + "\n"
            entries = database.execute("SELECT count(*) FROM audit").fetchone()[0]
        expected = {
            "checkpoint": json.loads((bench.home / "checkpoint.json").read_text()),
            "entries": entries,
            "key": bench.init.key.raw.hex(),
            "loan": lent.id,
            "meter": shown,
            "version": version,
        }
    (HERE / f"schema-{version}.sql").write_text(dump)
    (HERE / f"schema-{version}.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
