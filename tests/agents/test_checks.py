"""The checks of the contract can fail: each finds the learner that breaks its law."""

from collections import Counter

import numpy as np
import pytest

from backchannel.agents import checks
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Delta, SumReader, Sums, SumTable


class Queries(Learner):
    """How often each query was asked; of everybody. It keeps the contract, if it publishes nothing."""

    name = "queries"
    serving = None
    table = SumTable(name="queries", key=(("query", str),), sums=("turns",))
    tables = (table,)

    def key(self, outcomes: Outcomes, row: int) -> str:
        return str(outcomes.keys[outcomes.query[row]])

    def weight(self) -> float:
        return 1.0

    def learn(self, outcomes: Outcomes) -> Delta:
        turns: Counter[str] = Counter()
        for row in range(len(outcomes)):
            turns[self.key(outcomes, row)] += self.weight()  # type: ignore[assignment]  # whole numbers or not
        values = np.array(list(turns.values()), dtype=float).reshape(-1, 1)
        return {self.table.name: Sums(self.table, [(key,) for key in turns], values)} if turns else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        return {}


class NamesUsers(Queries):
    def key(self, outcomes: Outcomes, row: int) -> str:
        user: str | None = outcomes.columns.query(row).user_id
        return user or ""


class Remembers(Queries):
    last = 0.0

    def weight(self) -> float:
        self.last += 1.0
        return self.last


class Draws(Queries):
    def weight(self) -> float:
        return float(np.random.random())


class Counts(Queries):
    """Its delta depends on how many turns came together."""

    def learn(self, outcomes: Outcomes) -> Delta:
        delta = super().learn(outcomes)
        return {name: Sums(sums.table, sums.keys, sums.values * len(outcomes)) for name, sums in delta.items()}


class Unserved(Queries):
    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        return {"now": b"1"}


class WithoutDecay(Queries):
    """Its table decays, and it adds turns as if all of them were of now."""

    table = SumTable(name="queries", key=(("query", str),), sums=("turns",), half_life_ms=86_400_000_000)
    tables = (table,)


def test_a_learner_that_keeps_the_contract_passes() -> None:
    checks.check(Queries(), rounds=3)


@pytest.mark.parametrize(
    ("learner", "law"),
    [
        (NamesUsers(), "check_users"),
        (Remembers(), "check_split_and_order"),
        (Draws(), "check_purity"),
        (Counts(), "check_split_and_order"),
        (Unserved(), "check_section"),
        (WithoutDecay(), "check_decay"),
    ],
)
def test_a_broken_law_is_found(learner: Learner, law: str) -> None:
    rng = np.random.default_rng(0)
    check: checks.Check = getattr(checks, law)
    with pytest.raises(AssertionError, match=r"\w+ \w+"):
        check(learner, checks.random_turns(rng, 40), rng)
