"""The input and the output of a part of the bench."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct


class Load(Struct, frozen=True):
    """How much to measure, and where to put files.

    Attributes:
        folder: a folder for files, removed after the run.
        events: the number of events for the rates.
        rounds: the number of alternating rounds.
        say: a callback that reports what is being measured.
    """

    folder: Path
    events: int
    rounds: int
    say: Callable[[str], None]


class Measure(Struct, frozen=True):
    """A figure, and its ratio to that of `peer`, if it is compared."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    peer: str = ""


def alternated(actions: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Run `actions` alternately for `rounds` rounds; return the median seconds of each."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, seconds in zip(actions, taken, strict=True):
            started = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - started)
    return [median(seconds) for seconds in taken]
