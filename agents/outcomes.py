"""What a closed turn says of the answer: the one place where clicks, barge-ins and rephrases are weighed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Annotated, Final, TypeAlias

import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from backchannel.agents.rewrites.detector import RephraseDetector
from backchannel.agents.sums import Integers
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn

Share = Annotated[float, Meta(ge=0, le=1)]

Credit: TypeAlias = tuple[float, int, int]
"""Of a strategy for a click: its reward, in [0, 1], and the rank and the position of what was clicked."""


class RewardConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What feedback is worth."""

    click_gain: Annotated[dict[str, Share], Meta(description="kind of click -> its worth; other kinds are worth 1")] = (
        field(default_factory=lambda: {"click": 1.0})
    )
    dwell_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="dwell time at which a click has its full worth; a shorter dwell time gives a "
            "proportional share. Clicks without a dwell time have their full worth; 0: dwell "
            "times are ignored",
        ),
    ] = 0.0
    unclicked_gain: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="success of a query without a click, if the session continues with a query that does "
            "not rephrase it. Where nobody clicks, as with most voice assistants, rewrites are "
            "learned only if this is above 0",
        ),
    ] = 0.0
    barge_in_weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of the gain that a barge-in takes back. In real dialogue logs barge-ins depend"
            " on the system and are not always rejections: raise this if they are in yours",
        ),
    ] = 0.5
    rephrase_weight: Annotated[float, Meta(ge=0, le=1, description="share of the gain that a rephrase takes back")] = (
        1.0
    )
    rephrase_gap_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="longest time between a query and its rephrase"),
    ] = 60.0


_rewrite = attrgetter("rewrite")


class Outcome(Struct, frozen=True, gc=False):
    """A turn, judged.

    Attributes:
        turn: what is judged.
        query: the normalised query that the results were for: the rewrite, if one was served.
        gains: entity -> gain in [0, 1] of its best click, less what a barge-in and a rephrase took back.
        success: the best of the gains; without a click, what going on to something else is worth.
        rephrased: the probability, 0 to 1, that the session's next query rephrases this one.
        rewritten: the target of the rewrite that was served; None without one.
        asked: strategy -> candidates that it drew.
        credited: the credit of each strategy that produced something that was clicked.
        unrephrased: the success before a rephrase took its share back.
    """

    turn: Turn
    query: str
    gains: dict[str, float]
    success: float
    rephrased: float
    rewritten: str | None
    asked: dict[str, int] = {}
    credited: dict[str, Credit] = {}
    unrephrased: float = 0.0


class Asked(Struct, frozen=True):
    """The strategies that were asked in some turns, turn by turn, as columns.

    Attributes:
        rows: place of the turn among the turns, (asked,).
        codes: of the strategy, (asked,).
        drawn: candidates, (asked,).
        credited: places among these of those that are credited with something, (credited,).
        rewards: of those, (credited,); see `Credit`.
        ranks: likewise.
        positions: likewise.
    """

    rows: Integers
    codes: Integers
    drawn: Integers
    credited: Integers
    rewards: NDArray[np.float64]
    ranks: Integers
    positions: Integers


def asked_in(outcomes: Sequence[Outcome], codes: Mapping[str, int]) -> Asked:
    """Return the strategies that were asked and have a code.

    Args:
        outcomes: of turns.
        codes: strategy -> its code, 0 and up.
    """
    asked = [outcome.asked for outcome in outcomes]
    coded = np.array([codes.get(name, -1) for own in asked for name in own], dtype=np.int64)
    drawn = np.array([count for own in asked for count in own.values()], dtype=np.int64)
    lengths = np.array([len(own) for own in asked], dtype=np.int64)
    rows = np.repeat(np.arange(len(asked)), lengths)
    credited = [
        (first + place, *credit)
        for first, outcome in zip((lengths.cumsum() - lengths).tolist(), outcomes, strict=True)
        if outcome.credited
        for place, name in enumerate(outcome.asked)
        if (credit := outcome.credited.get(name)) and name in codes
    ]
    place, reward, rank, position = np.array(credited, dtype=float).reshape(-1, 4).T
    known = coded >= 0
    at = (known.cumsum() - 1)[place.astype(np.int64)]
    return Asked(rows[known], coded[known], drawn[known], at, reward, rank.astype(np.int64), position.astype(np.int64))


class Judge:
    """Judges turns. Pure: an outcome depends on its turn only."""

    def __init__(self, config: RewardConfig) -> None:
        self.config: Final = config
        self._gap_ms: Final = config.rephrase_gap_s * 1000
        self._dwell_ms: Final = config.dwell_s * 1000
        self._detector: Final = RephraseDetector()

    def judge(self, turns: Sequence[Turn]) -> list[Outcome]:
        """Return the outcome of each of `turns`."""
        rephrased = [0.0] * len(turns)
        places = [place for place, turn in enumerate(turns) if self._may_be_rephrased(turn)]
        for place, probability in zip(
            places, self._detector.probabilities([turns[place] for place in places]), strict=True
        ):
            rephrased[place] = probability
        return list(map(self._judge, turns, rephrased))

    def _may_be_rephrased(self, turn: Turn) -> bool:
        """Whether a query followed soon, and something was recognised both times: else nothing is said again."""
        following = turn.next
        return (
            following is not None
            and following.ts - turn.query.ts <= self._gap_ms
            and bool(normalize(turn.query.text))
            and bool(normalize(following.text))
        )

    def _judge(self, turn: Turn, rephrased: float) -> Outcome:
        rewrite = next(filter(None, map(_rewrite, turn.impressions)), None)
        query = normalize(rewrite.target if rewrite else turn.query.text)
        rewritten = None
        if rewrite:
            rewritten = rewrite.target if turn.query.interpretation else query
        config = self.config
        kept = 1.0 - config.barge_in_weight if turn.barge_ins else 1.0
        taken_back = config.rephrase_weight * rephrased
        if not turn.clicks:
            unrephrased = kept * config.unclicked_gain if turn.next else 0.0
            success = unrephrased * (1.0 - taken_back)
            return Outcome(turn, query, {}, success, rephrased, rewritten, _asked(turn), unrephrased=unrephrased)
        gains: dict[str, float] = {}
        for click in turn.clicks:
            gain = kept * config.click_gain.get(click.kind, 1.0)
            if click.dwell_ms is not None and click.dwell_ms < self._dwell_ms:
                gain *= click.dwell_ms / self._dwell_ms
            gains[click.entity_id] = max(gains.get(click.entity_id, 0.0), gain)
        unrephrased = max(gains.values())
        if taken_back:
            gains = {entity: gain * (1.0 - taken_back) for entity, gain in gains.items()}
        credited = _credits(turn, gains)
        return Outcome(
            turn, query, gains, max(gains.values()), rephrased, rewritten, _asked(turn), credited, unrephrased
        )


def _asked(turn: Turn) -> dict[str, int]:
    """Return how many candidates each strategy that took part in a turn drew.

    They are those of the allocation or, where none is logged, those among the results.
    """
    if len(turn.impressions) == 1 and 0 not in (allocation := turn.impressions[0].allocation).values() and allocation:
        return allocation  # as is usual
    drawn: dict[str, int] = {}
    for impression in turn.impressions:
        for name, count in impression.allocation.items():
            if count > drawn.get(name, 0):
                drawn[name] = count
    if not drawn:
        for impression in turn.impressions:
            for name, count in Counter(chain.from_iterable(one.strategies for one in impression.results)).items():
                drawn[name] = max(count, drawn.get(name, 0))
    return drawn


def _credits(turn: Turn, gains: Mapping[str, float]) -> dict[str, Credit]:
    """Return the credit of each strategy that produced something that was clicked.

    The rank, from 1, counts the results of the strategy alone, in the order of their positions. Of several clicks that
    of most gain counts, then that of the better rank.
    """
    credited: dict[str, Credit] = {}
    for impression in turn.impressions:
        placed: dict[str, int] = {}
        results = sorted(impression.results, key=attrgetter("position"))
        chosen = [place for place, result in enumerate(results) if result.entity_id in gains]
        for result in results[: chosen[-1] + 1] if chosen else ():
            for strategy in result.strategies:
                placed[strategy] = placed.get(strategy, 0) + 1
            gain = gains.get(result.entity_id)
            if gain is not None:
                for strategy in result.strategies:
                    best, rank, _ = credited.get(strategy, (-1.0, 0, 0))
                    if gain > best or (gain == best and placed[strategy] < rank):
                        credited[strategy] = gain, placed[strategy], result.position
    return credited
