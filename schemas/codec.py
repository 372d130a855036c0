"""Events as JSON: the one way to read and to write them.

Events are UTF-8 JSON objects, keyed by `session_id`. Unknown fields are ignored, so that producers may be newer than
this version. A required field that is missing, ill-typed or oversized is an `EventError` that names it; an optional
value that cannot be used is left out, see `repair`.
"""

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from copy import copy
from functools import reduce
from operator import getitem
from typing import Any, Final

import msgspec

from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import EVENT_TYPES, Event, name_of
from backchannel.schemas.forms import NATIVE, EventConfig, FormError, unwrapper
from backchannel.schemas.repair import Dropped, Repairer, Unusable, described

MAX_RECORD_BYTES: Final = 1 << 18
"""Longer records are refused without decoding, so that a blob cannot cost its size in memory."""


_MAX_EXPLANATION: Final = 400


_BOUNDED: Final = tuple(f"Expected `{kind}` {sign}" for kind in ("int", "float") for sign in "<>")


_FAULTS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All errors that msgspec raises, whatever the bytes."""


class EventError(BackchannelError, ValueError):
    """A record is not a valid event. The message names the field and what is wrong with it."""


class EventDecoder:
    """Decodes and validates records in one pass. Only a record that fails is read again, to make the best of it.

    Args:
        event_type: the event type of a topic; None: each record names its own in the field `type`, as in event files.
        config: how events are written, and what becomes of values that cannot be used.
        to_json: turns a record into JSON, or raises `FormError`; None: records are JSON.
    """

    def __init__(
        self,
        event_type: type[Event] | None = None,
        config: EventConfig = NATIVE,
        to_json: Callable[[bytes], bytes] | None = None,
    ) -> None:
        target: Any = event_type or Event
        self._typed: Final = msgspec.json.Decoder(target).decode
        self._only: Final = event_type
        self._unit: Final = config.time
        self._strict: Final = config.strict
        self._unwrap: Final = unwrapper(config, None if event_type is None else name_of(event_type), to_json)
        self._repairers: Final[dict[type[Event], Repairer]] = {}  # made when they are needed first

    def decode(self, record: bytes) -> Event:
        """Return the event in `record`.

        Raises:
            EventError: the record is not a valid event. No other error is raised, whatever the bytes.
        """
        return self._decode(record)[0]

    def decode_many(self, records: Sequence[bytes | None]) -> list[Event | EventError]:
        """Decode `records`; invalid ones are replaced by their errors, and so is None, Kafka's null value."""
        return self.decode_noting(records)[0]

    def decode_noting(
        self, records: Sequence[bytes | None]
    ) -> tuple[list[Event | EventError], list[tuple[int, Dropped]]]:
        """Decode `records` as `decode_many` does; also return the values that were left out, each with its place."""
        # All at once if possible: hardly any chunk has a record with an escape, let alone an invalid one.
        whole = [record for record in records if record is not None]
        plain = max(map(len, whole), default=0) <= MAX_RECORD_BYTES and b"\\" not in b"".join(whole)
        if plain and len(whole) == len(records) and self._unit == "ms" and self._unwrap is None:
            try:
                return list(map(self._typed, whole)), []
            except _FAULTS:
                pass
        decoded: list[Event | EventError] = []
        dropped: list[tuple[int, Dropped]] = []
        for place, record in enumerate(records):
            try:
                event, left_out = self._decode(record)
            except EventError as error:
                decoded.append(error)
            else:
                decoded.append(event)
                dropped += ((place, one) for one in left_out)
        return decoded, dropped

    def _decode(self, record: bytes | None) -> tuple[Event, Sequence[Dropped]]:
        if record is None:
            raise EventError("record: null")
        if len(record) > MAX_RECORD_BYTES:
            raise EventError(f"record: {len(record)} bytes, more than the {MAX_RECORD_BYTES} allowed")
        try:
            if self._unwrap is not None:
                record = self._unwrap(record)
        except FormError as error:
            raise EventError(str(error)) from None
        except _FAULTS as error:
            raise EventError(explain(error)) from None
        # U+0000 is legal in JSON, but not storable in SQL.
        if self._unit == "ms" and b"\\u0000" not in record:
            try:
                return self._typed(record), ()
            except _FAULTS:
                pass
        return self._repair(record)

    def _repair(self, record: bytes) -> tuple[Event, Sequence[Dropped]]:
        """Decode a record value by value."""
        try:
            document = _untyped(record)
        except EventError:
            try:
                self._typed(record)
            except _FAULTS as better:  # it names the field
                error = EventError(explain(better))
            raise error from None
        if not isinstance(document, dict):
            raise EventError("record: Expected `object`")
        name = document.get("type")
        event_type = EVENT_TYPES.get(name) if isinstance(name, str) else None
        if self._only is not None and ("type" not in document or name == name_of(self._only)):
            event_type = self._only
        elif event_type is None or self._only is not None:
            known = EVENT_TYPES if self._only is None else (name_of(self._only),)
            wrong = f"{str(name)[:_MAX_EXPLANATION]!r}, must be one of {', '.join(known)}"
            raise EventError(f"type: {'missing' if name is None else wrong}")
        repairer = self._repairers.get(event_type)
        if repairer is None:
            repairer = self._repairers[event_type] = Repairer(event_type, self._unit)
        try:
            fixed, dropped = repairer.repair(document)
        except Unusable as fault:
            raise EventError(str(fault)) from None
        if dropped and self._strict:
            raise EventError(dropped[0].reason)
        try:
            return self._typed(msgspec.json.encode({"type": name_of(event_type), **fixed})), dropped
        except _FAULTS as error:
            raise EventError(explain(error)) from None


def encode(event: Event) -> bytes:
    """Encode `event` as a JSON object that names its type, without line breaks."""
    return _encode(event)


def checked(event: Event) -> Event:
    """Return an event that was built in this process as if it had been read: numpy's numbers become Python's.

    Raises:
        EventError: it is not a valid event.
    """
    try:
        return _CHECKER.decode(encode(event))
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise EventError(f"{name_of(type(event))}: {error}") from None


def _plain(value: Any) -> Any:
    """Return a numpy scalar as a number of Python; this package does without numpy."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent")


_encode: Final = msgspec.json.Encoder(enc_hook=_plain).encode


_CHECKER: Final = EventDecoder(config=EventConfig(strict=True))


def explain(error: Exception, document: Any = None, kind: Any = None) -> str:
    """Explain an error of decoding: msgspec's message, reordered: the field first, then the fault.

    The message ends in " - at `$.field`", or in " - at `key` in `$.field`", unless the whole record is at fault.

    Args:
        error: the error.
        document: what was read, if it is known: then the value at fault is quoted.
        kind: the type that it was read as.
    """
    if isinstance(error, UnicodeDecodeError):
        return "record: not UTF-8"
    if isinstance(error, RecursionError):
        return "record: nested too deeply"
    message = str(error)
    if len(message) > _MAX_EXPLANATION:  # it quotes a value
        message = f"{message[: _MAX_EXPLANATION // 2]} ... {message[-_MAX_EXPLANATION // 2 :]}"
    what, _, where = message.rpartition(" - at `")
    if what:
        key, _, name = where.rstrip("`").rpartition("$")
        name = name.lstrip(".")
        if not key and document is not None:
            name = named(name, document, kind)
            what = quoting(what, document, name)
        return f"{name or 'record'}{' key' if key else ''}: {what}"
    if message.startswith("Object missing required field"):
        return f"{message.split('`')[1]}: missing"
    return f"record: {message}"


def named(path: str, document: Any, kind: Any) -> str:
    """Return a path with the names of the entries of objects that are at fault, which msgspec writes as `[...]`.

    Args:
        path: where the fault is, such as `context[...]`.
        document: what was read.
        kind: the type that it was read as.
    """
    shown, *rest = path.split("[...]")
    steps = _steps(shown)
    for place, part in enumerate(rest):
        name = _first_at_fault(document, steps, kind, f"`$.{path}`")
        if name is None:
            return "[...]".join((shown, *rest[place:]))
        document = _replaced(document, steps, {name: reduce(getitem, [*steps, name], document)})
        steps = [*steps, name, *_steps(part)]
        shown += f".{name}{part}"
    return shown


def _first_at_fault(document: Any, steps: Sequence[str | int], kind: Any, fault: str) -> str | None:
    """Return the name of the first entry at fault in the object at the end of `steps`; None if it is not found."""
    entries = reduce(getitem, steps, document)
    names = list(entries) if isinstance(entries, dict) else []

    def is_told(last: int) -> bool:
        """Return whether the fault is in the entries up to this one."""
        some = {name: entries[name] for name in names[: last + 1]}
        try:
            msgspec.convert(_replaced(document, steps, some), kind)
        except msgspec.ValidationError as error:
            return str(error).endswith(fault)
        return False

    found = bisect_left(range(len(names)), x=True, key=is_told)  # each look costs as much as the whole document
    return names[found] if found < len(names) and len(names[found]) <= _MAX_EXPLANATION else None


def _steps(path: str) -> list[str | int]:
    return [int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)]


def _replaced(document: Any, steps: Sequence[str | int], value: Any) -> Any:
    """Return a copy of a document with another value at the end of `steps`."""
    if not steps:
        return value
    copied = copy(document)
    copied[steps[0]] = _replaced(document[steps[0]], steps[1:], value)
    return copied


def quoting(what: str, document: Any, path: str) -> str:
    """Return msgspec's message with a value that it does not quote: one out of bounds, or of another type.

    Args:
        what: msgspec's message.
        document: what was read.
        path: where the value is, such as `candidates[2].score`.
    """
    wanted, mismatch, _ = what.rpartition(", got `")
    if "[...]" in path or not (mismatch or what.startswith(_BOUNDED)):
        return what
    try:
        document = reduce(getitem, _steps(path), document)
    except (LookupError, TypeError):
        return what
    return f"{wanted}, got {described(document)}" if mismatch else f"{what}, got {document}"[:_MAX_EXPLANATION]


def refuse_nul(value: object, name: str) -> None:
    """Refuse text that SQL cannot store, in a container of anything.

    Raises:
        EventError: there is such a text; the message names the field.
    """
    if isinstance(value, str) and "\0" in value:
        raise EventError(f"{name}: contains the character U+0000")
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_nul(key, f"{name} key")
            refuse_nul(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_nul(item, name)


def _untyped(record: bytes) -> Any:
    try:
        return msgspec.json.decode(record)
    except _FAULTS as error:
        try:
            # Python reads what JSON does not have, such as NaN; and a byte order mark is no part of a text.
            return json.loads(record.removeprefix(codecs.BOM_UTF8).decode())
        except (ValueError, RecursionError):
            raise EventError(explain(error)) from None
