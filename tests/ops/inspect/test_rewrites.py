"""`backchannel rewrites` on a store with a learned rewrite."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from backchannel.agents.rewrites.serving import Rewriting
from backchannel.ops.cli import main
from backchannel.ops.inspect.explanation import Explanation
from backchannel.schemas.events import Click, Event, Impression, Query
from backchannel.schemas.events import Result as Shown
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store.ledger import Contribution, Ledger
from backchannel.streams.turns.position import Claim

GARBLED, TITLE = "play the song velvet knight", "play the song velvet night"


def sessions(count: int) -> Iterator[Event]:
    """Yield sessions that ask the garbled title, then the right one, which gets a click."""
    for number in range(count):
        for turn, text in enumerate((GARBLED, TITLE)):
            ids: dict[str, Any] = {"session_id": f"s{number}", "query_id": f"s{number}-{turn}"}
            ts = 1_700_000_000_000 + number * 60_000 + turn * 8_000
            yield Query(event_id=f"q{number}-{turn}", ts=ts, text=text, **ids)
            if turn:
                yield Impression(event_id=f"i{number}", ts=ts, results=(Shown("e", 1),), **ids)
                yield Click(event_id=f"c{number}", ts=ts, entity_id="e", **ids)


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/policy.db"
    with LocalPipeline(url, Config(), "test") as driver:
        driver.feed(list(sessions(12)))
        driver.finish()
        driver.commit()
        driver.publish()
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rewrites", *arguments])


def publish(url: str) -> None:
    with LocalPipeline(url, Config(), "test") as driver:
        driver.publish()


def served(url: str, query: str) -> str | None:
    reader = PolicyReader(url)
    found = reader.policy.rewrite(query)
    reader.close()
    return found.target if found else None


def test_list(store: str) -> None:
    result = run("list", "--store", store, "--json")
    found = msgspec.json.decode(result.stdout, type=dict[str, Rewriting])
    assert list(found) == [GARBLED]
    assert found[GARBLED].target == TITLE
    assert "velvet night" in run("list", "--store", store).stdout


def test_show_tells_counts_and_path(store: str) -> None:
    result = run("show", GARBLED.upper(), "--store", store, "--json")
    found = msgspec.json.decode(result.stdout, type=Explanation)
    assert found.verdict == "served"
    # Twelve people asked, each once. Four of them share a bucket, of which three turns count.
    assert found.source.turns == pytest.approx(11, abs=0.01)
    assert found.target is not None
    assert found.target.success == 1
    (step,) = found.path
    assert (step.source, step.target) == (GARBLED, TITLE)
    assert step.turns == pytest.approx(found.source.turns * found.source.rephrased, abs=0.01)
    assert step.share == pytest.approx(found.source.rephrased)
    assert 2 < step.people <= 8
    assert "served" in run("show", GARBLED, "--store", store).stdout


@pytest.mark.parametrize(
    ("query", "verdict"),
    [("never asked", "min_support"), (TITLE, "as often as it is rephrased")],
)
def test_show_tells_why_not(store: str, query: str, verdict: str) -> None:
    assert verdict in run("show", query, "--store", store).stdout


def test_show_says_how_interpreted_queries_are_known(store: str) -> None:
    hint = "give it as SOURCE, with --interpretation"
    assert hint in run("show", "play jazz", "--store", store).output
    assert hint not in run("show", "play jazz", "--interpretation", "--store", store).output
    assert hint not in run("show", GARBLED, "--store", store).output


def test_block_and_unblock(store: str) -> None:
    for arguments, target in (([GARBLED], None), ([GARBLED, "--undo"], TITLE), ([GARBLED, TITLE], None)):
        result = run("block", *arguments, "--store", store)
        assert result.exit_code == 0, result.output
        publish(store)
        assert served(store, GARBLED) == target
    assert "0 blocked, 1 " in run("block", GARBLED, TITLE, "--store", store).stdout


def test_an_interpretation_is_not_taken_for_a_text(store: str) -> None:
    forms = {GARBLED: "play(song=velvet knight)", TITLE: "play(song=velvet night)"}
    with LocalPipeline(store, Config(), "interpreted") as driver:
        driver.feed(
            [
                structs.replace(one, interpretation=forms[one.text]) if isinstance(one, Query) else one
                for one in sessions(40)
            ]
        )
        driver.finish()
        driver.commit()
        driver.publish()
    assert forms[GARBLED] in run("list", "--store", store, "--json").stdout
    for arguments in (["block", forms[GARBLED]], ["pin", forms[GARBLED], "something else"]):
        refused = run(*arguments, "--store", store)
        assert (refused.exit_code, "give --interpretation" in refused.output) == (2, True)
        assert run(*arguments, "--interpretation", "--store", store).exit_code == 0
    assert run("block", GARBLED.upper(), "--store", store).exit_code == 0


def test_pin_from_a_file(store: str, tmp_path: Path) -> None:
    file = tmp_path / "pins.tsv"
    file.write_text(f"{GARBLED}\tanything else\n\nnever asked\t{TITLE}\n")
    assert "2 pinned" in run("pin", "--file", str(file), "--store", store).stdout
    publish(store)
    assert served(store, GARBLED) == "anything else"
    assert served(store, "Never asked") == TITLE
    assert "pinned" in run("show", GARBLED, "--store", store).stdout
    run("pin", "--undo", "--file", str(file), "--store", store)
    publish(store)
    assert served(store, GARBLED) == TITLE
    assert served(store, "never asked") is None


@pytest.mark.parametrize("block", [[GARBLED], [GARBLED, "another"]])
def test_a_pin_of_what_is_blocked_says_how_to_unblock_it(store: str, block: list[str]) -> None:
    run("block", *block, "--store", store)
    result = run("pin", GARBLED, "another", "--store", store)
    assert (result.exit_code, result.stdout[:8]) == (0, "1 pinned")
    assert "1 stay blocked" in result.stderr
    publish(store)
    assert served(store, GARBLED) in (None, TITLE)
    unblock = shlex.split(result.stderr.split("`")[1])
    assert unblock[:2] == ["backchannel", "rewrites"]
    run(*unblock[2:], "--store", store)
    publish(store)
    assert served(store, GARBLED) == "another"
    assert not run("pin", GARBLED, "another", "--store", store).stderr
    run("block", GARBLED, "yet another", "--store", store)
    assert not run("pin", GARBLED, "another", "--store", store).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["block"], "SOURCE, or a --file"),
        (["pin", "a"], "needs a TARGET"),
        (["pin", "a", "A"], "needs a TARGET"),
        (["pin", " ", "a"], "' ' has no words"),
        (["block", ""], "'' has no words"),
        (["block", "a", " "], "' ' has no words"),
    ],
)
def test_a_wrong_command_is_refused(arguments: Sequence[str], message: str, store: str) -> None:
    result = run(*arguments, "--store", store)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_no_text_is_one_line(store: str, tmp_path: Path) -> None:
    file = tmp_path / "pins.tsv"
    file.write_bytes(b"\xff\tx\n")
    result = run("pin", "--file", str(file), "--store", store)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {file}: ")


@pytest.mark.parametrize("arguments", [["list"], ["show", "a"], ["block", "a"], ["pin", "a", "b"]])
def test_an_empty_store_is_an_error(arguments: Sequence[str], tmp_path: Path) -> None:
    result = run(*arguments, "--store", f"sqlite:///{tmp_path}/none.db")
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("arguments", [["show", "a"], ["block", "a"], ["pin", "a", "b"]])
def test_an_invalid_url_is_a_wrong_command(arguments: Sequence[str]) -> None:
    result = run(*arguments, "--store", "nonsense")
    assert result.exit_code == 2
    assert "--store: store 'nonsense': " in result.stderr


def test_of_two_who_change_rules_at_once_one_is_told_to_try_again(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Ledger.commit

    def after_another(self: Ledger, contributions: Sequence[Contribution]) -> list[Claim]:
        self.claim(contributions[0].claim.source, 0)
        return commit(self, contributions)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", after_another)
        result = run("block", GARBLED, "--store", store)
    assert result.exit_code == 1
    assert re.fullmatch("Error: .*try again\n", result.output)
    publish(store)
    assert served(store, GARBLED) == TITLE
    assert run("block", GARBLED, "--store", store).exit_code == 0
    publish(store)
    assert served(store, GARBLED) is None
