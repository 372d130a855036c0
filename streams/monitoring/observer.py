"""What a worker tells about what it does, so that observing never tangles with doing."""

from collections.abc import Mapping, Sequence

from faust.types import TP

from backchannel.schemas.alarm import Alarm
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.pipeline.publisher import VersionStatus
from backchannel.streams.turns.partition import Partition


class Observer:
    """Hooks, each called in the worker's event loop after what it tells of. They must not raise, wait or interfere.

    Here they do nothing: a subclass overrides those that it wants.
    """

    def on_assigned(self, partitions: Mapping[int, Partition]) -> None:
        """These partitions are the worker's from now on, and no others."""

    def on_tick(self, partitions: Mapping[int, Partition], lag: Mapping[TP, int]) -> None:
        """Called about once a second, while there are partitions.

        Args:
            partitions: the worker's.
            lag: records of each topic partition that are not read yet; empty when the brokers do not answer.
        """

    def on_dead_letters(self, reasons: Sequence[str]) -> None:
        """These are why records were no valid events, field first."""

    def on_commit(self, commit: Commit, seconds: float, closed: int | None) -> None:
        """What was learned is in the ledger.

        Args:
            commit: what was committed.
            seconds: that learning and committing took.
            closed: when the first of the turns in it closed (ms since the Unix epoch); None if there are none.
        """

    def on_fenced(self) -> None:
        """A commit was refused, because another process has claimed a partition."""

    def on_publish(self, snapshot: Snapshot, started: int) -> None:
        """A version was published by this worker, which `started` to make it then (ms since the Unix epoch)."""

    def on_versions(self, status: VersionStatus) -> None:
        """These versions there are, whoever published them. Told now and then, after commits."""

    def on_alarms(self, alarms: Sequence[Alarm]) -> None:
        """Rates have changed."""


class Observers(Observer):
    """Hands on to several observers, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_assigned(self, partitions: Mapping[int, Partition]) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_assigned(partitions)

    def on_tick(self, partitions: Mapping[int, Partition], lag: Mapping[TP, int]) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_tick(partitions, lag)

    def on_dead_letters(self, reasons: Sequence[str]) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_dead_letters(reasons)

    def on_commit(self, commit: Commit, seconds: float, closed: int | None) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_commit(commit, seconds, closed)

    def on_fenced(self) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_fenced()

    def on_publish(self, snapshot: Snapshot, started: int) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_publish(snapshot, started)

    def on_versions(self, status: VersionStatus) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_versions(status)

    def on_alarms(self, alarms: Sequence[Alarm]) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_alarms(alarms)
