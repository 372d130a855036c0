"""Learning of rewrites in memory, as a worker and a publisher do it through a ledger."""

from collections.abc import Sequence
from typing import Final

import msgspec

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.rows import RewriteRow
from backchannel.agents.sums import ALL, Delta, MemorySums, merge
from backchannel.schemas.turn import Turn


class Rewriter:
    """Learns rewrites from turns.

    Args:
        rewards: the configuration of rewards.
        config: the configuration of rewrites.
    """

    def __init__(self, rewards: RewardConfig, config: RephraseConfig) -> None:
        self._judge: Final = Judge(rewards)
        self._graph: Final = RephraseGraph(config)
        self._sums: Delta = {}
        self._at = 0

    def learn(self, turns: Sequence[Turn]) -> None:
        """Learn from closed turns."""
        self._sums = merge([self._sums, self._graph.learn(self._judge.judge(columns_of(turns)))])
        self._at = max([self._at, *(turn.query.ts for turn in turns)])

    def rewrites(self) -> dict[str, str]:
        """Return all rewrites as of the newest turn: state -> target."""
        changed = {name: {key[0] for key in sums.keys} for name, sums in self._sums.items()}
        section = self._graph.solve(MemorySums(self._sums), changed, self._at)
        rows = {
            state: msgspec.json.decode(row, type=RewriteRow)
            for state, row in section.items()
            if row is not None and state != ALL
        }
        return {state: row.target for state, row in rows.items() if row.target and not row.withdrawn}
