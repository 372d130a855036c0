"""The process that learns and commits for a worker, so that reading goes on meanwhile."""

from collections.abc import Sequence
from typing import Final

import msgspec

from backchannel.streams.config import Config
from backchannel.streams.pipeline.commits import Commit, commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.partition import Batch
from backchannel.streams.worker.processes import Apart

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Batch]).decode


class LearningProcess:
    """See `Apart`.

    Args:
        url: of the store, SQLAlchemy's.
        config: what to learn, and how.
    """

    def __init__(self, url: str, config: Config) -> None:
        self._apart: Final = Apart("learning", _Learner, url, config)
        self.started: Final = self._apart.started
        self.close: Final = self._apart.close

    async def commit(self, batches: Sequence[Batch]) -> Commit:
        """Learn and commit: see `commits.commit`, and raise what that raises."""
        done: Commit = await self._apart.call("commit", _encode(batches))
        return done


class _Learner:
    def __init__(self, url: str, config: Config) -> None:
        self._learning: Final = Learning(config)
        store = Store(url)
        store.create(self._learning.tables)
        self._ledger: Final = Ledger(store, self._learning.tables)

    def commit(self, batches: bytes) -> Commit:
        return commit(self._learning, self._ledger, _decode(batches))
