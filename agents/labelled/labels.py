"""What people said of turns in `label` events."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.sums import GRID, Floats, Integers
from backchannel.schemas.events import Label


def labels_of(
    columns: Columns, field: Literal["failure_point", "goal"], values: Sequence[str]
) -> tuple[Integers, Floats]:
    """Return the turns with labels, rising, and the share of labellers for each value, on the grid, (turns, values).

    Args:
        columns: the turns.
        field: the field of the labels. Those without it say nothing.
        values: the values that it can have.
    """
    said: defaultdict[int, list[tuple[str, int, str]]] = defaultdict(list)
    turns, labels = columns.others(Label)
    for turn, label in zip(turns.tolist(), labels, strict=True):
        if label[field] is not None:
            said[turn].append((label["labeller"], label["labelled_at"], label[field]))
    rows = sorted(said)
    found = np.zeros((len(rows), len(values)))
    for row, turn in zip(found, rows, strict=True):
        counted = latest(said[turn])
        for value in counted:
            row[values.index(value)] += 1 / len(counted)
    return np.array(rows, dtype=np.int64), np.rint(found * GRID) / GRID


def latest(said: Iterable[tuple[str, int, str]]) -> list[str]:
    """Return what each labeller said last; of two values at the same time, the later one in the alphabet.

    So labels count the same in whatever order they arrive, and one that arrives twice counts once.

    Args:
        said: labeller, time (ms) and value of each label.
    """
    found: dict[str, tuple[int, str]] = {}
    for labeller, at, value in said:
        found[labeller] = max((at, value), found.get(labeller, (at, value)))
    return [value for _, value in found.values()]
