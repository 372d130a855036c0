"""`backchannel run`, killed again and again, learns what an uninterrupted run learns."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.streams.config import Config
from tests.support.ledgers import assert_same, contents

KILLS = {"sqlite": 25, "postgresql": 8}
TURNS = 30_000


def events(rng: random.Random) -> list[bytes]:
    """Write a mixed stream with duplicates, disorder, late events, and invalid lines."""
    lines = []
    for event in mixed_stream(TURNS, np.random.default_rng(1), queries=300, gap_ms=200):
        line = encode(event)
        lines += [line] * (1 + (rng.random() < 0.03))
        if rng.random() < 0.01:
            lines.append(rng.choice([b"", b"nonsense", b'{"type":"click"}', rng.randbytes(20).replace(b"\n", b"")]))
    for _ in range(len(lines) // 10):
        here = rng.randrange(len(lines) - 300)
        there = here + rng.choice([1, 5, 30, 300])
        lines[here], lines[there] = lines[there], lines[here]
    return lines


def commits(engine: Engine) -> int:
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT commits FROM partition")).scalar() or 0
    except DBAPIError:
        return 0


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, new_store: Callable[[], str]) -> None:
    rng = random.Random(20261120)
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(events(rng)) + b"\n")
    settings = tmp_path / "backchannel.toml"
    settings.write_text("[turns]\nlateness_s = 2.0\nwindow_s = 30.0\n[commits]\nevents = 900\npublish_s = 0.05\n")

    urls = {name: new_store() for name in ("killed", "once")}

    def command(name: str) -> list[str]:
        letters, store = str(tmp_path / f"{name}.dead-letters.jsonl"), urls[name]
        run = [sys.executable, "-m", "backchannel", "run", str(file), "--store", store, "--json"]
        return [*run, "--dead-letters", letters, "--config", str(settings)]

    engine = create_engine(urls["killed"], poolclass=NullPool)
    kills, killed = KILLS[engine.dialect.name], 0
    while killed < kills:
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        enough = commits(engine) + rng.randint(1, 3)
        while process.poll() is None and commits(engine) < enough:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        killed += 1
    assert killed == kills, f"it ended after {killed} kills: the file is too short for this machine"
    last = subprocess.run(command("killed"), capture_output=True, check=False)
    assert last.returncode == 3, last.stderr

    once = subprocess.run(command("once"), capture_output=True, check=False)
    assert once.returncode == 3, once.stderr
    config = Config()
    expected, found = (contents(urls[name], config) for name in ("once", "killed"))
    assert expected["counts"]["turn"] > TURNS * 0.9
    assert all(expected["counts"][name] for name in ("duplicate", "orphan", "late", "dead_letter"))
    assert_same(expected, found)

    def letters(name: str) -> set[tuple[int, str]]:
        lines = (tmp_path / f"{name}.dead-letters.jsonl").read_bytes().splitlines()
        return {(letter["line"], letter["reason"]) for letter in map(orjson.loads, lines)}

    assert letters("killed") == letters("once")
    assert len(letters("once")) == expected["counts"]["dead_letter"]
