"""How people write events: ids that are numbers, times in other units, envelopes."""

import codecs
from collections.abc import Callable
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
    strict: Annotated[
        bool,
        Meta(
            description="an optional value that cannot be used makes the event a dead letter, instead of being left out"
        ),
    ] = False


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
        raise FormError(f"{text[:80]!r} is not a time") from None
    if time.tzinfo is None:
        raise FormError(f"{text!r} has no time zone")
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


def unwrapper(config: EventConfig) -> Callable[[bytes], bytes] | None:
    """Return the function that takes the JSON of an event out of its record; None: the record is the event.

    The function raises `FormError`, or what msgspec raises, for a record without an event.
    """
    if not config.encoded and not config.envelope:
        return None
    texts, objects = msgspec.json.Decoder(str), msgspec.json.Decoder(dict[str, Raw])
    keys = config.envelope.split(".") if config.envelope else []

    def unwrap(record: bytes) -> bytes:
        record = record.removeprefix(codecs.BOM_UTF8)
        if config.encoded:
            record = texts.decode(record).encode()
        for depth, key in enumerate(keys, 1):
            inner = objects.decode(record).get(key)
            if inner is None:
                raise FormError(f"{'.'.join(keys[:depth])}: missing")
            record = bytes(inner)
            if record[:1] == b'"':
                record = texts.decode(record).encode()
        return record

    return unwrap
