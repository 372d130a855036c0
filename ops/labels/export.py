"""Labels of turns, from event files and what was learned. The files are read twice: first to compare and to count."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from backchannel.ops.labels.facts import Facts, Observer
from backchannel.ops.labels.learned import FIELDS, Goals, Learned, learned
from backchannel.ops.labels.precision import Precision
from backchannel.ops.labels.privacy import Ids, Shared
from backchannel.ops.labels.reading import Losses, closed_turns
from backchannel.ops.progress import Progress
from backchannel.streams.config import Config


class Export:
    """Exports labels.

    Args:
        paths: paths of event files in time order; not pipes, as they are read twice.
        config: the configuration of turns, events and rewards.
        observer: finds the facts of turns.
        precision: decides what is sure enough; without comparisons so far.

    Attributes:
        turns: number of turns read.
        written: number of turns of which something was written.
        rare: number of turns left out because too few users asked the same.
        told: (field, provenance) -> number of times that it was written.
        losses: events that are in no turn.
    """

    def __init__(self, paths: Sequence[str], config: Config, observer: Observer, precision: Precision) -> None:
        self._paths: Final = paths
        self._config: Final = config
        self._observer: Final = observer
        self._precision: Final = precision
        self.turns = self.written = self.rare = 0
        self.told: Final[Counter[tuple[str, str]]] = Counter()
        self.losses: Final = Losses()

    def lines(self, shared: Shared, ids: Ids | None, progress: Progress) -> Iterator[Learned]:
        """Yield what may be exported of each turn of which anything may.

        Args:
            shared: decides what is common; without people so far.
            ids: hashes ids; None: they stay.
            progress: called on the way, with the share of the files that was read.

        Raises:
            SourceError: a file cannot be read, or is empty.
            TooManyOpenError: more turns are open than the configuration allows.
        """
        for goal in self._goals(Losses(), lambda share: progress("comparing", share), held_out=True):
            self._precision.check(goal)
            shared.add(goal)
        for goal in self._goals(self.losses, lambda share: progress("writing", share), held_out=False):
            self.turns += len(goal)
            for one in learned(goal):
                common = shared.common(self._precision.passing(one))
                if common is None:
                    self.rare += 1
                    continue
                told = [(name, own.provenance) for name in FIELDS if (own := getattr(common, name)) is not None]
                if told:
                    self.told.update(told)
                    self.written += 1
                    yield ids.hashed(common) if ids else common

    def _goals(self, losses: Losses, progress: Callable[[float], None], *, held_out: bool) -> Iterator[list[Facts]]:
        """Yield the facts of each goal's turns; see `closed_turns` and `Observer.facts`."""
        goals = Goals()
        for turns in closed_turns(self._paths, self._config, losses, progress):
            for facts in self._observer.facts(turns, held_out=held_out):
                yield from goals.add(facts)
        yield from goals.finish()
