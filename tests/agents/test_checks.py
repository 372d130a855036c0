"""The checks of the contract can fail: each finds the learner that breaks its law."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from backchannel.agents import checks
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, SumReader, Sums, SumTable


class Queries(Learner):
    """How often each query was asked; of everybody. It keeps the contract, if it publishes nothing."""

    name = "queries"
    serving = None
    table = SumTable(name="queries", key=(("query", str),), sums=("turns",))
    tables = (table,)

    def key(self, outcome: Outcome) -> str:
        return outcome.query

    def weight(self, outcome: Outcome) -> float:
        return 1.0

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        turns: Counter[str] = Counter()
        for outcome in outcomes:
            turns[self.key(outcome)] += self.weight(outcome)  # type: ignore[assignment]  # whole numbers or not
        values = np.array(list(turns.values()), dtype=float).reshape(-1, 1)
        return {self.table.name: Sums(self.table, [(key,) for key in turns], values)} if turns else {}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        return {}


class NamesUsers(Queries):
    def key(self, outcome: Outcome) -> str:
        return outcome.turn.query.user_id or ""


class Remembers(Queries):
    last = 0.0

    def weight(self, outcome: Outcome) -> float:
        self.last += 1.0
        return self.last


class Draws(Queries):
    def weight(self, outcome: Outcome) -> float:
        return float(np.random.random())


class Counts(Queries):
    """Its delta depends on how many turns came together."""

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
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
