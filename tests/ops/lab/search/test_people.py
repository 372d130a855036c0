"""People and measures."""

from itertools import islice

import numpy as np
import pytest

from backchannel.ops.lab.search.harness import Harness
from backchannel.ops.lab.search.measures import paired, ranking
from backchannel.ops.lab.search.people import ATTRACTIVE, BELOW, FOLD, NOISE, TRUST, ClickModel, People


def test_the_same_seed_gives_the_same_people(harness: Harness) -> None:
    people = [People(harness, seed) for seed in (1, 1, 2)]
    first, same, others = (list(islice(one.visits(), 50)) for one in people)
    assert first == same
    assert first != others
    assert {visit.query for visit in first} <= set(harness.train.tolist())


def test_popular_queries_are_asked_more(harness: Harness) -> None:
    asked = np.bincount([visit.query for visit in islice(People(harness, 1, zipf=1.0).visits(), 4000)])
    even = np.bincount([visit.query for visit in islice(People(harness, 1, zipf=0.0).visits(), 4000)])
    assert asked.max() > 4 * even.max()


@pytest.mark.parametrize("model", ["position", "fold", "trust", "cascade"])
def test_what_is_relevant_and_on_top_is_clicked_most(harness: Harness, model: ClickModel) -> None:
    people = People(harness, 3, model, zipf=0.0)
    clicks = np.zeros(4)
    for visit in islice(people.visits(), 6000):
        query = harness.corpus.queries[visit.query]
        good = next(harness.corpus.number[doc_id] for doc_id, grade in query.grades.items() if grade == 3.0)
        bad = next(
            place for place in range(len(harness.corpus.documents)) if people.attraction(visit.query, place) == NOISE
        )
        for at, shown in enumerate(([good, bad], [bad, good])):
            clicked = people.clicks(visit, shown)
            clicks[2 * at : 2 * at + 2] += [place in clicked for place in shown]
    top_good, second_bad, top_bad, second_good = clicks / 6000
    trusted = TRUST if model == "trust" else 0.0
    assert top_good == pytest.approx(ATTRACTIVE + trusted * (1 - ATTRACTIVE), abs=0.02 + trusted / 2)
    assert top_bad == pytest.approx(NOISE + trusted, abs=0.015)
    assert top_good > second_good > 0.2
    assert second_bad <= top_bad + 0.01


def test_below_the_fold_few_look(harness: Harness) -> None:
    queries = harness.corpus.queries
    found = np.zeros((2, 8))
    for row, model in enumerate(("position", "fold")):
        people = People(harness, 3, model, zipf=0.0)  # type: ignore[arg-type]
        for visit in islice(people.visits(), 3000):
            grades = queries[visit.query].grades
            best = harness.corpus.number[max(grades, key=lambda doc_id: grades[doc_id])]
            others = [place for place in range(9) if place != best][:7]
            for at in (0, FOLD):
                shown = [*others[:at], best, *others[at:]]
                found[row, at] += best in people.clicks(visit, shown)
    assert found[0, 0] == found[1, 0]
    assert found[1, FOLD] == pytest.approx(BELOW * found[0, FOLD], rel=0.15)


def test_condensed_ndcg_leaves_out_what_was_not_judged() -> None:
    grades = {1: 3.0, 2: 0.0, 3: 1.0}
    perfect = ranking([1, 3, 2], grades)
    assert (perfect.raw, perfect.condensed, perfect.judged) == (1.0, 1.0, 1.0)
    unjudged = ranking([8, 1, 9, 3], grades)
    assert unjudged.raw < 1.0
    assert (unjudged.condensed, unjudged.judged) == (1.0, 0.5)
    assert ranking([], grades).raw == 0.0


def test_an_interval_covers_what_differs() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 1.0, 400)
    found = paired(values, np.zeros(400))
    assert found.low < 0.1 < found.high
    assert found.value == pytest.approx(values.mean())
    assert paired(values, values).high == 0.0
