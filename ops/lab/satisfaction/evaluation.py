"""Satisfaction on DSTC2: the learner as it is, evaluated on callers that it has not seen.

After each dialogue its caller reported whether it was a success. That is the explicit answer, given about the last
turn, whose query has logged what happened before (`earlier`). For the figures of the first turns, the same dialogues
are cut off, and learned and predicted anew. The callers were paid and had set goals.
"""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct, structs
from scipy.stats import rankdata

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.satisfaction.evidence import slots_of, vectors
from backchannel.agents.satisfaction.learner import SatisfactionConfig, SatisfactionLearner
from backchannel.agents.satisfaction.serving import Satisfaction
from backchannel.agents.satisfaction.sessions import earlier_of
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Booleans, Floats, Integers, MemorySums
from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.rephrases.pairs import assembled, dialogues, open_log
from backchannel.schemas.events import Feedback
from backchannel.schemas.snapshot import Estimate
from backchannel.schemas.turn import Turn

OUTER_FOLDS: Final = 5
GROUPS: Final = 5
_SAMPLES: Final = 500  # of callers, for intervals


class Group(Struct, frozen=True):
    """Dialogues with similar predictions: their number, the mean prediction, and the share that succeeded."""

    dialogues: int
    predicted: float
    succeeded: float


class Quality(Struct, frozen=True):
    """How well success is predicted, on held-out callers; intervals of 95% over callers.

    Attributes:
        area: area under the ROC curve.
        own_turn: the same, from the last turn alone.
        length: the same, of minus the number of turns.
        defects: the same, of minus the mean probability that a turn was a defect.
        brier: mean squared error of the predictions.
        brier_of_mean: that of predicting the share of successes for all.
        calibration: groups of dialogues, the lowest predictions first.
    """

    area: Estimate
    own_turn: Estimate
    length: Estimate
    defects: Estimate
    brier: float
    brier_of_mean: float
    calibration: list[Group]


class Report(Struct, frozen=True):
    """The evaluation.

    Attributes:
        dialogues, callers: numbers of dialogues and of callers.
        success: the share of dialogues that succeeded.
        quality: first turns -> quality; 0: whole dialogues.
    """

    dialogues: int
    callers: int
    success: float
    quality: dict[int, Quality]


class Dialogue(NamedTuple):
    """A dialogue, its caller, and whether it succeeded."""

    turns: list[Turn]
    caller: str
    success: bool


class _Row(Struct):
    session_id: str
    caller_id: str
    success: bool


def read(folder: Path) -> list[Dialogue]:
    """Read the dialogues.

    Args:
        folder: the folder with `dialogs.jsonl.gz` and `turns.jsonl.gz`.

    Raises:
        ConversionError: a dialogue has no turns.
    """
    turns: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in assembled(dialogues(folder)):
        turns[turn.query.session_id].append(turn)
    with open_log(folder / "dialogs.jsonl.gz") as lines:
        rows = list(map(msgspec.json.Decoder(_Row).decode, lines))
    missing = [row.session_id for row in rows if row.session_id not in turns]
    if missing:
        raise ConversionError(f"dialogue {missing[0]} has no turns: use both files from the same copy")
    return [
        Dialogue(sorted(turns[row.session_id], key=lambda turn: turn.query.ts), row.caller_id, row.success)
        for row in rows
    ]


def evaluate(known: Sequence[Dialogue], first: Sequence[int], salt: str = "") -> Report:
    """Evaluate the learner.

    Args:
        known: the dialogues.
        first: numbers of first turns to predict from; 0: all turns.
        salt: changes how callers are divided into folds.
    """
    names, callers = np.unique([one.caller for one in known], return_inverse=True)
    folds = np.array([blake2b((salt + name).encode()).digest()[0] % OUTER_FOLDS for name in names])[callers]
    success = np.array([one.success for one in known])
    return Report(
        dialogues=len(known),
        callers=len(names),
        success=float(success.mean()),
        quality={
            count: _quality([one.turns[: count or None] for one in known], success, callers, folds) for count in first
        },
    )


def _quality(sessions: Sequence[Sequence[Turn]], success: Booleans, callers: Integers, folds: Integers) -> Quality:
    last = [structs.replace(turns[-1], next=None) for turns in sessions]
    informed = [
        structs.replace(turn, query=structs.replace(turn.query, earlier=earlier_of(turns[:-1], turn.query)))
        for turn, turns in zip(last, sessions, strict=True)
    ]
    judge = Judge(RewardConfig())
    defects = [
        float(judge.judge(columns_of([*turns[:-1], turn])).defects.mean())
        for turn, turns in zip(last, sessions, strict=True)
    ]
    found = _predicted(informed, success, folds)
    return Quality(
        area=_area(success, found, callers),
        own_turn=_area(success, _predicted(last, success, folds), callers),
        length=_area(success, -np.array([len(turns) for turns in sessions], dtype=float), callers),
        defects=_area(success, -np.array(defects), callers),
        brier=float(((found - success) ** 2).mean()),
        brier_of_mean=float(((success.mean() - success) ** 2).mean()),
        calibration=[
            Group(len(rows), float(found[rows].mean()), float(success[rows].mean()))
            for rows in np.array_split(np.argsort(found, kind="stable"), GROUPS)
        ],
    )


def _predicted(turns: Sequence[Turn], success: Booleans, folds: Integers) -> Floats:
    """Return the probability of success of each dialogue, from what was learned from the other folds' callers."""
    told = [_told(turn, bool(one)) for turn, one in zip(turns, success, strict=True)]
    judge, learner = Judge(RewardConfig()), SatisfactionLearner(SatisfactionConfig())
    at = max(turn.query.ts for turn in turns)
    found = np.zeros(len(turns))
    for fold in range(OUTER_FOLDS):
        rows = np.flatnonzero(folds != fold)
        delta = learner.learn(judge.judge(columns_of([told[row] for row in rows.tolist()])))
        section = learner.solve(MemorySums(delta), {name: [] for name in delta}, at)
        model = Satisfaction(live_rows(section)).model
        tested = np.flatnonzero(folds == fold)
        columns = columns_of([turns[row] for row in tested.tolist()])
        slots = slots_of(columns, judge.judge(columns).rephrased)
        found[tested] = model.probabilities(vectors(slots)) if model else success[rows].mean()
    return found


def _told(turn: Turn, success: bool) -> Turn:
    query = turn.query
    answer = Feedback(
        event_id=f"{query.query_id}/feedback",
        ts=query.ts,
        session_id=query.session_id,
        query_id=query.query_id,
        answered=success,
    )
    return structs.replace(turn, signals={**turn.signals, "feedback": (answer,)})


def _area(success: Booleans, scores: Floats, callers: Integers) -> Estimate:
    rng = np.random.default_rng(0)
    by_caller = [np.flatnonzero(callers == caller) for caller in range(int(callers.max()) + 1)]
    drawn = [
        np.concatenate([by_caller[one] for one in rng.integers(len(by_caller), size=len(by_caller))])
        for _ in range(_SAMPLES)
    ]
    areas = [area(success[rows], scores[rows]) for rows in drawn]
    low, high = np.quantile(areas, (0.025, 0.975)).tolist()
    return Estimate(area(success, scores), low, high)


def area(success: Booleans, scores: Floats) -> float:
    """Return the area under the ROC curve; 0.5 if all succeeded, or none."""
    positive, total = int(success.sum()), len(success)
    if positive in {0, total}:
        return 0.5
    return float((rankdata(scores)[success].sum() - positive * (positive + 1) / 2) / (positive * (total - positive)))
