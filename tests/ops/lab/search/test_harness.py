"""The harness: its fast measures are what plain code says, and the baselines are what they claim to be."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backchannel.ops.lab.search.harness import Harness
from backchannel.ops.lab.search.union import unite

BUDGET = 12


def plainly(harness: Harness, query: int, asked: list[int], distinct: int | None) -> tuple[list[int], float]:
    lists = harness.lists_of(query)
    union = unite(lists, dict(zip(lists, asked, strict=True)), distinct)
    items = [one.item for one in union.candidates]
    relevant = {harness.corpus.number[doc_id] for doc_id in harness.corpus.relevant(harness.corpus.queries[query])}
    return items, len(relevant.intersection(items)) / max(min(len(relevant), distinct or sum(asked)), 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.data())
def test_recall_and_order_are_those_of_the_union(harness: Harness, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.integers(0, 9), min_size=len(harness.strategies), max_size=len(harness.strategies)))
    distinct = data.draw(st.none() | st.integers(1, 30))
    queries = np.arange(len(harness.corpus.queries))
    recall = harness.recall_at(np.array(asked), queries, distinct)
    for query in data.draw(st.lists(st.sampled_from(queries.tolist()), min_size=3, max_size=3)):
        items, expected = plainly(harness, query, asked, distinct)
        assert harness.order(query, np.array(asked), distinct) == items
        assert recall[query] == pytest.approx(expected)
        if distinct is None:
            assert harness.drawn_distinct(np.array(asked), np.array([query])) == [len(items)]


def test_queries_are_split_once(harness: Harness) -> None:
    both = np.concatenate([harness.train, harness.held_out])
    assert sorted(both.tolist()) == list(range(len(harness.corpus.queries)))
    assert len(harness.held_out) == round(0.3 * len(both))


@pytest.mark.parametrize("distinct", [None, BUDGET])
def test_baselines_are_in_order(harness: Harness, distinct: int | None) -> None:
    def mean(allocation: np.ndarray) -> float:
        return float(harness.recall_at(allocation, harness.train, distinct).mean())

    fixed = harness.best_fixed(BUDGET, distinct)
    assert fixed.sum() == BUDGET
    singles = [mean(harness.alone(name, BUDGET)) for name in harness.strategies]
    assert mean(fixed) >= max(*singles, mean(harness.even(BUDGET)))
    each = harness.best_each(BUDGET, harness.train, distinct)
    assert (each.sum(axis=1) == BUDGET).all()
    assert (each >= 0).all()
    assert mean(each) >= mean(fixed)
    assert (harness.recall_at(each, harness.train, distinct) >= harness.recall_at(fixed, harness.train, distinct)).all()


def test_strategies_can_be_selected_doubled_swapped_and_added(harness: Harness) -> None:
    query = 3
    twins = harness.selected(["lexical", "trigrams", "lexical"])
    assert twins.strategies == ("lexical", "trigrams", "lexical_2")
    assert twins.lists_of(query)["lexical_2"] == harness.lists_of(query)["lexical"]
    assert twins.recall_at(np.array([5, 0, 5]), twins.train) == pytest.approx(
        twins.recall_at(np.array([5, 0, 0]), twins.train)
        * np.minimum(twins.relevant, 5)[twins.train]
        / np.minimum(twins.relevant, 10)[twins.train]
    )
    swapped = harness.swapped("lexical", "popular")
    assert swapped.lists_of(query)["popular"] == harness.lists_of(query)["lexical"]
    more = harness.with_strategy("memory", {query: [7, 1]})
    assert more.strategies[-1] == "memory"
    assert more.lists_of(query)["memory"] == [7, 1]
    assert more.lists_of(query + 1)["memory"] == []


def test_hidden_documents_are_found_by_nobody(harness: Harness) -> None:
    query = 3
    before = harness.lists_of(query)["lexical"]
    hidden = np.zeros(len(harness.corpus.documents), bool)
    hidden[before[:2]] = True
    after = harness.without(hidden)
    assert after.lists_of(query)["lexical"] == before[2:]
    assert not set(after.fused(query)) & set(before[:2])


def test_the_fusion_of_one_list_is_that_list(harness: Harness) -> None:
    alone = harness.selected(["lexical"])
    assert alone.fused(3) == alone.lists_of(3)["lexical"]
