"""An instance whose clock its host may hold is lent fewer units at a time (T37; docs/spec/lease.md section 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from custodian_kit import Bench

if TYPE_CHECKING:
    from pathlib import Path


def limit(bench: Bench, **terms: int) -> tuple[int, dict[str, object]]:
    lent = bench.lend(**{"allowance": 10_000, "max_ceiling": 1000, **terms})
    lent.boot().renew()
    (shown,) = lent.show()["instances"]
    return shown["limits"]["loan"], shown["clock"]


@pytest.mark.parametrize(
    ("tees", "terms", "want"),
    [
        (["simulated"], {}, 1000),
        (["simulated"], {"untrusted_ceiling": 7}, 1000),
        (["tdx"], {}, 100),
        (["tdx"], {"untrusted_ceiling": 7}, 7),
    ],
)
def test_t37_n_is_smaller_where_the_clock_is_not_trusted(
    tmp_path: Path, tees: list[str], terms: dict[str, int], want: int
) -> None:
    bench = Bench(tmp_path, settings={"clock_tees": tuple(tees)})
    try:
        units, clock = limit(bench, **terms)
        assert units == want
        trusted = "simulated" in tees
        assert clock == {"rule": "simulated" if trusted else "not_counted", "trusted": trusted}
        (released,) = [entry for entry in bench.audit() if entry["kind"] == "key_released"]
        assert released["details"]["clock"] == clock["rule"]
    finally:
        bench.close()


def test_an_untrusted_clock_stays_at_its_smaller_n_over_renewals(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings={"clock_tees": ()})
    try:
        lent = bench.lend(allowance=100, max_ceiling=50, untrusted_ceiling=3)
        toy = lent.boot()
        for served in range(1, 5):
            toy.renew()
            toy.serve(2)
            bench.clock.advance(20)
            shown = lent.show()["meters"]["loan"]
            assert shown["held"] <= 3, served
    finally:
        bench.close()
