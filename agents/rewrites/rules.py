"""The operators' decrees on rewrites: pinned and blocked targets."""

from collections import defaultdict
from typing import Final

from backchannel.agents.sums import ALL, Sums


class Rules:
    """The operators' decrees.

    Args:
        sums: all rows of the table of rules.

    Attributes:
        pins: the decreed target of each pinned state. Pins are followed to their end; a state that leads back to
            itself, or that must not be rewritten at all, is not pinned.
        blocked: the forbidden targets of each state; `ALL` stands for every target.
        states: all states that a rule has ever named.
    """

    def __init__(self, sums: Sums) -> None:
        self.pins: dict[str, str] = {}
        self.blocked: defaultdict[str, set[str]] = defaultdict(set)
        self.states: Final = {state for key in sums.keys for state in key if state}
        for (state, target), (pinned, blocked) in zip(sums.keys, sums.values.tolist(), strict=True):
            if blocked > 0:
                self.blocked[state].add(target)
            elif pinned > 0:
                self.pins[state] = max(target, self.pins.get(state, ""))  # an arbitrary but fixed choice
        for state in [state for state in self.pins if ALL in self.blocked.get(state, ())]:
            del self.pins[state]
        for state in list(self.pins):
            passed = {state}
            while (target := self.pins[state]) in self.pins and target not in passed:
                passed.add(target)
                self.pins[state] = self.pins[target]
        for state in [state for state, target in self.pins.items() if target in self.pins]:
            del self.pins[state]
        self._aims: Final = set(self.pins.values())

    def __bool__(self) -> bool:
        return bool(self.pins or self.blocked)

    def allow_source(self, state: str) -> bool:
        """Return whether the graph may rewrite `state`."""
        return state not in self.pins and state not in self._aims and ALL not in self.blocked.get(state, ())

    def allow(self, state: str, target: str) -> bool:
        """Return whether the graph may rewrite `state` to `target`."""
        return target not in self.pins and target not in self.blocked.get(state, ())
