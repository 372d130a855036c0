"""`backchannel forget-user`; what it erases is tested with `streams.pipeline.erasure`."""

from pathlib import Path

from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from tests.support.ledgers import sqlite_url
from tests.support.pipelines import learn, turn


def test_it_says_how_much_was_erased(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    with LocalPipeline(url, Config(), "test") as pipeline:
        learn(pipeline, turn(0, True, user="user-1"))
    done = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
    assert done.exit_code == 0, done.output
    assert "rows of 'user-1'" in done.stdout
    again = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
    assert again.exit_code == 0
    assert "nothing" in again.stdout


def test_a_store_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """Otherwise a mistyped name would look like a request that was met."""
    done = CliRunner().invoke(main, ["forget-user", "u1", "--store", f"sqlite:///{tmp_path / 'typo.db'}"])
    assert done.exit_code == 1
    assert "there is no file" in done.output
    assert not list(tmp_path.iterdir())
