"""Rewriting in the closed loop of the simulated world: on, off, and unaware of its own effect."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct, structs

from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.ops.lab.demo.closed_loop import CONFIG, close_the_loop
from backchannel.ops.lab.demo.findings import Scoreboard
from backchannel.ops.lab.worlds.people import SearchWorld
from backchannel.ops.lab.worlds.servers import LearnedServer
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader


class _Off(LearnedServer):
    """Serves no rewrites."""

    rewrites = False


class _Unaware(LearnedServer):
    """Does not log its rewrites, so that their results look like those of the original queries."""

    logs_rewrites = False


SERVERS: Final[dict[str, type[LearnedServer]]] = {"on": LearnedServer, "off": _Off, "unaware": _Unaware}
"""Servers by way of rewriting: `on` logs its rewrites and holds some sessions out; `unaware` does neither."""


class Loop(Struct, frozen=True):
    """Results of one way of rewriting.

    Attributes:
        rewriting: a key of `SERVERS`.
        seed: the seed of the world.
        defect_rate, click_rate: rates in the last quarter of the turns, 0 to 1.
        garbled_click_rate: click rate of misheard and misspelt queries in the last quarter of the turns, 0 to 1.
        rewrites: number of rewrites at the end.
        right: number of right rewrites at the end.
    """

    rewriting: str
    seed: int
    defect_rate: float
    click_rate: float
    garbled_click_rate: float
    rewrites: int
    right: int


def close(turns: int, seed: int, progress: Callable[[str], None]) -> Iterator[Loop]:
    """Serve the same people with each way of rewriting, and yield the results."""
    for name, server in SERVERS.items():
        rephrases = RephraseConfig(held_out=0.0) if name == "unaware" else RephraseConfig()
        config = structs.replace(CONFIG, rephrases=rephrases)
        world = SearchWorld(seed, turns)
        with TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'loop.db'}"
            with LocalPipeline(url, config, "loop") as driver:
                reader = PolicyReader(driver.store)
                say = partial(_say, progress, name)
                board = close_the_loop(world, driver, reader, turns=turns, seed=seed, progress=say, server=server)
                findings = board.findings(reader.policy, seed, 0.0)
        late = findings.late["learned"]
        yield Loop(
            name,
            seed,
            late.defect_rate.value,
            late.click_rate.value,
            late.click_rate_by_kind["garbled"],
            len(findings.rewrites.learned),
            sum(one.right for one in findings.rewrites.learned),
        )


def _say(progress: Callable[[str], None], name: str, board: Scoreboard) -> None:
    progress(f"rewriting {name}: {board.turns:,} turns")
