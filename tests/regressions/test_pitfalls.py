"""Each known failure of dramatiq on Redis that can reach us: real in stock dramatiq, harmless in ours.

A worker that dies here is one that Redis hears nothing more of; tests/chaos kills real ones. What cannot reach us has
its reason in `test_not_used.py`. The same rows as a table: `python -m benchmarks.pitfalls`.
"""

from __future__ import annotations

import pytest

from regressions.rows import ROWS, Row


@pytest.mark.parametrize("row", [row for row in ROWS if row.client == "url"], ids=lambda row: row.name)
def test_it_does_not_happen_to_us(row: Row) -> None:
    assert row.seen("ours") == row.ours


@pytest.mark.stock
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is what happens there
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_happens_to_stock_dramatiq(row: Row) -> None:
    assert row.seen("stock") == row.stock
