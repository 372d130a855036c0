"""What became of people's queries, and what their other habits say about it: the evidence on habits.

The pairs are a query and a habit of the same person, as the person's other queries tell:

- a query that fails, and the habit that the person goes on to: a win. Other habits are neither a win nor a loss;
- a query that succeeds, and a habit of another meaning: had the query not been known yet, serving the habit would have
  been a loss.

A habit is what it would be without that query. What one person's queries count for is bounded.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.rewrites.fitting import Known, calibrated
from backchannel.agents.rewrites.habits import form_of, habits_of
from backchannel.agents.rewrites.habitual import NAMES, described
from backchannel.agents.rewrites.meanings import Change, change, same_meaning
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import Habit
from backchannel.agents.sketches import unit_hash
from backchannel.agents.sums import ALL

FOLDS: Final = 5
"""Parts of the people: each is scored by a ranker of the others."""
_ONE_PERSON: Final = 10.0  # queries of one person that always count in full


class Asked(Struct):
    """What became of a text that a person said.

    Attributes:
        success: the turns in which it succeeded (decayed).
        failure: those in which it failed or was rephrased.
        following: the state of the next query -> the turns that it followed, and how many of these it rephrases.
    """

    success: float = 0.0
    failure: float = 0.0
    following: dict[str, tuple[float, float]] = {}

    def add(self, following: str, success: float, failure: float, rephrased: float) -> None:
        """Add the turns that were followed by a state; `ALL`: that were not rephrased."""
        self.success += success
        self.failure += failure
        if following != ALL:
            self.following[following] = success + failure, rephrased


class Person(Struct, frozen=True):
    """What a person asked.

    Attributes:
        name: the person's hash.
        asked: text and state -> what became of it.
    """

    name: str
    asked: Mapping[tuple[str, str], Asked]


class _Query(Struct, frozen=True):
    """A query whose meaning is known: `meant` is the state of that meaning, and `weight` how often it counts."""

    text: str
    form: str
    meant: str
    failed: bool
    weight: float
    habits: Mapping[str, Habit]


def trained(people: Sequence[Person], most: int) -> Ranker | None:
    """Return the ranker of habits that people's queries tell; None without wins or losses.

    Args:
        people: what a sample of people asked.
        most: the habits that a person has at most.
    """
    rows: list[tuple[tuple[float, ...], int, int, bool, bool, float]] = []
    number = 0
    for person in people:
        queries = list(_queries(person, most))
        share = min(1.0, _ONE_PERSON / max(sum(query.weight for query in queries), 1e-9))
        fold = int(unit_hash(person.name) * FOLDS)
        for query in queries:
            number += 1
            for target, numbers in described(query.text, query.form, query.habits):
                if change(query.text, target) != Change.OPPOSITE:
                    same = _means(query.habits[target].form or target, query.meant, query.form)
                    win, loss = query.failed and same, not (query.failed or same)
                    rows.append((tuple(numbers), number, fold, win, loss, share * query.weight))
    if not any(row[3] for row in rows) or not any(row[4] for row in rows):
        return None
    kinds = (float, int, int, float, float, float)
    arrays: list[Any] = [np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    return calibrated(Known(*arrays), NAMES)


def _queries(person: Person, most: int) -> Iterator[_Query]:
    usual = sorted((-asked.success, asked.failure, *key) for key, asked in person.asked.items())
    habits = habits_of(usual, most + 1)  # one more, as the query itself is none
    for (text, state), asked in sorted(person.asked.items()):
        form = form_of(text, state)
        others = {one: habit for one, habit in habits.items() if one != text}
        if asked.success > asked.failure:
            # It is looked up until it is known, so it counts once.
            yield _Query(text, form, state, False, 1.0, others)
            continue
        for following, (turns, rephrased) in sorted(asked.following.items()):
            # The success that followed is no habit because of that.
            before = {
                one: structs.replace(habit, success=habit.success - turns * ((habit.form or one) == following))
                for one, habit in others.items()
            }
            before = {one: habit for one, habit in before.items() if habit.success > habit.failure}
            yield _Query(text, form, following, True, min(rephrased, 1.0), before)


def _means(state: str, meant: str, form: str) -> bool:
    return state == meant or (not form and same_meaning(state, meant))
