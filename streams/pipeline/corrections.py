"""Corrections: sums set from outside the stream, by people or other programs, whether or not workers are running."""

from collections.abc import Mapping

import numpy as np

from backchannel.agents.sums import Key, Sums, SumTable
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, Ledger, LedgerSums


def set_sums(
    store: Store,
    ledger: Ledger,
    table: SumTable,
    column: str,
    wanted: Mapping[Key, float],
    *,
    source: str,
    counter: str | None = None,
) -> int:
    """Set a column of some rows, by adding to each the difference from its current value.

    If another process sets sums under the same `source` meanwhile, this one loses its claim and fails.

    Args:
        store: the store, in which `table` has been created.
        ledger: the ledger in it.
        table: a table of plain sums without decay.
        column: the column to set.
        wanted: row key -> value. Differences are exact for values on a dyadic grid.
        source: the name under which the ledger keeps the claim, as if it were a stream; its position stays at the
            beginning.
        counter: the counter to which the number of changed rows is added; None to count nothing.

    Returns:
        the number of rows whose value changed.

    Raises:
        FencedError: another process is setting sums under the same source. Nothing was set.
    """
    claim = ledger.claim(source, 0)
    place = table.sums.index(column)
    with store.read() as connection:
        held = LedgerSums(store, connection).read(table, table.key[0][0], {key[0] for key in wanted})
    before = {key: row[place] for key, row in zip(held.keys, held.values.tolist(), strict=True)}
    added = {key: value - before.get(key, 0.0) for key, value in wanted.items() if value != before.get(key, 0.0)}
    if added:
        values = np.zeros((len(added), len(table.sums)))
        values[:, place] = list(added.values())
        counts = {counter: len(added)} if counter else {}
        delta = {table.name: Sums(table, list(added), values)}
        ledger.commit([Contribution(claim, claim.position, delta, counts)])
    return len(added)
