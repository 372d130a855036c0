"""Evidence on habits: what people who are told by other people's habits are served.

*Made-up users.* As in `online`, with SLURP's recordings, but a query has the interpretation that the NLU gave it, and
what is tried are the habits of who asks; see `recordings.People`. The ranker is fitted to users of the same kind who
said other sentences, as it is when a version is published: those who were misunderstood say it again until they are
understood, so they tell what they meant, and those who were understood tell what they did not mean.

*Callers of DSTC2*, who are real, with what succeeded in their earlier calls: everything is learned as it is when
a version is published, from what the callers of the other folds did, without labels. Callers who go on to something
else are content.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.random import Generator
from rapidfuzz import fuzz, process

from backchannel.agents.checks import changes
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.learner import Learner
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.fitting import calibrated, scores_of
from backchannel.agents.rewrites.habit_ranking import SIZE, HabitRanking
from backchannel.agents.rewrites.habits import Habits
from backchannel.agents.rewrites.habitual import NAMES, described
from backchannel.agents.rewrites.likeness import Record
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.online import OnlineRewrites, surely_better
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import Habit, RewriteRow, Settings, Usual
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import ALL, Booleans, MemorySums
from backchannel.ops.lab.rephrases.dialogues import annotations
from backchannel.ops.lab.rephrases.online import FIXED, FOLDS, Evidence, Gathered, Gathering, judge_by
from backchannel.ops.lab.rephrases.pairs import assembled, dialogues
from backchannel.ops.lab.rephrases.ranker import Pairs
from backchannel.ops.lab.rephrases.recordings import HABITUAL, Heard, People, halves, records_by
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn

_REWARDS: Final = RewardConfig(unclicked_gain=0.5, barge_in_weight=0.0)
_HABITS: Final = 50  # of a caller
_OFTEN: Final = 1_000_000_000  # exposures of a rewrite without a record: none is withdrawn here


def gather_habits(
    found: Sequence[Heard], rng: Generator, habitual: float = HABITUAL, *, alike: bool = True
) -> tuple[Gathered, Booleans]:
    """Return the pairs of all queries with habits of those who ask, and whether a ranker may be fitted to each.

    The people are drawn with `rng`; see `recordings.People`.
    """
    gathering, known = Gathering(NAMES), []
    for half in (0, 1):
        index, asked = halves(found, half)
        people = People(index, rng, habitual, alike=alike)
        meanings = {one.query: one for one in index if one.right}
        indexed = {one.meant for one in index if one.right}
        forms = records_by(index, lambda one: one.form)
        for one in asked:
            gathering.ask(one, half, indexed=one.meant in indexed)
            own = people.habits(one)
            if one.query in own:  # it is not rewritten to another habit
                continue
            habits = {text: Habit(own[text].success, own[text].failure, meanings[text].form) for text in own}
            nearest = process.extractOne(one.query, list(habits), scorer=fuzz.ratio)[0] if habits else ""
            record = _row(forms.get(one.form, Record()))
            for target, numbers in described(one.query, one.form, habits):
                row = _row(forms[habits[target].form])
                opposite = change(one.query, target) == Change.OPPOSITE
                allowed = not opposite and row.success > row.failure and not surely_better(record, row)
                known.append(not opposite)
                meaning = meanings[target].meant
                gathering.pair(target, meaning, numbers, allowed=allowed, first=target == nearest)
    return gathering.gathered(), np.array(known)


def judge_habits(found: Gathered, known: Booleans, odds: float) -> Evidence:
    """Compare the ways of rewriting to habits, each query being tested by a ranker that knows nothing of its sentence.

    Args:
        found: the pairs.
        known: whether a ranker may be fitted to each, (pairs,).
        odds: wins per loss, at least.
    """
    return judge_by(found, known, _train, scores_of, odds)


def _train(pairs: Pairs, rows: Booleans) -> Ranker:
    """Return a ranker fitted to as many queries as are sampled."""
    queries = np.unique(pairs.query[rows])
    sampled = np.random.default_rng(0).permutation(queries)[:SIZE]
    return calibrated(pairs.of(rows & np.isin(pairs.query, sampled)), NAMES)


def _row(record: Record) -> RewriteRow:
    return RewriteRow(success=record.success, failure=record.failure)


class Called(Struct, frozen=True):
    """What callers with habits were served.

    Attributes:
        queries: the number of queries of callers with habits.
        defects: those of them that the NLU got wrong.
        learned: in how many of the folds a ranker of habits was published.
        ranked: wins and losses of what was served.
        similar: the same if the nearest habit was served where RapidFuzz's ratio is at least `online.FIXED`.
    """

    queries: int
    defects: int
    learned: int
    ranked: tuple[int, int]
    similar: tuple[int, int]


def judge_callers(folder: Path, odds: float) -> Called:
    """Serve the callers of DSTC2 what succeeded in their earlier calls, as the other callers' calls suggest."""
    config = RephraseConfig(online_odds=odds, habits=_HABITS)
    settings = {ALL: msgspec.json.encode(Settings(odds=odds, first=_OFTEN))}
    turns = sorted(assembled(dialogues(folder)), key=lambda one: one.query.ts)
    meant, _ = annotations(folder)
    folds = [int(unit_hash(one.query.user_id or "") * FOLDS) for one in turns]
    counts = defaultdict[str, int](int)
    for fold in range(FOLDS):
        others = [one for one, its in zip(turns, folds, strict=True) if its != fold]
        published = _section(HabitRanking(config), others).get(ALL)
        ranker = msgspec.json.decode(published, type=Ranker) if published else None
        counts["learned"] += ranker is not None
        online = OnlineRewrites(rows=settings)
        for turn, habits in _with_habits([one for one, its in zip(turns, folds, strict=True) if its == fold], config):
            query, form = turn.query, turn.query.interpretation or ""
            text = normalize(query.text)
            right = form == meant[query.query_id]
            counts["queries"] += 1
            counts["defects"] += not right
            found = online.rewrite(text, None, Usual(habits, ranker), form=form) if ranker else None
            near = process.extractOne(text, list(habits), scorer=fuzz.ratio, score_cutoff=FIXED)
            targets = {"ranked": found and found.target, "similar": near and habits[near[0]].form}
            for way, target in targets.items():
                if target and text not in habits and (good := target == meant[query.query_id]) != right:
                    counts[f"{way} {'win' if good else 'loss'}"] += 1
    ways = [(counts[f"{way} win"], counts[f"{way} loss"]) for way in ("ranked", "similar")]
    return Called(counts["queries"], counts["defects"], counts["learned"], *ways)


def _with_habits(turns: Sequence[Turn], config: RephraseConfig) -> Iterator[tuple[Turn, dict[str, Habit]]]:
    """Yield the turns of callers in which something was heard, with the habits from their earlier calls, if any."""
    calls = defaultdict[str, list[list[Turn]]](list)
    by_call = sorted(turns, key=lambda one: (one.query.user_id or "", one.query.session_id, one.query.ts))
    for (caller, _), call in groupby(by_call, lambda one: (one.query.user_id or "", one.query.session_id)):
        calls[caller].append(list(call))
    for caller, own in calls.items():
        before: list[Turn] = []
        for said in sorted(own, key=lambda some: some[0].query.ts):
            row = _section(Habits(config), before).get(caller) if before else None
            if row:
                habits = msgspec.json.decode(row, type=dict[str, Habit])
                yield from ((turn, habits) for turn in said if normalize(turn.query.text))
            before = [*before, *said]


def _section(learner: Learner, turns: Sequence[Turn]) -> dict[str, bytes | None]:
    delta = learner.learn(Judge(_REWARDS).judge(columns_of(turns)))
    return learner.solve(MemorySums(delta), changes(delta), max(one.query.ts for one in turns))
