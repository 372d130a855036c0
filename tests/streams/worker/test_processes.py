"""The learning process commits what would be committed in this process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from backchannel.agents.columnar.interning import columns_of
from backchannel.ops.lab.load import mixed_stream
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.sources import TOPIC
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import FencedError, Ledger
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig
from backchannel.streams.turns.partition import Batch
from backchannel.streams.turns.position import Claim, Position
from backchannel.streams.worker.processes import LearningProcess
from tests.support.ledgers import assert_same, contents

CONFIG = Config(turns=TurnConfig(window_s=3.0, lateness_s=1.0))
EVENTS = list(mixed_stream(200, np.random.default_rng(3), queries=10, gap_ms=400))


@pytest.fixture
def claim(store_url: str) -> Iterator[Callable[[], Claim]]:
    store, tables = Store(store_url), Learning(CONFIG).tables
    store.create(tables)
    ledger = Ledger(store, tables)
    yield lambda: ledger.claim("test", 0)
    store.close()


def batches(claim: Claim) -> Iterator[Batch]:
    """Return all events in two batches; the claim is that of the first."""
    assembler = TurnAssembler([TOPIC], CONFIG.turns)
    for first, last in ((0, 200), (200, len(EVENTS))):
        assembler.add(TOPIC, range(first, last), EVENTS[first:last])
        turns = assembler.finish() if last == len(EVENTS) else assembler.advance()
        yield Batch(claim, assembler.position, dict(assembler.counts), [columns_of(turns)])
        assembler.counts.clear()


def test_it_learns_what_is_learned_in_place(
    store_url: str, new_store: Callable[[], str], claim: Callable[[], Claim]
) -> None:
    async def learn() -> None:
        with closing(LearningProcess(store_url, CONFIG)) as process:
            await process.started()
            mine = claim()
            for batch in batches(mine):
                commit = await process.commit([Batch(mine, batch.position, batch.counts, batch.columns)])
                (mine,) = commit.claims
                assert (mine.position, commit.counts) == (batch.position, batch.counts)
                assert commit.quality is not None

    asyncio.run(learn())
    other = new_store()
    with LocalPipeline(other, CONFIG, "test") as pipeline:
        pipeline.feed(EVENTS)
        pipeline.finish()
        pipeline.commit()
    assert_same(contents(store_url, CONFIG), contents(other, CONFIG))


def test_what_it_raises_is_raised_here_with_where_it_was(store_url: str, claim: Callable[[], Claim]) -> None:
    async def learn() -> None:
        with closing(LearningProcess(store_url, CONFIG)) as process:
            await process.started()
            first, second = claim(), claim()
            with pytest.raises(FencedError, match="was claimed by another process") as raised:
                await process.commit([Batch(first, Position(), {"turn": 1}, [])])
            assert "ledger.commit" in raised.value.__notes__[0]
            commit = await process.commit([Batch(second, Position(), {"turn": 1}, [])])
            assert commit.claims[0].commits == 1

    asyncio.run(learn())
