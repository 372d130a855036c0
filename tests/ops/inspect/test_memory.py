"""`backchannel memory size` and `recall`."""

import re
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.streams.config import Config
from backchannel.streams.pipeline.priming import Primer
from tests.support.ledgers import sqlite_url


def test_sizes(store_url: str) -> None:
    with Primer(store_url, Config()) as primer:
        primer.put({("jazz", "a"): 0.5, ("jazz", "b"): 0.5, ("rock", "a"): 0.5})
        primer.publish()
    done = CliRunner().invoke(main, ["memory", "size", "--store", store_url, "--json"])
    assert done.exit_code == 0, done.output
    found = orjson.loads(done.stdout)
    assert found["ledger"]["priors"] == 3
    assert found["policy"]["memory"]["rows"] == 3  # two queries and the header
    assert found["policy"]["memory"]["bytes"] > 100
    assert "priors" in CliRunner().invoke(main, ["memory", "size", "--store", store_url]).stdout


def test_recalled_entities_are_shown_and_guesses_are_marked(store_url: str) -> None:
    with Primer(store_url, Config()) as primer:
        primer.put({("jazz music", "a"): 0.5, ("jazz music", "b"): 0.25})
        primer.publish()

    def recall(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["memory", "recall", *arguments, "--store", store_url])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert [line.split()[:2] for line in recall("Jazz music").splitlines()[1:]] == [["a", "0.500"], ["b", "0.250"]]
    assert "jazz music" not in recall("jaz music")
    assert re.search("guess.*jazz music.*95%", recall("jaz music", "--guess-from", "0.9"))
    (one,) = orjson.loads(recall("jaz music", "--guess-from", "0.9", "-k", "1", "--json"))
    assert one["guess"]["query"] == "jazz music"
    assert one["score"] == pytest.approx(0.5 * one["guess"]["similarity"])


def test_the_size_of_nothing_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["memory", "size", "--store", sqlite_url(tmp_path)])
    assert done.exit_code == 1
    assert "nothing has been learned into it yet" in done.stderr
