"""The history of strategies, serving: how well each has done on one query, as a feature of the strategy."""

from collections.abc import Mapping
from typing import ClassVar, Final, Self

import msgspec

from backchannel.agents.bandit.features import HISTORY
from backchannel.agents.serving import Sections
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize

HISTORY_PRIOR: Final = 10.0
"""Strength, in turns, of a strategy's mean reward on all queries as the prior of its reward on one."""

_decode = msgspec.json.Decoder(dict[str, tuple[float, float]]).decode


class History:
    """The history of strategies of one policy version.

    Args:
        section: the rows of the section.
    """

    name: ClassVar[str] = "history"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        self._rows: Final = section

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - Serving's
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}))

    def features(self, query: str, means: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Return strategy -> the feature HISTORY: by how much its reward on `query` exceeds its mean, shrunk to 0.

        Args:
            query: the query's text.
            means: strategy -> its mean reward on all queries.
        """
        row = self._rows.get(normalize(query))
        known = _decode(row) if row else {}
        found = {}
        for name, mean in means.items():
            turns, reward = known.get(name, (0.0, 0.0))
            found[name] = {HISTORY: (reward - turns * mean) / (turns + HISTORY_PRIOR)}
        return found
