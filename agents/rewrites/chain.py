"""An absorbing Markov chain of rephrases, solved for many states at once.

Its transient states are queries; it is absorbed in success or failure. With Q the transition probabilities between
transient states, the fundamental matrix N = (I - Q)^-1 holds the expected numbers of visits, and a walk from i passes
through j with probability N[i, j] / N[j, j] (Kemeny & Snell, "Finite Markov chains", 1960, theorem 3.2.4).

Each state is solved on a subgraph of its own, bounded in depth and size, so that its solution does not depend on the
other states solved with it. The subgraphs form one block-diagonal system, which is factored once, sparsely.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from math import log
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.statistics import wilson
from backchannel.agents.sums import Floats, Integers

Admissible: TypeAlias = Callable[[Integers, Integers], NDArray[np.bool_]]
"""Indexes of sources, (n,), and of states, (n,) -> whether each state may be the target of its source, (n,)."""
State = TypeVar("State", str, tuple[str, str])

_BATCH: Final = 1000  # states solved together, enough to amortise NumPy's overhead
_STAYS: Final = 1 - 1e-9  # keeps a cycle that is never left from being singular


class Solution(Struct, frozen=True):
    """The best target of each source.

    Attributes:
        targets: the numbers of the target states, (sources,); -1 where none is admissible.
        probabilities: the probabilities that a walk from the source passes through the target and succeeds there,
            (sources,), 0 to 1.
    """

    targets: Integers
    probabilities: Floats


class Chain(Generic[State]):
    """Part of the chain.

    Args:
        states: the states, in ascending order; a state's place is its number.
        steps: the numbers of the state and the following state of each step, (steps, 2); each pair once.
        weights: the weights of the steps, in turns, (steps,), above 0.
        trusted: whether a step is followed, (steps,). The other steps count as rephrased, but lead nowhere.
        absorbed: the weights of success and of failure, in turns, (states, 2).
        max_steps: maximum number of steps followed from a state, the likeliest first.

    Attributes:
        support: the weight of all turns, (states,).
        rephrased: the weight of the turns that were rephrased, (states,).
        success: the weight of the turns that succeeded, (states,).
    """

    def __init__(
        self,
        states: Sequence[State],
        steps: Integers,
        weights: Floats,
        trusted: NDArray[np.bool_],
        absorbed: Floats,
        *,
        max_steps: int,
    ) -> None:
        self.states: Final[Sequence[State]] = states
        self._number: Final[dict[State, int]] = {state: number for number, state in enumerate(states)}
        count = len(states)
        self.rephrased: Final = np.bincount(steps[:, 0], weights, count)
        self.success: Final = absorbed[:, 0]
        self.support: Final = self.rephrased + absorbed.sum(axis=1)
        order = np.flatnonzero(trusted)
        order = order[np.lexsort((steps[order, 1], -weights[order], steps[order, 0]))]
        place = np.arange(len(order)) - np.searchsorted(steps[order, 0], steps[order, 0])
        order = order[place < max_steps]
        self._starts: Final = np.searchsorted(steps[order, 0], np.arange(count + 1))
        self._following: Final = steps[order, 1]
        self._weights: Final = weights[order]
        self._probabilities: Final = self._weights / self.support[steps[order, 0]]

    def numbers(self, states: Iterable[State]) -> Integers:
        """Return the numbers of those `states` that are in this part, ascending, (n,)."""
        found = (self._number.get(state, -1) for state in states)
        return np.array(sorted(number for number in found if number >= 0), np.int64)

    def following(self, states: Integers) -> Integers:
        """Return the numbers of the states that any of `states`, (n,), leads to directly, ascending, (m,)."""
        return np.unique(self._following[self._steps(states)[1]])

    @property
    def branches(self) -> NDArray[np.bool_]:
        """Whether a state has a step that is followed, (states,)."""
        return np.diff(self._starts) > 0

    @property
    def rate(self) -> Floats:
        """The success rates, (states,), 0 to 1, each with one failure added."""
        rate: Floats = self.success / (self.support + 1.0)
        return rate

    def bounds(self, z: float) -> tuple[Floats, Floats]:
        """Return the lower and upper bounds of the success rates, each (states,): `z` standard deviations (Wilson)."""
        return wilson(self.success, self.support, z)

    def solve(self, sources: Integers, admissible: Admissible, depth: int, max_states: int) -> Solution:
        """Return the target of each source that a walk most probably passes through and succeeds at.

        Args:
            sources: the numbers of the states to solve, (sources,).
            admissible: the targets that they may have.
            depth: maximum number of rephrases followed.
            max_states: maximum number of states in a subgraph: the nearest, then the likeliest.
        """
        targets, probabilities = np.full(len(sources), -1), np.zeros(len(sources))
        for first in range(0, len(sources), _BATCH):
            batch = np.arange(first, min(first + _BATCH, len(sources)))
            targets[batch], probabilities[batch] = self._solve(sources, batch, admissible, depth, max_states)
        return Solution(targets, probabilities)

    def path(self, source: State, target: State) -> list[State]:
        """Return the likeliest path from `source` to `target`, both included; empty if there is none."""
        first, last = self._number.get(source), self._number.get(target)
        if first is None or last is None:
            return []
        cost = {first: 0.0}
        before: dict[int, int] = {}
        border = [(0.0, first)]
        while border:
            so_far, state = heappop(border)
            if state == last:
                way = [state]
                while way[-1] != first:
                    way.append(before[way[-1]])
                return [self.states[number] for number in reversed(way)]
            for step in range(self._starts[state], self._starts[state + 1]):
                following = int(self._following[step])
                further = so_far - log(self._probabilities[step])
                if further < cost.get(following, float("inf")):
                    cost[following], before[following] = further, state
                    heappush(border, (further, following))
        return []

    def _solve(
        self, all_sources: Integers, batch: Integers, admissible: Admissible, depth: int, max_states: int
    ) -> tuple[Integers, Floats]:
        sources = all_sources[batch]
        target, best = np.full(len(sources), -1), np.zeros(len(sources))
        nodes, followed = self._subgraphs(sources, depth, max_states)
        blocks, states = np.divmod(nodes, len(self.states))
        start = np.searchsorted(nodes, np.arange(len(sources)) * len(self.states) + sources)
        candidates = np.flatnonzero(admissible(batch[blocks], states) & (states != sources[blocks]))
        if not len(candidates):
            return target, best
        factors = self._factors(nodes, followed)
        ones = np.zeros(len(nodes))
        ones[start] = 1.0
        rates = self.rate
        # The expected number of visits bounds the probability of passing. Candidates are tried in the order of their
        # bounds, so most need not be solved.
        bound = factors.solve(ones)[candidates] * rates[states[candidates]]
        order = np.lexsort((states[candidates], -bound, blocks[candidates]))
        candidates, bound = candidates[order], bound[order]
        turn = np.arange(len(order)) - np.searchsorted(blocks[candidates], blocks[candidates])
        for number in range(int(turn.max()) + 1):
            mine = (turn == number) & (bound > best[blocks[candidates]])
            if not mine.any():
                break
            chosen = candidates[mine]
            ones[:] = 0.0
            ones[chosen] = 1.0
            probability = bound[mine] / factors.solve(ones)[chosen]
            block = blocks[chosen]
            better = probability > best[block]
            best[block[better]] = probability[better]
            target[block[better]] = states[chosen[better]]
        return target, best

    def _subgraphs(self, sources: Integers, depth: int, max_states: int) -> tuple[Integers, Integers]:
        """Return the nodes of each source's subgraph, and those whose steps are followed, both ascending.

        A node is its source's place in `sources` times the number of states, plus its state. Nodes that are `depth`
        rephrases away are not followed.
        """
        count = len(self.states)
        border = np.arange(len(sources)) * count + sources
        nodes = followed = border
        size = np.ones(len(sources), np.int64)
        for level in range(depth):
            if level:
                followed = nodes
            at, steps = self._steps(border % count)
            found = border[at] // count * count + self._following[steps]
            fresh = ~_contains(nodes, found)
            found, weights = found[fresh], self._weights[steps[fresh]]
            found = found[np.lexsort((found, -weights))]
            found = found[np.sort(np.unique(found, return_index=True)[1])]
            found = found[np.argsort(found // count, kind="stable")]
            block = found // count
            place = size[block] + np.arange(len(found)) - np.searchsorted(block, block)
            border = found[place < max_states]
            if not len(border):
                return nodes, nodes
            size += np.bincount(border // count, minlength=len(sources))
            nodes = np.sort(np.concatenate([nodes, border]))
        return nodes, followed

    def _steps(self, states: Integers) -> tuple[Integers, Integers]:
        """Return all steps from `states`, (n,): their places in `states`, and their own numbers, both (steps,)."""
        counts = self._starts[states + 1] - self._starts[states]
        at = np.repeat(np.arange(len(states)), counts)
        first = np.cumsum(counts) - counts
        return at, np.arange(len(at)) - first[at] + self._starts[states][at]

    def _factors(self, nodes: Integers, followed: Integers) -> Any:
        """Return SciPy's factorisation of the transpose of I - Q, all subgraphs together."""
        # SciPy is slow to import, and needed only to solve.
        from scipy.sparse import csc_array  # noqa: PLC0415
        from scipy.sparse.linalg import splu  # noqa: PLC0415

        count = len(self.states)
        at, steps = self._steps(followed % count)
        reached = followed[at] // count * count + self._following[steps]
        inside = _contains(nodes, reached)
        columns = np.searchsorted(nodes, followed[at[inside]])
        rows = np.searchsorted(nodes, reached[inside])
        diagonal = np.arange(len(nodes))
        values = np.concatenate([np.ones(len(nodes)), -_STAYS * self._probabilities[steps[inside]]])
        places = np.concatenate([diagonal, rows]), np.concatenate([diagonal, columns])
        return splu(csc_array((values, places), shape=(len(nodes), len(nodes))))


def _contains(ascending: Integers, wanted: Integers) -> NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[place] == wanted
    return found
