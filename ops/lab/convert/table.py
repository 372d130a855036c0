"""Events from tables: CSV and Parquet files with one row per search, or per item shown.

A mapping says which column holds each field:

| field | meaning |
|---|---|
| `query`, `time` | the query's text, and its time; required |
| `shown` | a row is a search: the list of results shown, from the top |
| `clicked` | the list of results clicked; with `item`, whether it was clicked |
| `item`, `position` | a row is an item shown: its id, and its position, from 1; by default the rows' order |
| `click_time`, `kind` | the time and kind of the click; a list beside `clicked`, or one value for all |
| `query_id`, `session`, `user`, `locale` | as logged; made up, the same in every run, if they are missing |
| `strategies` | with `item`, the strategies that brought it: a list or a name |
| `context.NAME` | a value of the query's context, by any name |

A list is a Parquet list or, in CSV, JSON or text with a separator. A click without a time that can be read is dated one
second after its query; a row without one is left out.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from msgspec import Struct

from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.convert.sessions import GAP_S, id_of, ms_of, sessions
from backchannel.ops.lab.convert.unreadable import Unreadable
from backchannel.schemas.events import Click, Event, Impression, Query, Result

FIELDS: Final = (
    "query",
    "time",
    "shown",
    "clicked",
    "item",
    "position",
    "click_time",
    "kind",
    "query_id",
    "session",
    "user",
    "locale",
    "strategies",
)
CONTEXT: Final = "context."
CLICK_MS: Final = 1000
"""Time from a query to a click without a time, ms."""

_FALSE: Final = frozenset({"", "0", "0.0", "false", "f", "no", "n", "null", "none", "nan"})
_MOST: Final = 500
_LONGEST: Final = 2000
_ID: Final = 256


class Place(NamedTuple):
    """Where a row is: the file, and its number in it, from 1."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}, row {self.number}"


Row: TypeAlias = tuple[Place, Mapping[str, Any]]
"""Where a row is, and its values by field."""
Note: TypeAlias = Callable[[str, str], None]
"""Called with what is left out of a row, and the value that cannot be read."""


class _Search(Struct):
    """A search, assembled from its rows.

    Attributes:
        shown: (position, entity, strategies).
        clicks: (entity, time in ms or None, kind).
    """

    query: str
    ts: int
    query_id: str | None
    session: str | None
    user: str | None
    locale: str | None
    context: dict[str, Any]
    shown: list[tuple[int, str, tuple[str, ...]]] = []
    clicks: list[tuple[str, int | None, str]] = []


def check(mapping: Mapping[str, str]) -> None:
    """Check a mapping's fields.

    Raises:
        ConversionError: a field is unknown or missing, or two fields contradict each other.
    """
    for field in mapping:
        if field not in FIELDS and not field.startswith(CONTEXT):
            raise ConversionError(f"{field}: no such field; there are {', '.join(FIELDS)} and {CONTEXT}NAME")
    for field in ("query", "time"):
        if field not in mapping:
            raise ConversionError(f"{field}: missing; name its column with --map {field}=COLUMN")
    if "shown" in mapping and "item" in mapping:
        raise ConversionError(
            "shown, item: a row is a search with a list `shown`, or an `item` that was shown; not both"
        )
    for field in ("position", "strategies"):
        if field in mapping and "item" not in mapping:
            raise ConversionError(f"{field}: is of an item; leave it out, or map `item`, with one row per item shown")


def rows(path: Path, mapping: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of a file, with where they are.

    Raises:
        ConversionError: the file cannot be read, or lacks a column.
    """
    columns = list(dict.fromkeys(mapping.values()))
    batches: Any
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        if parquet:
            whole: Any = pa.parquet.ParquetFile(path)
            _require(columns, whole.schema_arrow.names, path)
            batches = whole.iter_batches(columns=columns)
        else:
            options = pa.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            )
            # Quoted values may contain line breaks.
            batches = pa.csv.open_csv(
                path, parse_options=pa.csv.ParseOptions(newlines_in_values=True), convert_options=options
            )
            _require(columns, batches.schema.names, path)
        listed = chain.from_iterable(batch.select(columns).to_pylist() for batch in batches)
        for number, row in enumerate(listed, 1):
            yield Place(path, number), {field: row[column] for field, column in mapping.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path}: {error}: CSV with a header, or Parquet, is needed") from None


def events(found: Iterable[Row], separator: str, dropped: Counter[str], gap_s: float = GAP_S) -> list[Event]:
    """Return the events of all rows, in time order.

    Args:
        found: rows, in any order.
        separator: the separator of lists given as text.
        dropped: counts of what is left out, by reason; added to.
        gap_s: the silence that separates sessions, s.

    Raises:
        ConversionError: a row has no valid position, or none has a valid time.
    """
    searches: dict[Hashable, _Search] = {}
    unreadable = Unreadable()
    for place, row in found:
        try:
            left_out = _add(searches, place, row, separator, partial(unreadable.add, place))
        except ConversionError as error:
            raise ConversionError(f"{place}: {error}") from None
        if left_out:
            dropped[left_out] += 1
    dropped += unreadable.reasons(kept=bool(searches))
    return _events(searches.values(), gap_s)


def _add(
    searches: dict[Hashable, _Search], place: Hashable, row: Mapping[str, Any], separator: str, note: Note
) -> str | None:
    """Add a row to its search; return why it is left out, or None."""
    query = _text(row.get("query"))
    if query is None:
        return "rows without a query"
    try:
        ts = ms_of(row["time"])
    except ValueError as error:
        note("rows whose time cannot be read", f"time: {error}")
        return None
    own = _Search(
        query=query[:_LONGEST],
        ts=ts,
        query_id=_id(row.get("query_id")),
        session=_id(row.get("session")),
        user=_id(row.get("user")),
        locale=(_text(row.get("locale")) or "")[:35] or None,
        context={
            field.removeprefix(CONTEXT): _scalar(value)
            for field, value in row.items()
            if field.startswith(CONTEXT) and value is not None
        },
    )
    if "item" in row:
        search = searches.setdefault(own.query_id or (own.session, own.user, query, ts), own)
        _add_item(search, row, separator, note)
        return None
    # Equal searches in the same millisecond are distinct; a repeated query_id is not counted twice.
    key: Hashable = own.query_id or (own.session, own.user, query, ts, place)
    if key in searches:
        return "rows with a repeated query_id"
    searches[key] = own
    _add_lists(own, row, separator, note)
    return None


def _events(searches: Iterable[_Search], gap_s: float) -> list[Event]:
    made: Counter[tuple[object, ...]] = Counter()
    identified: dict[str, _Search] = {}
    for search in searches:
        parts = (search.query, search.ts, search.session, search.user)
        query_id = search.query_id or id_of(*parts, made[parts])
        made[parts] += 1
        identified[query_id] = search
    known = sessions(((name, one.user or name, one.ts) for name, one in identified.items()), gap_s)
    happened: list[Event] = []
    for query_id, search in identified.items():
        ids: dict[str, Any] = {"query_id": query_id, "session_id": search.session or known[query_id]}
        happened.append(
            Query(
                event_id=f"{query_id}/query"[-_ID:],
                ts=search.ts,
                text=search.query,
                user_id=search.user,
                locale=search.locale,
                context=search.context,
                **ids,
            )
        )
        if search.shown:
            results = tuple(Result(entity, place, by) for place, entity, by in sorted(search.shown)[:_MOST])
            happened.append(Impression(event_id=f"{query_id}/impression"[-_ID:], ts=search.ts, results=results, **ids))
        for place, (entity, ts, kind) in enumerate(search.clicks, 1):
            happened.append(
                Click(
                    event_id=f"{query_id}/click/{place}"[-_ID:],
                    ts=search.ts + CLICK_MS if ts is None else ts,
                    entity_id=entity,
                    kind=kind,
                    **ids,
                )
            )
    return sorted(happened, key=lambda event: (event.ts, not isinstance(event, Query), event.event_id))


def _add_lists(search: _Search, row: Mapping[str, Any], separator: str, note: Note) -> None:
    for place, entity in enumerate(_list(row.get("shown"), separator), 1):
        if all(entity != one for _, one, _ in search.shown):
            search.shown.append((place, entity, ()))
    clicked = _list(row.get("clicked"), separator)
    times, kinds = (_list(row.get(name), separator) for name in ("click_time", "kind"))
    for place, entity in enumerate(clicked):
        search.clicks.append((entity, _click_ts(_at(times, place), note), _at(kinds, place) or "click"))


def _add_item(search: _Search, row: Mapping[str, Any], separator: str, note: Note) -> None:
    entity = _id(row.get("item"))
    if entity is None:
        return
    position = _text(row.get("position"))
    try:
        place = int(float(position)) if position else len(search.shown) + 1
    except ValueError:
        raise ConversionError(f"position: {position!r} of {entity!r} is not a number") from None
    if not 1 <= place <= 10_000:
        raise ConversionError(
            f"position: {place} of {entity!r}; positions count from 1 to 10000: leave it out if rows are in order"
        )
    if all(entity != one for _, one, _ in search.shown):
        search.shown.append((place, entity, tuple(_list(row.get("strategies"), separator))))
    if (_text(row.get("clicked")) or "").lower() not in _FALSE:
        kind = _text(row.get("kind")) or "click"
        search.clicks.append((entity, _click_ts(_text(row.get("click_time")), note), kind[:64]))


def _click_ts(value: str | None, note: Note) -> int | None:
    try:
        return None if value is None else ms_of(value)
    except ValueError as error:
        note("times of clicks that cannot be read", f"click_time: {error}")
        return None


def _at(values: Sequence[str], place: int) -> str | None:
    """Return the value at `place`; a single value holds for all places."""
    if len(values) == 1:
        return values[0]
    return values[place] if place < len(values) else None


def _list(value: Any, separator: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = msgspec.json.decode(value)
        except msgspec.MsgspecError:
            value = value.strip().strip("[]")
    if isinstance(value, str):
        value = value.split(separator)
    if not isinstance(value, list | tuple):
        value = [value]
    return [one for item in value if (one := _id(item)) is not None]


def _id(value: Any) -> str | None:
    text = _text(value)
    return None if text is None else text[:_ID]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _scalar(value: Any) -> Any:
    """Return a context value; numbers given as text, as in CSV, are converted."""
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    try:
        return float(text)
    except ValueError:
        return text[:_ID]


def _require(columns: Iterable[str], names: Sequence[str], path: Path) -> None:
    for column in columns:
        if column not in names:
            raise ConversionError(f"{path}: no column {column!r}; it has {', '.join(names)}")
