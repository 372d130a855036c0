"""Tables as events: lists and rows, CSV and Parquet."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.lab.convert.sessions import ms_of
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Click, Event, Impression, Query
from backchannel.streams.config import parse
from tests.ops.lab.convert.test_command import complaint, run

LISTS = '''term,at,uid,ids,hit
play hey jude,2026-11-28T10:00:00Z,u1,a|b|c,b
"say ""hey
jude""",2026-11-28T10:00:30+01:00,u1,"[""b"",""a""]",b
jazz,1764324000,u2,x|y,
'''
ITEMS = """term,at,uid,sku,rank,clicked,by,device,pause
jazz,2026-11-28 10:00:00,u1,a,1,0,lexical,phone,1.5
jazz,2026-11-28 10:00:00,u1,b,2,true,lexical|semantic,phone,1.5
"""
MAP = ("--map", "query=term", "--map", "time=at", "--map", "user=uid")
BY_LIST = (*MAP, "--map", "shown=ids", "--map", "clicked=hit")
BY_ITEM = (*MAP, "--map", "item=sku", "--map", "position=rank", "--map", "clicked=clicked", "--map", "strategies=by")
CONTEXT = ("--map", "context.device=device", "--map", "context.pause=pause")


def events(*arguments: str | Path) -> list[Event]:
    result = run("table", *arguments)
    assert result.exit_code == 0, result.stderr
    return [EventDecoder().decode(line) for line in result.stdout_bytes.splitlines()]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path = tmp_path / "lists.csv"
    path.write_text(LISTS)
    return path


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.csv"
    path.write_text(ITEMS)
    return path


def test_a_row_is_a_search_with_lists(lists: Path) -> None:
    found = events(lists, *BY_LIST)
    queries = [event for event in found if isinstance(event, Query)]
    assert [one.text for one in queries] == ["jazz", 'say "hey\njude"', "play hey jude"]
    assert [one.ts for one in queries] == [1764324000000, 1795856430000, 1795860000000]
    assert [[one.entity_id for one in event.results] for event in found if isinstance(event, Impression)] == [
        ["x", "y"],
        ["b", "a"],
        ["a", "b", "c"],
    ]
    clicks = [event for event in found if isinstance(event, Click)]
    assert [(one.entity_id, one.ts) for one in clicks] == [("b", 1795856431000), ("b", 1795860001000)]


def test_a_row_is_an_item_that_was_shown(items: Path) -> None:
    query, shown, click = events(items, *BY_ITEM, *CONTEXT)
    assert isinstance(query, Query)
    assert query.context == {"device": "phone", "pause": 1.5}
    assert isinstance(shown, Impression)
    assert [(one.entity_id, one.position, one.strategies) for one in shown.results] == [
        ("a", 1, ("lexical",)),
        ("b", 2, ("lexical", "semantic")),
    ]
    assert isinstance(click, Click)
    assert click.entity_id == "b"


def test_parquet_is_read_like_csv(tmp_path: Path, lists: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"term": "play hey jude", "at": 1795860000000, "uid": "u1", "ids": ["a", "b", "c"], "hit": ["b"]},
        {"term": 'say "hey\njude"', "at": 1795856430000, "uid": "u1", "ids": ["b", "a"], "hit": ["b"]},
        {"term": "jazz", "at": 1764324000000, "uid": "u2", "ids": ["x", "y"], "hit": None},
    ]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "at", table["at"].cast(pa.timestamp("ms")))
    pa.parquet.write_table(table, tmp_path / "lists.parquet")
    assert events(tmp_path / "lists.parquet", *BY_LIST) == events(lists, *BY_LIST)


def test_a_mapping_may_be_a_file_and_files_may_be_many(tmp_path: Path, lists: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text('query = "term"\ntime = "at"\nuser = "uid"\nshown = "ids"\nclicked = "hit"\n')
    header, *lines = LISTS.splitlines(keepends=True)
    (tmp_path / "one.csv").write_text(header + lines[-1])
    (tmp_path / "two.csv").write_text(header + "".join(lines[:-1]))
    assert events(tmp_path / "two.csv", tmp_path / "one.csv", "--mapping", mapping) == events(lists, *BY_LIST)


def test_the_configuration_fits(items: Path, tmp_path: Path) -> None:
    result = run("table", items, *BY_ITEM, "--settings", tmp_path / "fit.toml")
    config = parse(msgspec.toml.decode((tmp_path / "fit.toml").read_bytes()), "fit.toml")
    assert config.bandit.strategies == ("lexical", "semantic")
    assert config.rewards.click_gain == {"click": 1.0}
    assert "strategy bandit: yes, 2 strategies" in result.stderr
    assert "off-policy estimates: no" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--map", "query=term"), "time: missing"),
        (("--map", "query=terms", "--map", "time=at"), "no column 'terms'; it has term"),
        ((*BY_LIST, "--map", "item=ids"), "shown, item"),
        ((*BY_LIST, "--map", "sesion=uid"), "sesion: no such field"),
        (("--map", "query=term", "--map", "time=uid"), "lists.csv, row 1: time: 'u1' is not a time: write "),
        ((*MAP, "--map", "item=uid", "--map", "position=uid"), "lists.csv, row 1: position: 'u1'"),
        ((*BY_LIST, "--map", "strategies=uid"), "strategies: is of an item; leave it out, or map `item`"),
        ((*MAP, "--map", "position=uid"), "position: is of an item"),
        (("--map", "query"), "NAME=VALUE"),
    ],
)
def test_what_is_wrong_is_named(lists: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in complaint(run("table", lists, *arguments))


def test_a_row_is_counted_in_its_own_file(lists: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("term,at,uid,sku,rank\njazz,1764324000,u1,a,0\n")
    assert "other.csv, row 1: position: 0 " in complaint(
        run("table", other, *MAP, "--map", "item=sku", "--map", "position=rank")
    )


@pytest.mark.parametrize(
    "mapped", [("--map", "shown=sku", "--map", "clicked=sku"), ("--map", "item=sku", "--map", "clicked=hit")]
)
def test_times_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path, mapped: tuple[str, ...]) -> None:
    (tmp_path / "some.csv").write_text(
        "term,at,uid,sku,hit,when\njazz,1764324000,u1,a,1,1764324009\njazz,,u1,b,1,\njazz,soon,u1,c,1,\n"
        "blues,1764324000,u1,d,1,later\n"
    )
    result = run("table", tmp_path / "some.csv", *MAP, *mapped, "--map", "click_time=when")
    assert result.exit_code == 0
    assert "left out: 2 rows whose time cannot be read, the first in " in result.stderr
    assert "some.csv, row 2: time: None is not a time: write " in result.stderr
    assert "left out: 1 times of clicks that cannot be read, the first in " in result.stderr
    assert "some.csv, row 4: click_time: 'later' is not a time: write " in result.stderr
    found = [EventDecoder().decode(line) for line in result.stdout_bytes.splitlines()]
    assert sorted(one.text for one in found if isinstance(one, Query)) == ["blues", "jazz"]
    clicks = {one.entity_id: one.ts for one in found if isinstance(one, Click)}
    assert clicks == {"a": 1764324009000, "d": 1764324001000}


def test_a_wrong_mapping_is_a_wrong_command(lists: Path, tmp_path: Path) -> None:
    (tmp_path / "fit.toml").write_text("query = 1")
    for arguments in (("--map", "sesion=uid"), ("--mapping", tmp_path / "fit.toml")):
        assert run("table", lists, *arguments).exit_code == 2


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1nonsense")
    assert "bad.parquet" in complaint(run("table", tmp_path / "bad.parquet", *BY_LIST))
    (tmp_path / "latin.csv").write_bytes("größe,term\n1,x\n".encode("latin-1"))
    assert "latin.csv: 'utf-8' codec can't decode" in complaint(run("table", tmp_path / "latin.csv", *BY_LIST))


@given(st.integers(1_000_000_000_000, 4_000_000_000_000))
def test_a_time_is_the_same_in_every_form(ms: int) -> None:
    whole = ms // 1000 * 1000
    assert ms_of(ms) == ms_of(ms * 1000) == ms_of(ms * 1_000_000) == ms_of(str(ms)) == ms
    assert ms_of(whole // 1000) == whole
