"""The processes of a worker assemble and commit what would be assembled and committed in this process."""

import asyncio
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.columnar.interning import columns_of
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.schemas.events import name_of
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.sources import TOPIC
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import FencedError, Ledger
from backchannel.streams.turns.assembler import TooManyOpenError, TurnAssembler, TurnConfig
from backchannel.streams.turns.partition import Batch
from backchannel.streams.turns.position import Claim, Position
from backchannel.streams.worker.packing import packed
from backchannel.streams.worker.partitions import Ends, Records, assembled
from backchannel.streams.worker.processes import AssemblingProcess, LearningProcess
from tests.support.ledgers import assert_same, contents

CONFIG = Config(turns=TurnConfig(window_s=3.0, lateness_s=1.0))
KAFKA = KafkaConfig()
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
                commit = await process.commit(packed([Batch(mine, batch.position, batch.counts, batch.columns)]))
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
                await process.commit(packed([Batch(first, Position(), {"turn": 1}, [])]))
            assert "ledger.commit" in raised.value.__notes__[0]
            commit = await process.commit(packed([Batch(second, Position(), {"turn": 1}, [])]))
            assert commit.claims[0].commits == 1

    asyncio.run(learn())


def chunks() -> Iterator[Records]:
    read = Counter[str]()
    for first in range(0, len(EVENTS), 100):
        for name, topic in KAFKA.event_topics.items():
            values = [encode(event) for event in EVENTS[first : first + 100] if name_of(type(event)) == name]
            values.append(b"nonsense")
            yield Records(0, topic, range(read[topic], read[topic] + len(values)), values, None)
            read[topic] += len(values)


def claim_of(number: int) -> Claim:
    return Claim("test", number, 1, 0, Position())


def test_it_assembles_what_is_assembled_in_place() -> None:
    here, now = assembled(KAFKA, CONFIG.events, CONFIG.turns, ()), EVENTS[-1].ts
    topics = list(KAFKA.event_topics.values())
    quiet = {0: Ends(topics, dict.fromkeys(topics, now), quiet=True)}

    async def assemble() -> None:
        with closing(AssemblingProcess(KAFKA, CONFIG)) as process:
            assert await process.assign([claim_of(0)]) == here.assign([claim_of(0)])
            for chunk in chunks():
                added = await process.add([chunk], now)
                assert added == here.add([chunk], now)
                assert [letter.record for letter in added.dead[0]] == [b"nonsense"]
            assert await process.advance(quiet, now) == here.advance(quiet, now)
            (there,), (own,) = map(pickle.loads, (await process.batches([claim_of(0)]), here.batches([claim_of(0)])))
            assert (there.claim, there.position, there.counts) == (claim_of(0), own.position, own.counts)
            assert sum(map(len, there.columns)) == sum(map(len, own.columns)) > 0

    asyncio.run(assemble())


def test_what_is_no_longer_assigned_is_no_longer_added_to() -> None:
    async def assemble() -> None:
        with closing(AssemblingProcess(KAFKA, CONFIG)) as process:
            await process.assign([claim_of(0)])
            assert (await process.assign([claim_of(1)])).keys() == {1}
            with pytest.raises(KeyError):
                await process.add([next(chunks())], EVENTS[0].ts)

    asyncio.run(assemble())


def test_too_many_open_turns_are_an_error_here() -> None:
    few = structs.replace(CONFIG, turns=structs.replace(CONFIG.turns, max_open=10))

    async def assemble() -> None:
        with closing(AssemblingProcess(KAFKA, few)) as process:
            await process.assign([claim_of(0)])
            with pytest.raises(TooManyOpenError, match=r"turns\.max_open = 10"):
                await process.add([next(chunks())], EVENTS[-1].ts)

    asyncio.run(assemble())
