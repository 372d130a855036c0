"""Labelled turns of DSTC2.

Labels are those of `failure_points/dstc2_labels.jsonl.gz`, made by rules from transcripts: "no_speech" stands for a
false wake, and its few entity errors count as understanding.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct, structs

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.evidence import evidence, vectors
from backchannel.agents.failures.quality import Answers
from backchannel.agents.satisfaction.sessions import earlier_of_each
from backchannel.agents.sums import Floats, Integers
from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.rephrases.pairs import assembled, dialogues, open_log
from backchannel.schemas.events import FailurePoint, Label
from backchannel.schemas.turn import Turn

NAMES: Final[dict[str, FailurePoint]] = {
    "correct": "correct",
    "no_speech": "false_wake",
    "asr": "recognition",
    "nlu": "understanding",
    "er": "understanding",
    "result": "result",
}
"""A label of the data -> the failure point."""

POINTS: Final = ("correct", "false_wake", "recognition", "understanding", "result")
OUTER_FOLDS: Final = 5


class _Row(Struct):
    session_id: str
    turn: int
    label: str


class Data(NamedTuple):
    """Labelled turns.

    Attributes:
        turns: the turns, each with its label as a signal.
        vectors: their evidence, (turns, width).
        truth: index of each turn's failure point in POINTS, (turns,).
        callers: number of each turn's caller, (turns,).
        folds: fold of each turn's caller, (turns,).
        systems: dialogue manager and acoustic condition of each turn.
    """

    turns: list[Turn]
    vectors: Floats
    truth: Integers
    callers: Integers
    folds: Integers
    systems: list[str]

    @property
    def answers(self) -> Answers:
        """What is right; a person is a caller."""
        return Answers(self.truth, np.ones(len(self.truth)), self.callers)


def read(folder: Path, salt: str = "") -> Data:
    """Read the labelled turns.

    Args:
        folder: the folder with `dstc2` and `failure_points`.
        salt: changes the division of the callers into folds.

    Raises:
        ConversionError: a turn has no label, or an unknown one.
    """
    with open_log(folder / "failure_points" / "dstc2_labels.jsonl.gz") as lines:
        rows = list(map(msgspec.json.Decoder(_Row).decode, lines))
    labels = {f"{row.session_id}/{row.turn}": row.label for row in rows}
    turns, truth = [], []
    for turn in _informed(assembled(dialogues(folder / "dstc2"))):
        point = NAMES.get(labels.get(turn.query.query_id, ""))
        if point is None:
            raise ConversionError(
                f"dstc2_labels.jsonl.gz: turn {turn.query.query_id} has no label, or an unknown one: use the labels "
                "and the dialogues of the same copy"
            )
        truth.append(POINTS.index(point))
        turns.append(_labelled(turn, point))
    names = [turn.query.user_id or "" for turn in turns]
    _, callers = np.unique(names, return_inverse=True)
    found = evidence(columns_of(turns))
    return Data(
        turns,
        vectors((one.values() for one in found), len(turns)),
        np.array(truth),
        callers,
        np.array([blake2b((salt + name).encode()).digest()[0] % OUTER_FOLDS for name in names]),
        [f"{turn.query.context['dialog_manager']}/{turn.query.context['acoustic_condition']}" for turn in turns],
    )


def _informed(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Yield turns, session by session, whose queries say what happened in their session before."""
    sessions = defaultdict[str, list[Turn]](list)
    for turn in sorted(turns, key=lambda one: one.query.ts):
        sessions[turn.query.session_id].append(turn)
    for some in sessions.values():
        for turn, earlier in zip(some, earlier_of_each(some), strict=True):
            yield structs.replace(turn, query=structs.replace(turn.query, earlier=earlier))


def _labelled(turn: Turn, point: FailurePoint) -> Turn:
    query = turn.query
    label = Label(
        event_id=f"{query.query_id}/label",
        ts=query.ts,
        session_id=query.session_id,
        query_id=query.query_id,
        labeller="rules",
        labelled_at=query.ts,
        failure_point=point,
    )
    return structs.replace(turn, signals={**turn.signals, "label": (label,)})
