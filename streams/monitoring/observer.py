"""Hooks into a worker, which separate observation from its work."""

from collections.abc import Mapping, Sequence

from faust.types import TP

from backchannel.schemas.alarm import Alarm
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.pipeline.commits import Commit
from backchannel.streams.pipeline.publisher import VersionStatus
from backchannel.streams.turns.partition import PartitionState


class Observer:
    """Hooks called in the worker's event loop, each after what it reports. They must not raise or block.

    By default they do nothing; subclasses override the ones they need.
    """

    def on_assigned(self, partitions: Mapping[int, PartitionState]) -> None:
        """The worker now owns these partitions and no others."""

    def on_tick(self, partitions: Mapping[int, PartitionState], lag: Mapping[TP, int]) -> None:
        """About a second has passed; called while the worker owns partitions.

        Args:
            partitions: the states of the worker's partitions, by number.
            lag: the number of unread records of each topic partition; empty if the brokers do not answer.
        """

    def on_dead_letters(self, reasons: Sequence[str]) -> None:
        """Records were invalid events, for these reasons, each of which begins with the field."""

    def on_commit(self, commit: Commit, seconds: float, closed: int | None) -> None:
        """A commit is in the ledger.

        Args:
            commit: the commit.
            seconds: duration of learning and committing, s.
            closed: when the first of its turns closed, ms since the Unix epoch; None if it has none.
        """

    def on_fenced(self) -> None:
        """A commit was refused, because another process has claimed a partition."""

    def on_publish(self, snapshot: Snapshot, started: int) -> None:
        """This worker has published a version; it `started` at that time, ms since the Unix epoch."""

    def on_versions(self, status: VersionStatus) -> None:
        """The versions in the store, by any publisher; called occasionally, after commits."""

    def on_alarms(self, alarms: Sequence[Alarm]) -> None:
        """Alarms were raised: rates have changed."""


class Observers(Observer):
    """Forwards to several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_assigned(self, partitions: Mapping[int, PartitionState]) -> None:
        """See `Observer`."""
        for one in self._observers:
            one.on_assigned(partitions)

    def on_tick(self, partitions: Mapping[int, PartitionState], lag: Mapping[TP, int]) -> None:
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
