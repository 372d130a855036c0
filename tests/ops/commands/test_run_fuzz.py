"""Whatever plausible events a file holds, `run` accounts for every line, and its exit code says what was lost."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backchannel.ops.cli import main
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.streams.config import HealthConfig
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.accounts import Account
from tests.support.ledgers import sqlite_url

pytestmark = pytest.mark.usefixtures("patient_health")

CASES = 40
"""Whole files, of about twenty events each."""

EVENTS: list[dict[str, Any]] = [
    json.loads(encode(event))
    for event in mixed_stream(25, np.random.default_rng(0), queries=5, start_ms=1_700_000_000_000)
]
ODD: list[Any] = [
    None, True, "", "0", "x" * 300, "NaN", "2023-11-14T22:13:20Z", 0, -1, 0.5, 3000.5, 1e400, 2**63, 1.0000000002,
    [], [None], {}, {"a": None}, {"a": [1]}, {"a": {"b": 1}}, "\0", "\ud83d", float("nan"),
]  # fmt: skip
LINES = [
    b"",
    b"\r",
    b"{",
    b"null",
    b"[]",
    b"NaN",
    b"\xff\xfe",
    b'{"type": "query"}',
    b'{"type": "label", "ts": 1}',
    b'"{}"',
]
SHIFTS = [0, 0, 1, 5_000, 130_000, 10_000_000, -1, -5_000, -130_000, -10_000_000, 10**13]


@st.composite
def files(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Draw the lines of a file, and its end: events with odd values, repeated, out of order, from other times."""
    picked = draw(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=40))
    if draw(st.booleans()):
        picked.sort(key=lambda event: event["ts"])
    lines = []
    for event in picked:
        how = draw(st.sampled_from(["as it is"] * 6 + ["odd", "missing", "shifted", "line"]))
        changed = dict(event)
        name = draw(st.sampled_from(sorted(changed)))
        if how == "odd":
            changed[name] = draw(st.sampled_from(ODD))
        elif how == "missing":
            del changed[name]
        elif how == "shifted":
            changed["ts"] += draw(st.sampled_from(SHIFTS))
        lines.append(draw(st.sampled_from(LINES)) if how == "line" else json.dumps(changed).encode())
    return lines, draw(st.sampled_from([b"\n", b"", b"\n{", b"\n\n"]))


@settings(max_examples=CASES, suppress_health_check=[HealthCheck.too_slow])
@given(file=files(), options=st.sets(st.sampled_from(["--sort", "--complete"])), cut=st.integers(0, 40))
def test_every_line_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[list[bytes], bytes], options: set[str], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (lines, end), path, store = file, folder / "events", sqlite_url(folder)
    command = ["run", str(path), "--store", store, "--json", *sorted(options)]
    if cut < len(lines) and "--sort" not in options:  # a part first, and then the whole
        path.write_bytes(b"\n".join([*lines[:cut], b""]))
        CliRunner().invoke(main, command)
    path.write_bytes(b"\n".join(lines) + end)
    before = account(store)
    done = CliRunner().invoke(main, command)
    assert done.exit_code in (0, 1, 3), done.output
    after = account(store)
    assert after is None or after.unaccounted == 0
    if done.exit_code == 1:  # nothing but a clear message
        assert done.stderr.startswith("Error: ")
        assert isinstance(done.exception, SystemExit)
        return
    assert after is not None
    assert after.open == 0 or "no line break" in done.stderr
    final = (b"\n".join(lines) + end).split(b"\n")
    left = final.pop() if "no line break" in done.stderr else b""
    assert after.received == sum(bool(line.rstrip(b"\r")) for line in final), left
    found = json.loads(done.stdout)
    received = after.received - (before.received if before else 0)
    lost = after.lost - (before.lost if before else 0)
    assert found["lost"] == pytest.approx(lost / received if received else 0)
    assert (done.exit_code == 3) == (found["dead_letters"] > 0 or found["lost"] > HealthConfig().lost[0])
    health = CliRunner().invoke(main, ["health", "--store", store, "--check", "losses"])
    assert "accounted for: 100%" in " ".join(health.stdout.split()) or not after.received
    assert (health.exit_code > 0) == (after.share_lost > HealthConfig().lost[0])


def account(url: str) -> Account | None:
    """Return the account of a store; None if there is no store yet."""
    if not Path(url.removeprefix("sqlite:///")).exists():
        return None
    with closing(Store(url)) as store:
        return Account.of(Ledger(store, []).counts())
