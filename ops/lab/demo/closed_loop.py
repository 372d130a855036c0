"""The closed loop: simulated people are served a policy learned from earlier ones."""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

import numpy as np

from backchannel.agents.bandit.features import Categorical, Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.ops.lab.demo.findings import Scoreboard
from backchannel.ops.lab.worlds.people import DEVICES, QUERY_KINDS, SearchWorld, Server
from backchannel.ops.lab.worlds.servers import STRATEGIES, BestServer, LearnedServer, Retrieval, UniformServer
from backchannel.schemas.events import Event
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader

CONFIG = Config(
    bandit=BanditConfig(
        strategies=STRATEGIES,
        features=(
            Numeric("query.words", center=3.0, scale=2.0),
            Numeric("confidence", center=0.7, scale=0.2),
            Categorical("looks_like", QUERY_KINDS),
            Categorical("device", tuple(DEVICES)),
        ),
    )
)
"""The default configuration, with the strategies and context features of the simulated world."""


def close_the_loop(
    world: SearchWorld,
    driver: LocalPipeline,
    reader: PolicyReader,
    *,
    turns: int,
    seed: int,
    progress: Callable[[Scoreboard], None],
    server: type[LearnedServer] = LearnedServer,
) -> Scoreboard:
    """Serve people from `reader` and learn from them through `driver`; serve the same people from two baselines.

    A policy has learned only from events that had happened, in event time, when it was published. The first policy is
    published after 50 turns, each later one when the number of turns has grown by a tenth, but by at least 50 and at
    most 250.

    Args:
        world: the simulated world that the people come from.
        driver: the pipeline that learns from the learned server's events.
        reader: a reader of the driver's store.
        turns: the minimum number of turns; sessions are played to their end.
        seed: the seed of the servers' randomness.
        progress: called with the scoreboard after every session.
        server: the class of the server that uses the learned policy.
    """
    learned_rng, uniform_rng = np.random.default_rng(seed).spawn(2)
    retrieval = Retrieval(world.catalogue)
    servers: dict[str, Server] = {
        "learned": server(reader, retrieval, learned_rng),
        "uniform": UniformServer(retrieval, uniform_rng),
        "best": BestServer(world),
    }
    board = Scoreboard(world, turns)
    pending = _Pending()
    due = 50
    for person in world.people():
        if board.turns >= turns:
            break
        if board.turns >= due:
            due = board.turns + min(max(board.turns // 10, 50), 250)
            driver.feed(pending.until(person.start))
            _publish(driver, reader, board)
        sessions = {name: world.visit(person, serve) for name, serve in servers.items()}
        for turn in sessions["learned"]:
            pending.add(turn.events)
        board.add(sessions)
        progress(board)
    driver.feed(pending.all())
    driver.finish()
    _publish(driver, reader, board)
    return board


def _publish(driver: LocalPipeline, reader: PolicyReader, board: Scoreboard) -> None:
    driver.commit()
    driver.publish()
    reader.refresh()
    board.mark(reader.policy)


class _Pending:
    """Events that cannot be learned from yet, because earlier events may still follow."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Event]] = []
        self._added = 0

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._added += 1  # breaks ties
            heappush(self._heap, (event.ts, self._added, event))

    def until(self, now: int) -> list[Event]:
        """Remove and return the events up to `now` (ms), in time order."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            taken.append(heappop(self._heap)[2])
        return taken

    def all(self) -> list[Event]:
        """Remove and return all events, in time order."""
        return [heappop(self._heap)[2] for _ in range(len(self._heap))]
