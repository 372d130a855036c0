"""The fixed allocation that earns the most clicks."""

from itertools import islice

import numpy as np
import pytest

from backchannel.ops.lab.search.clicked import most_clicked
from backchannel.ops.lab.search.harness import Allocations, Harness
from backchannel.ops.lab.search.people import People


@pytest.mark.parametrize("distinct", [None, 12])
def test_it_earns_more_clicks_than_its_starts_and_spends_the_budget(harness: Harness, distinct: int | None) -> None:
    people = People(harness, 5)

    def clicks(allocation: Allocations) -> int:
        visits = islice(people.visits(), 150)
        return sum(len(people.clicks(own, harness.order(own.query, allocation, distinct))) for own in visits)

    starts = [harness.best_fixed(12, distinct), harness.even(12)]
    found = most_clicked(harness, people, starts, distinct, visits=150)
    assert found.sum() == 12
    assert clicks(found) >= max(map(clicks, starts))
    assert clicks(found) > clicks(harness.even(12))
    assert np.array_equal(found, most_clicked(harness, people, starts, distinct, visits=150))
