"""A policy as serving uses it: immutable, in memory, no I/O."""

import sys
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct, structs

from backchannel.agents.allocation import NOTHING_KNOWN, Allocator, Decision, StrategyContext, StrategySummary, lifts
from backchannel.agents.features import Value
from backchannel.agents.recall import Memory, Recalled
from backchannel.schemas.snapshot import Section, Snapshot
from backchannel.schemas.text import normalize


class Rewriting(Struct, frozen=True):
    """What a query should have been.

    Attributes:
        target: a normalised query, or an interpretation if that is what was looked up.
        probability: that somebody who starts with the query passes through the target and succeeds there.
    """

    target: str
    probability: float


class _RewriteRow(Struct, frozen=True):
    target: str = msgspec.field(name="to")
    probability: float


_decode_rewrite = msgspec.json.Decoder(_RewriteRow).decode


class Policy:
    """One version of the policy.

    Args:
        snapshot: its header.
        sections: its rows, by learner.
        rng: where chance comes from when `allocate` is given no other.

    Attributes:
        allocator: what decides.

    Raises:
        EncodingError: the publisher encodes contexts in another way than this process would.
    """

    def __init__(self, snapshot: Snapshot, sections: Mapping[str, Section], rng: np.random.Generator) -> None:
        self.snapshot: Final = snapshot
        self.allocator: Final = Allocator(sections["bandit"])
        self._memory: Final = Memory(sections.get("memory", {}), snapshot.watermark)
        self._rewrites: Final = sections.get("rewrites", {})
        self._history: Final = sections.get("history", {})
        self._rng: Final = rng

    @property
    def version(self) -> int:
        """1, 2, 3 ..."""
        return self.snapshot.version

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that it chooses from."""
        return self.allocator.strategies

    @property
    def remembered(self) -> int:
        """How many queries the memory index knows something of."""
        return len(self._memory)

    @property
    def examined(self) -> tuple[float, ...]:
        """The probabilities that positions 1, 2 ... are looked at which the memory index was made with."""
        return self._memory.header.examined if self._memory.header else ()

    def allocate(
        self,
        context: Mapping[str, Value],
        budget: int,
        rng: np.random.Generator | None = None,
        strategy_context: StrategyContext = NOTHING_KNOWN,
    ) -> Decision:
        """Decide which strategies to ask for a query, and how many candidates from each.

        Args:
            context: of the query, see `features.context_of`.
            budget: candidates to draw in all, at least 1.
            rng: where chance comes from.
            strategy_context: strategy -> what is known of it: `history`, and whatever else is configured as features.

        Returns:
            the decision; log its fields in the `impression` event.

        Raises:
            ValueError: no budget.
        """
        decision = self.allocator.allocate(context, budget, rng or self._rng, strategy_context)
        return structs.replace(decision, policy_version=self.version)

    def utilities(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, tuple[float, float]]:
        """Return each strategy's expected reward for a query and the standard deviation that is explored."""
        means, deviations = self.allocator.utilities(context, strategy_context)
        return dict(zip(self.strategies, zip(means.tolist(), deviations.tolist(), strict=True), strict=True))

    def gains(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, list[float]]:
        """Return what each strategy's candidates are expected to gain, best rank first: for ranking their union."""
        return self.allocator.gains(context, strategy_context)

    def history(self, query: str) -> dict[str, dict[str, float]]:
        """Return how each strategy has done on `query` in particular, as a context of strategies for `allocate`.

        It is known if `strategy.history` is one of the configured features.
        """
        means = {name: mean for name, (_, mean) in self.allocator.evidence.items()}
        return lifts(self._history.get(normalize(query)), means)

    def summaries(self) -> dict[str, StrategySummary]:
        """Return what was learned of each strategy, for people."""
        return self.allocator.summaries()

    def recall(self, query: str, k: int) -> list[Recalled]:
        """Return at most `k` entities that have worked for `query`, or are predicted to, best first."""
        return self._memory.recall(query, k)

    def rewrite(self, query: str, interpretation: str | None = None) -> Rewriting | None:
        """Return what `query` should have been, or None if it had better stay as it is.

        Args:
            query: the text.
            interpretation: the NLU's, where events carry one; then the target is an interpretation too.
        """
        row = self._rewrites.get(interpretation or normalize(query))
        return None if row is None else _rewriting(row)

    def evidence(self) -> dict[str, tuple[float, float]]:
        """Return for each strategy in how many turns it was asked, as far as not faded, and their mean reward."""
        return self.allocator.evidence

    def memory(self) -> dict[str, list[Recalled]]:
        """Return the memory index whole, best entities first: for people and reports."""
        return {query: self.recall(query, sys.maxsize) for query in self._memory.queries()}

    def rewrites(self) -> dict[str, Rewriting]:
        """Return all rewrites: for people and reports."""
        return {state: _rewriting(row) for state, row in self._rewrites.items()}


def _rewriting(row: bytes) -> Rewriting:
    found = _decode_rewrite(row)
    return Rewriting(found.target, found.probability)
