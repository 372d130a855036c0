"""How people write events: ids that are numbers, times in other units, envelopes."""

import codecs
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import floor, isfinite
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_EXACT: Final = 1 << 53
"""Floats below this are exact if they are whole."""


class FormError(ValueError):
    """A value is not in a form that can be read; the message says why."""


class EventConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How events are written, and what becomes of values that cannot be used."""

    time: Annotated[
        Literal["ms", "s", "us", "iso"],
        Meta(
            description='what `ts` is: "ms", "s" or "us" since the Unix epoch, or "iso" for texts such as '
            "2026-11-28T20:00:00.5+01:00. A text with date and time zone is also read where numbers are declared"
        ),
    ] = "ms"
    envelope: Annotated[
        str,
        Meta(
            max_length=256,
            description='key of a record under which the event is, such as "payload", or "payload.after" for one '
            "within another; JSON as a text is decoded. Empty: the record is the event",
        ),
    ] = ""
    encoded: Annotated[bool, Meta(description="records are JSON texts that hold the JSON of an event")] = False
    fields: Annotated[
        dict[str, dict[str, str]],
        Meta(
            description="event type -> field -> where its value is in a record with other names, as a JMESPath "
            'expression (https://jmespath.org): `fields.query = { text = "search.term", ts = "at" }`. Results without '
            "a position have their place in the list"
        ),
    ] = {}
    strict: Annotated[
        bool,
        Meta(
            description="an optional value that cannot be used makes the event a dead letter, instead of being left out"
        ),
    ] = False

    def __post_init__(self) -> None:
        for name, fields in self.fields.items():
            compiled(name, fields)


NATIVE: Final = EventConfig()
"""How events are written that Backchannel writes."""


def time_of(value: Any, unit: str) -> Any:
    """Return an event time in ms since the Unix epoch; what is no time is returned as it is.

    Args:
        value: the time, as it was written.
        unit: see `EventConfig.time`.

    Raises:
        FormError: the time cannot be read.
    """
    number = number_of(value)
    if isinstance(number, str):
        return _from_iso(number)
    if unit == "iso" and number is not None:
        raise FormError(f'{value!r} is a number, events.time = "iso" declares texts')
    if isinstance(number, float):
        if not isfinite(number) or abs(number) > _EXACT:
            return number
        return floor(number) if unit == "ms" else round(number * 1000) if unit == "s" else floor(number / 1000)
    if isinstance(number, int):
        return number if unit == "ms" else number * 1000 if unit == "s" else number // 1000
    return value


def _from_iso(text: str) -> int:
    try:
        time = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        raise FormError(
            f"{text[:80]!r} is not a time, such as a number (of what, events.time says) or 2023-11-14T22:13:20Z"
        ) from None
    if time.tzinfo is None:
        raise FormError(f"{text!r} has no time zone: append Z, or an offset such as +01:00")
    return (time - _EPOCH) // _MS


def number_of(value: Any) -> Any:
    """Return the number that is written as a text, exactly; anything else is returned as it is, None for a boolean."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 20:
            return int(text)
        try:
            return float(text) if text[-1:].isdecimal() and "_" not in text else value
        except ValueError:
            return value
    return value


def text_of(value: Any) -> Any:
    """Return the text of a whole number, exactly; anything else is returned as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return value


def compiled(event: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return field -> compiled expression; see `EventConfig.fields`.

    Raises:
        ValueError: an expression is invalid.
        ModuleNotFoundError: the extra `learn` is not installed.
    """
    import jmespath  # noqa: PLC0415 - an extra, and few need it

    expressions = {}
    for field, text in fields.items():
        try:
            expressions[field] = jmespath.compile(text)
        except jmespath.exceptions.JMESPathError as error:
            raise ValueError(f"fields.{event}.{field}: {' '.join(str(error).split())}") from None
    return expressions


def unwrapper(
    config: EventConfig, event: str | None = None, to_json: Callable[[bytes], bytes] | None = None
) -> Callable[[bytes], bytes] | None:
    """Return the function that makes the JSON of an event of its record; None: the record is the event.

    The function raises `FormError`, or what msgspec raises, for a record without an event.

    Args:
        config: how events are written.
        event: the type of the events; None: records say it themselves.
        to_json: turns a record into JSON, if it is not.
    """
    texts, objects = msgspec.json.Decoder(str), msgspec.json.Decoder(dict[str, Raw])
    keys = config.envelope.split(".") if config.envelope else []
    if event is not None:
        mapped = {event: compiled(event, config.fields[event])} if event in config.fields else {}
    else:
        mapped = {name: compiled(name, fields) for name, fields in config.fields.items()}
    if to_json is None and not config.encoded and not keys and not mapped:
        return None

    def unwrap(record: bytes) -> bytes:
        record = to_json(record) if to_json is not None else record.removeprefix(codecs.BOM_UTF8)
        if config.encoded:
            record = texts.decode(record).encode()
        for depth, key in enumerate(keys, 1):
            inner = objects.decode(record).get(key)
            if inner is None:
                raise FormError(f"{'.'.join(keys[:depth])}: missing")
            record = bytes(inner)
            if record[:1] == b'"':
                record = texts.decode(record).encode()
        return _picked(record, event, mapped) if mapped else record

    return unwrap


def _picked(record: bytes, event: str | None, mapped: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return an event of the values that expressions find in a record."""
    document = msgspec.json.decode(record)
    name = event or (document.get("type") if isinstance(document, dict) else None)
    if not isinstance(name, str) or name not in mapped:
        return record
    found: dict[str, Any] = {"type": name}
    for field, expression in mapped[name].items():
        try:
            value = expression.search(document)
        except Exception as error:  # whatever a function of JMESPath makes of values that anybody may have written
            raise FormError(f"fields.{name}.{field}: {error}") from None
        if value is not None:
            found[field] = value
    results = found.get("results")
    for place, result in enumerate(results if isinstance(results, list) else (), 1):
        if isinstance(result, dict):  # no expression can number a list
            result.setdefault("position", place)
    return msgspec.json.encode(found)
