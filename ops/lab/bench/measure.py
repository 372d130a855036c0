"""What a part of the bench is given, and what it gives."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct


class Load(Struct, frozen=True):
    """How much to measure, and where.

    Attributes:
        folder: for files; it is removed in the end.
        events: for rates.
        rounds: alternated.
        say: is told what is being measured.
    """

    folder: Path
    events: int
    rounds: int
    say: Callable[[str], None]


class Measure(Struct, frozen=True):
    """A figure, and its ratio to what it is compared with."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    peer: str = ""


def alternated(actions: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Return the median seconds of each of `actions`, run in turn."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, seconds in zip(actions, taken, strict=True):
            started = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - started)
    return [median(seconds) for seconds in taken]
