"""`backchannel snapshots` as its users see it."""

import gzip
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result
from msgspec import structs
from sqlalchemy import update

from backchannel.agents.ranking.serving import Summary, Weight
from backchannel.ops.cli import main
from backchannel.ops.commands import snapshots
from backchannel.ops.commands.differences import StrategyChange, _ranking, _strategy
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.snapshot import Trial
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.snapshots import versions
from backchannel.streams.snapshots.signing import KEY_VARIABLE
from backchannel.streams.snapshots.versions import Provenance
from backchannel.streams.store import tables
from backchannel.streams.store.engine import Store
from tests.support.ledgers import sqlite_url

HOUR = 3_600_000


@pytest.fixture
def url(store_url: str) -> str:
    """A store with three versions."""
    with LocalPipeline(store_url, Config(), "test") as embedded:
        for version in range(3):
            learn(embedded, version)
            embedded.publish()
    return store_url


def learn(embedded: LocalPipeline, seed: int) -> None:
    start = 1_700_000_000_000 + 24 * HOUR * seed
    embedded.feed(list(mixed_stream(400, np.random.default_rng(seed), queries=20, start_ms=start)))
    embedded.finish()
    embedded.commit()


def invoke(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["snapshots", *arguments, "--store", url], env={"COLUMNS": "200"})


def ok(url: str, *arguments: str) -> str:
    done = invoke(url, *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_list_and_show(url: str) -> None:
    ok(url, "pin", "1")
    lines = ok(url, "list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
    assert lines[1].endswith("served")
    assert lines[3].endswith("pinned")
    listed = orjson.loads(ok(url, "list", "--json"))
    assert [one["version"] for one in listed["versions"]] == [3, 2, 1]
    assert listed["hold"] is None
    shown = ok(url, "show")
    assert "3, served by readers" in shown
    assert "complete" in shown
    assert re.search(r"defects; of \d+ goals .* were reached, and .* ended in a defect", " ".join(shown.split()))
    one = orjson.loads(ok(url, "show", "2", "--json"))
    assert (one["header"]["parent"], one["served"], one["fault"]) == (1, False, None)
    assert one["header"]["positions"]["test"]["0"]["read"]["events"] > 0


def test_readers_serve_what_was_rolled_back_to_until_it_is_released(url: str) -> None:
    with PolicyReader(url, poll_s=60) as reader:
        before = reader.policy.memory()
        assert reader.policy.version == 3
        assert "serve version 1" in ok(url, "rollback", "--to", "1", "--reason", "it recalls nonsense")
        assert reader.refresh()
        assert reader.policy.version == 1
        assert reader.policy.memory() != before
        with LocalPipeline(url, Config(), "test") as embedded:
            learn(embedded, 3)
            assert embedded.publish() is None
        assert not reader.refresh()
        assert "it recalls nonsense" in ok(url, "list")
        assert "it recalls nonsense" in ok(url, "show")
        assert "serve version 4" in ok(url, "release")
        assert reader.refresh()
        assert reader.policy.version == 4
        ok(url, "rollback", "--to", "3")
        assert reader.refresh()
        assert reader.policy.memory() == before
    ok(url, "release")
    assert invoke(url, "release").exit_code == 1


def test_a_version_that_has_learned_nothing_says_so(store_url: str) -> None:
    with LocalPipeline(store_url, Config(), "test") as embedded:
        embedded.publish()
    shown = " ".join(ok(store_url, "show").split())
    assert "1970" not in shown
    assert "rewrites 0 rows" in shown, "settings are no rewrite"
    assert "nothing yet" in ok(store_url, "list")
    assert "From version 1, nothing learned yet, to version 1" in ok(store_url, "diff", "1", "1")


def test_diff_says_what_changed(url: str) -> None:
    said = ok(url, "diff", "1", "3", "--examples", "2")
    assert "From version 1, learned up to 2023-11-1" in said
    assert "rows of memory differ" in said
    assert "Strategy lexical: " in said
    assert "Best entities: " in said
    found = orjson.loads(ok(url, "diff", "1", "3", "--json"))
    assert {one["strategy"] for one in found["strategies"]} == set(Config().bandit.expected)
    assert sum(one["share"][1] for one in found["strategies"]) == pytest.approx(1.0)
    assert found["rows"]["memory"] > 0
    one = orjson.loads(ok(url, "diff", "1", "3", "--json", "--budget", "1"))
    assert [strategy["share"] for strategy in one["strategies"]] != [found["share"] for found in found["strategies"]]
    for one in found["entities"]:
        assert (one["before"] or [None])[0] != (one["after"] or [None])[0]
    same = orjson.loads(ok(url, "diff", "2", "2", "--json"))
    assert (set(same["rows"].values()), same["rewrites"], same["entities"]) == ({0}, [], [])


def test_turns_that_only_faded_a_little_are_none_fewer() -> None:
    change = StrategyChange("lexical", turns=(9.3, 9.1), reward=(0.5, 0.5), expected=(0.5, 0.5), share=(1.0, 1.0))
    assert _strategy(change).startswith("Strategy lexical: +0 turns, ")


def test_a_version_moves_to_another_store(url: str, tmp_path: Path) -> None:
    file, other = tmp_path / "policy.jsonl.gz", sqlite_url(tmp_path, "other.db")
    assert "Wrote version 2" in ok(url, "export", "2", str(file))
    assert "serve version 1" in ok(other, "import", str(file))
    ok(url, "rollback", "--to", "2")
    with PolicyReader(url, poll_s=60) as here, PolicyReader(other, poll_s=60) as there:
        assert there.policy.memory() == here.policy.memory()
        assert there.policy.evidence() == here.policy.evidence()
        assert there.policy.snapshot.checksum == here.policy.snapshot.checksum
    assert "from another store" in ok(other, "show")
    # What is learned there takes its place, whole.
    with LocalPipeline(other, Config(), "test") as embedded:
        learn(embedded, 5)
        embedded.publish()
    done = invoke(other, "import", str(file))
    assert done.exit_code == 1
    assert "would soon replace" in done.output


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-40],
        lambda data: b"nonsense",
        lambda data: gzip.compress(b""),
        lambda data: gzip.compress(b"\n".join(gzip.decompress(data).splitlines()[:-1])),
        lambda data: gzip.compress(gzip.decompress(data) + gzip.decompress(data).splitlines()[-1] * 3),
        lambda data: gzip.compress(gzip.decompress(data) + b"[" * (17 << 20), compresslevel=1),
    ],
)
def test_an_archive_that_is_not_whole_is_refused(url: str, tmp_path: Path, spoil: "object") -> None:
    assert callable(spoil)
    file = tmp_path / "policy.jsonl.gz"
    ok(url, "export", "3", str(file))
    file.write_bytes(spoil(file.read_bytes()))
    done = invoke(sqlite_url(tmp_path, "other.db"), "import", str(file))
    assert done.exit_code == 1
    assert len(done.output.splitlines()) == 1


def test_an_archive_must_be_signed_where_there_is_a_key(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "one")
    with LocalPipeline(store_url, Config(), "test") as embedded:
        learn(embedded, 0)
        embedded.publish()
    file = tmp_path / "policy.jsonl.gz"
    ok(store_url, "export", "1", str(file))
    assert "yes" in ok(store_url, "show")
    ok(sqlite_url(tmp_path, "same key.db"), "import", str(file))
    with PolicyReader(sqlite_url(tmp_path, "same key.db"), poll_s=60) as reader:
        assert reader.policy.version == 1
    monkeypatch.setenv(KEY_VARIABLE, "another")
    done = invoke(sqlite_url(tmp_path, "another key.db"), "import", str(file))
    assert done.exit_code == 1
    assert "not signed with the key" in done.output
    assert "Refused, as readers would: 1: it is not signed with the key" in ok(store_url, "list")


def test_what_cannot_be_is_one_line(url: str, tmp_path: Path) -> None:
    for arguments in (["show", "9"], ["rollback", "--to", "9"], ["diff", "1", "9"], ["pin", "9"]):
        done = invoke(url, *arguments)
        assert done.exit_code == 1
        assert "version 9 is not in the store" in done.output
    done = invoke(sqlite_url(tmp_path, "empty.db"), "list")
    assert done.exit_code == 1
    assert "there is no file" in done.output
    assert not (tmp_path / "empty.db").exists()


def test_a_damaged_version_is_not_rolled_back_to_nor_exported(url: str, tmp_path: Path) -> None:
    store = Store(url)
    row = tables.snapshot_row
    with store.write() as connection:
        connection.execute(update(row).where(row.c.section == "memory", row.c.valid_from == 1).values(value=b"{}"))
    store.close()
    assert "checksum in its header" in ok(url, "show", "1")
    done = invoke(url, "rollback", "--to", "1")
    assert done.exit_code == 1
    assert "version 1 is damaged" in done.output
    assert invoke(url, "export", "1", str(tmp_path / "policy")).exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_version_that_readers_cannot_read_is_not_for_them(store_url: str, tmp_path: Path) -> None:
    with closing(Store(store_url)) as store:
        store.create([])
        provenance = Provenance(created=1, watermark=1, positions={}, fingerprint="", verdict="publish")
        with store.write() as connection:
            versions.publish(connection, [{"bandit": {"": b"{}"}}], provenance)
    archive = str(tmp_path / "policy")
    ok(store_url, "export", "1", archive)
    refused = [invoke(store_url, "rollback", "--to", "1"), invoke(store_url, "diff", "1", "1")]
    for done in (*refused, invoke(sqlite_url(tmp_path), "import", archive)):
        assert done.exit_code == 1
        assert "another version of Backchannel published version 1" in done.output
    with PolicyReader(store_url) as reader, pytest.raises(NoPolicyError, match="another version of Backchannel"):
        _ = reader.policy


def test_going_back_to_a_version_with_a_trial_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "on trial" not in ok(url, "rollback", "--to", "1")
    header = snapshots._header
    trial = Trial(number=1, began=0, share=0.25)
    monkeypatch.setattr(snapshots, "_header", lambda *asked: structs.replace(header(*asked), trial=trial))
    monkeypatch.setattr(snapshots, "loaded", lambda *_: None)  # the version's trial is made up
    assert "a policy on trial, which decides 25% of the queries as long as" in ok(url, "rollback", "--to", "2")


def test_a_changed_order_is_said_in_words() -> None:
    def summary(weight: float, lists: float) -> Summary:
        weights = (Weight("score", weight, 0.01, 1.0), Weight("fresh", 0.5, 0.01, 0.0))
        return Summary(True, lists, 1.0, 0.02, 0.001, weights)

    assert not list(_ranking(summary(0.0, 0.0), summary(0.0, 0.0)))
    first, *changes = _ranking(summary(0.2, 10.0), summary(0.4, 90.0))
    assert "90 lists" in first
    assert len(changes) == 1
    assert "score" in changes[0]
    assert "+0.4" in changes[0]
