"""A line of the bench table."""

from msgspec import Struct


class Measure(Struct, frozen=True):
    """A figure, and its ratio to what it is compared with."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    peer: str = ""
