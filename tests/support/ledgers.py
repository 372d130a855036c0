"""Reading ledgers, to compare them."""

from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger, LedgerSums


def sqlite_url(folder: Path, name: str = "store.db") -> str:
    return f"sqlite:///{folder / name}"


def contents(url: str, config: Config, at: int | None = None) -> dict[str, Any]:
    """Return the counts, the positions, and all sums as of `at` by table and key.

    `at` is an event time in ms, by default the newest watermark.
    """
    learning = Learning(config)
    store = Store(url)
    store.create(learning.tables)
    with store.read() as connection:
        row = tables.partition
        found: dict[str, Any] = {
            "counts": {name: value for name, value in Ledger(store, learning.tables).counts().items() if value},
            "positions": {
                (source, number): (watermark, topics)
                for source, number, watermark, topics in connection.execute(
                    select(row.c.source, row.c.number, row.c.watermark, row.c.topics)
                )
            },
        }
        if at is None:
            at = max((watermark for watermark, _ in found["positions"].values()), default=0)
        reader = LedgerSums(store, connection)
        for table in learning.tables:
            sums = reader.read(table)
            found[table.name] = dict(zip(sums.keys, sums.at(max(at, 0)), strict=True))
    store.close()
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare counts and positions exactly, sums to 1e-9 relative, and the bandit's exact sums bit by bit."""
    assert one["counts"] == other["counts"]
    assert one["positions"] == other["positions"]
    for name in one.keys() - {"counts", "positions"}:
        assert one[name].keys() == other[name].keys(), name
        for key, values in one[name].items():
            if name == "bandit":
                assert (values == other[name][key]).all(), key
            else:
                np.testing.assert_allclose(values, other[name][key], rtol=1e-9, atol=1e-12, err_msg=f"{name} {key}")
