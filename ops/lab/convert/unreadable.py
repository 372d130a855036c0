"""Times that cannot be read: what has one is left out and counted, and the first is shown."""

from collections import Counter

from backchannel.ops.lab.convert import ConversionError


class Unreadable:
    """What was left out because it cannot be read."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, place: object, what: str, error: str) -> None:
        """Count what is left out.

        Args:
            place: where it is.
            what: what it is, in the plural.
            error: the value, and why it cannot be read.
        """
        self._counts[what] += 1
        if what not in self._first:
            self._first[what] = f"{place}: {error}"

    def reasons(self, *, kept: bool) -> Counter[str]:
        """Return how many were left out, by reason.

        Args:
            kept: whether anything is left.

        Raises:
            ConversionError: nothing is left, so the format or the mapping is wrong.
        """
        if self._first and not kept:
            raise ConversionError(next(iter(self._first.values())))
        return Counter({f"{what}, the first in {self._first[what]}": count for what, count in self._counts.items()})
