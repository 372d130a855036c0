"""What an order is worth that was learned."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.search.harness import Harness
from backchannel.ops.lab.search.orders import candidates_of, orders
from tests.support.terminals import TERMINAL


def test_candidates_are_in_the_callers_order(harness: Harness) -> None:
    every = candidates_of(harness)
    assert len(every.vectors) == every.lengths.sum() == len(every.places)
    for begin, length in zip(every.starts.tolist(), every.lengths.tolist(), strict=True):
        rows = slice(begin, begin + length)
        assert (np.diff(every.vectors[rows, 0]) <= 0).all()
        assert len(set(every.places[rows].tolist())) == length
        assert (every.ranks[rows].max(axis=1) > 0).all()


def test_what_was_learned_is_beside_every_baseline(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backchannel.ops.lab.search.orders.find_spec", lambda _: None)
    found = {(one.name, one.turns): one for one in orders(harness, 1, (2_000,))}
    assert not any("popular" in name for name, _ in found)
    assert found["lexical alone", 0].less_bm25.value == 0.0
    caller = found["rank fusion", 0]
    assert caller.less_caller.value == 0.0
    graded, clicked = found["ridge, from grades", 0], found["ridge, from clicks", 2_000]
    assert graded.ndcg.value > caller.ndcg.value
    assert clicked.less_caller.value > -0.02


def test_the_command_prints_them(cache_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache_folder)
    monkeypatch.setattr("backchannel.ops.lab.search.orders.find_spec", lambda _: None)  # LightGBM would take its time
    arguments = ["lab", "rank", "generated", "--no-dense", "--turns", "100"]
    told = CliRunner().invoke(main, arguments, catch_exceptions=False, env={"COLUMNS": "120"})
    assert "ridge, from clicks" in told.stdout
    assert told.stderr == ""
    shown = CliRunner().invoke(main, arguments, env=TERMINAL).stderr
    assert "93% ridge, clicks / examination, 100 turns" in shown
    missing = CliRunner().invoke(main, ["lab", "rank", str(Path("nowhere"))])
    assert missing.exit_code == 1
