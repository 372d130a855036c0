"""`backchannel forget-user`; what it erases is tested with `streams.pipeline.erasure`."""

import json
from pathlib import Path

from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.commands.dead_letter_file import forget_lines
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


def test_texts_and_dead_letters_remain_unless_they_are_asked_for(tmp_path: Path) -> None:
    url, letters = sqlite_url(tmp_path), tmp_path / "letters.jsonl"
    with LocalPipeline(url, Config(), "test") as pipeline:
        learn(pipeline, turn(0, True, text="my secret", user="user-1"))
    records = ['{"user_id": "user-1"}', '{"user_id": "user-12"}', "user-1, as CSV", '{"user_id": 7}']
    letters.write_text("".join(json.dumps({"reason": "r", "record": record}) + "\n" for record in records))
    shallow = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url])
    assert "--deep" in shallow.stdout
    assert "--dead-letters" in shallow.stdout
    deep = CliRunner().invoke(main, ["forget-user", "user-1", "--store", url, "--deep", "--dead-letters", str(letters)])
    assert deep.exit_code == 0, deep.output
    assert "2 lines deleted" in deep.stdout
    assert "--deep" not in deep.stdout
    assert [json.loads(line)["record"] for line in letters.read_text().splitlines()] == records[1::2]


def test_a_line_of_dead_letters_that_was_torn_is_searched_as_it_is(tmp_path: Path) -> None:
    letters = tmp_path / "letters.jsonl"
    lines = ['{"reason": "r", "record": "{\\"user_id\\": \\"user-1', '["user-2"]', '{"record_base64": "?"}']
    letters.write_text("\n".join(lines))
    assert forget_lines(letters, "user-1") == 1
    assert letters.read_text() == "\n".join(lines[1:])
    assert [one.name for one in tmp_path.iterdir()] == ["letters.jsonl"]


def test_a_store_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """Otherwise a mistyped name would look like a request that was met."""
    done = CliRunner().invoke(main, ["forget-user", "u1", "--store", f"sqlite:///{tmp_path / 'typo.db'}"])
    assert done.exit_code == 1
    assert "there is no file" in done.output
    assert not list(tmp_path.iterdir())


def test_an_unset_variable_is_nobody(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["forget-user", "", "--store", sqlite_url(tmp_path)])
    assert done.exit_code == 2
    assert "Invalid value for ID: it is empty" in done.output
