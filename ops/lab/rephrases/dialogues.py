"""Rewrites on the spoken dialogues of DSTC2, replayed in time order: learned from earlier, evaluated on later ones.

An utterance was understood if the recogniser's top interpretation is the annotated one. A rewrite says what was meant
if its meaning is the annotated one, is part of the caller's task, or is something that the caller got across later in
the dialogue. In a phone call only requests for details count as clicks, so a caller who goes on to something else
counts as understood.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct, structs

from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import state_of
from backchannel.ops.lab.convert import dstc2
from backchannel.ops.lab.rephrases.pairs import assembled, dialogues, open_log
from backchannel.ops.lab.rephrases.rewriter import Rewriter
from backchannel.ops.lab.rephrases.verdicts import Verdicts
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn

REWARDS: Final = RewardConfig(barge_in_weight=0.0, unclicked_gain=1.0)
"""Barge-in is a detector's decision in these dialogues, not a rejection."""

_PARTS: Final = 10


class _Annotated(Struct, frozen=True):
    session_id: str
    turn: int
    transcription: str
    semantics: dstc2.Acts


class _Task(Struct, frozen=True):
    session_id: str
    goal_constraints: list[tuple[str, str]]
    goal_requests: list[str]


def replay(folder: Path, config: RephraseConfig) -> dict[str, Verdicts]:
    """Rewrite each tenth of the dialogues' turns with what was learned from the earlier tenths.

    Returns:
        The verdicts with "interpretations" as states, as logged, and with "texts" only.
    """
    turns = assembled(dialogues(folder))
    meant, said = annotations(folder)
    tasks = _tasks(folder)
    texts = [
        structs.replace(
            turn,
            query=structs.replace(turn.query, interpretation=None),
            next=turn.next and structs.replace(turn.next, interpretation=None),
        )
        for turn in turns
    ]
    understood = {turn.query.query_id: turn.query.interpretation == meant[turn.query.query_id] for turn in turns}
    return {
        "interpretations": _replay(turns, config, _Truth(meant, tasks, understood, lambda state: state)),
        "texts": _replay(texts, config, _Truth(meant, tasks, understood, said.get)),
    }


def annotations(folder: Path) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Return each query's annotated meaning, and the most frequent meaning of each transcribed text."""
    meant: dict[str, str | None] = {}
    said: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    decode = msgspec.json.Decoder(_Annotated).decode
    with open_log(folder / dstc2.TURNS) as lines:
        for row in map(decode, lines):
            meaning = dstc2.interpretation(row.semantics)
            meant[f"{row.session_id}/{row.turn}"] = meaning
            said[normalize(row.transcription)][meaning] += 1
    return meant, {text: meanings.most_common(1)[0][0] for text, meanings in said.items()}


class _Truth(Struct):
    meant: Mapping[str, str | None]
    tasks: Mapping[str, frozenset[str]]
    understood: Mapping[str, bool]
    meaning: Callable[[str], str | None]


def _replay(turns: Sequence[Turn], config: RephraseConfig, truth: _Truth) -> Verdicts:
    rewriter = Rewriter(REWARDS, config)
    later: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for turn in turns:
        if truth.understood[turn.query.query_id]:
            later[turn.query.session_id].append((turn.query.ts, truth.meant[turn.query.query_id] or ""))
    cuts = [len(turns) * part // _PARTS for part in range(_PARTS + 1)]
    counts: Counter[str] = Counter()
    rewrites: dict[str, str] = {}
    for start, end in pairwise(cuts):
        rewrites = rewriter.rewrites()
        for turn in turns[start:end]:
            query = turn.query
            understood = truth.understood[query.query_id]
            counts["queries"] += 1
            counts["wrong"] += not understood
            target = rewrites.get(state_of(query))
            if target is None:
                continue
            meaning = truth.meaning(target) or ""
            right = meaning == truth.meant[query.query_id]
            if not understood and meaning:
                right |= set(meaning.split("&")) <= truth.tasks[query.session_id]
                right |= any(ts > query.ts and meaning == got for ts, got in later[query.session_id])
            counts["wins"] += right and not understood
            counts["losses"] += not right
        rewriter.learn(turns[start:end])
    return Verdicts(counts["queries"], counts["wrong"], counts["wins"], counts["losses"], len(rewrites))


def _tasks(folder: Path) -> dict[str, frozenset[str]]:
    """Return each caller's task by session: what to say and to ask, as acts."""
    decode = msgspec.json.Decoder(_Task).decode
    with open_log(folder / dstc2.DIALOGS) as lines:
        return {
            task.session_id: frozenset(
                [f"inform({slot}={value})" for slot, value in task.goal_constraints]
                + [f"request(slot={slot})" for slot in task.goal_requests]
            )
            for task in map(decode, lines)
        }
