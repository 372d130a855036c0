"""Rates and peak memory of learning from a file."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from backchannel.ops.lab.bench.measure import Load, Measure, alternated
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.sources import TOPIC
from backchannel.streams.turns.event_file import EventFile

TAILS: Final[Mapping[str, int | None]] = {"": None, ", every second query new": 2}
"""Streams, by their tails: what is said of each, and one query in how many is new."""


def rates(load: Load) -> Iterator[Measure]:
    """Yield the rates of decoding and of learning a file, in events/s."""
    for said, new_every in TAILS.items():
        yield from _rates(load, said, new_every)


def _rates(load: Load, said: str, new_every: int | None) -> Iterator[Measure]:
    folder = load.folder
    path = folder / "events.jsonl"
    written = _write(path, load.events, new_every)

    def decode() -> None:
        decoder = EventDecoder()
        with EventFile(str(path)) as file:
            for chunk in file.chunks():
                decoder.decode_many(chunk.lines)

    def learn() -> None:
        store = folder / "rates.db"
        for left in folder.glob("rates.db*"):
            left.unlink()
        config = Config()
        with EventFile(str(path)) as file, LocalPipeline(f"sqlite:///{store}", config, "bench") as embedded:
            for chunk in file.chunks():
                embedded.feed_chunk(TOPIC, chunk)
                if embedded.partition.uncommitted >= config.commits.events:
                    embedded.commit()
            embedded.finish()
            embedded.commit()

    decoding, learning = alternated([decode, learn], load.rounds)
    alone = f"decode alone{said}"
    yield Measure(alone, written / decoding, "events/s")
    name = f"decode, assemble, learn, commit to SQLite{said}"
    yield Measure(name, written / learning, "events/s", decoding / learning, alone)


def memory(load: Load) -> Iterator[Measure]:
    """Yield the peak memory for few and for many events."""
    for said, new_every in TAILS.items():
        few, many = (_peak(load.folder, events, new_every) for events in (200_000, 2_000_000))
        yield Measure(f"peak memory, 200,000 events{said}", few, "MiB")
        yield Measure(f"peak memory, 2,000,000 events{said}", many, "MiB", many / few, "200,000 events")


def _peak(folder: Path, events: int, new_every: int | None) -> float:
    """Return the peak resident memory, in MiB, of `backchannel run` reading `events` events from a pipe."""
    store = f"sqlite:///{folder / f'memory-{events}-{new_every}.db'}"
    program = (
        "import resource, sys; from backchannel.ops.cli import main; "
        f"main(['run', '-', '--store', {store!r}, '--json'], standalone_mode=False)"
    )
    measured = f"try:\n  {program}\nexcept SystemExit: pass\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    with subprocess.Popen([sys.executable, "-c", measured], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # Few queries, so that all that recur, and all entities, occur within the first 200,000 events.
        for event in mixed_stream(events * 2 // 5, np.random.default_rng(0), queries=1_000, new_every=new_every):
            process.stdin.write(encode(event) + b"\n")
        process.stdin.close()
        output = process.stdout.read()
    return float(output.splitlines()[-1]) / 1024


def _write(path: Path, events: int, new_every: int | None) -> int:
    written = 0
    with path.open("wb") as file:
        for event in mixed_stream(events * 2 // 5, np.random.default_rng(0), new_every=new_every):
            file.write(encode(event) + b"\n")
            written += 1
    return written
