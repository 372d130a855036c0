"""Making the best of an event with unusable values: optional ones are left out, required ones refuse the event.

What is left out is the smallest optional part: an entry of a context, one of the strategies of a result, a rewrite.
Allocation, plan, propensities, places and examination curve are statements as a whole, and are left out as a whole.
Numbers that are right but for their form are used: ids and times as people have them, see `forms`; a probability that
exceeds 1 by a rounding error; positions from 0; fractions of milliseconds.
"""

import operator
import sys
from collections.abc import Callable, Mapping
from math import floor, inf, isfinite, isinf, isnan
from typing import Any, Final, Self

from msgspec import NODEFAULT, Struct, inspect

from backchannel.schemas.forms import FormError, number_of, text_of, time_of

_WHOLE: Final = frozenset({"allocation", "planned", "propensities", "examined", "places"})
_TIMES: Final = frozenset({"ts", "labelled_at"})
_ROUNDING: Final = 1e-6
"""How far a bound may be exceeded by a rounding error."""

_QUOTED: Final = 60
"""Longest quotation of a value."""
_KINDS: Final = {type(None): "`null`", bool: "`bool`", list: "`array`"}

Path = tuple[str | int, ...]


class Unusable(Exception):  # noqa: N818 -- a value, not an error of the program
    """A value cannot be used."""

    def __init__(self, why: str, *path: str | int) -> None:
        super().__init__(why)
        self._why: Final = why
        self._path: Path = path

    def within(self, step: str | int) -> Self:
        """Say where the value is: at `step` of what holds it."""
        self._path = (step, *self._path)
        return self

    def __str__(self) -> str:
        return f"{label(self._path)}: {self._why}"


class Dropped(Struct, frozen=True):
    """A value that was left out.

    Attributes:
        field: the field, without keys: `context`, `results.features` ...
        fault: what was wrong with it.
    """

    field: str
    fault: Unusable

    @property
    def reason(self) -> str:
        """Where exactly the value was, and why it could not be used."""
        return str(self.fault)


def label(path: Path) -> str:
    """Return a path as it is written: `results[3].features.price`."""
    said = ""
    for step in path:
        said += f"[{step}]" if isinstance(step, int) else f".{step}" if said else step
    if len(said) > 2 * _QUOTED:
        said = f"{said[:_QUOTED]}...{said[-_QUOTED:]}"
    return said or "record"


Fix = Callable[[Any, list["Dropped"]], Any]
"""Returns a value as it can be used, and notes what was left out; raises `Unusable`."""


class Repairer:
    """Repairs the documents of one struct.

    Args:
        struct: the struct.
        unit: of times, see `EventConfig.time`.
    """

    def __init__(self, struct: type[Struct], unit: str) -> None:
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType)
        self._unit: Final = unit
        self._fix: Final = self._struct(info, "")

    def repair(self, document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Dropped]]:
        """Return the document without what is unusable or unknown, and what was left out.

        Raises:
            Unusable: something required cannot be used.
        """
        dropped: list[Dropped] = []
        return self._fix(document, dropped), dropped

    def _of(self, info: inspect.Type, field: str) -> Fix:
        """Return how values of a type are fixed, in a field."""
        match info:
            case inspect.Metadata(type=inner):
                fix = self._of(inner, field)
            case inspect.UnionType():
                fix = self._union(info, field)
            case inspect.StructType():
                fix = self._struct(info, field)
            case inspect.DictType():
                fix = self._dict(info, field)
            case inspect.VarTupleType():
                fix = self._tuple(info, field)
            case inspect.StrType():
                fix = _text(info)
            case inspect.IntType():
                fix = _whole(info, fractions=field.endswith("_ms"))
            case inspect.FloatType():
                fix = _number(info)
            case inspect.BoolType():
                fix = _boolean
            case inspect.LiteralType():
                fix = _choice(info)
            case _:
                raise TypeError(f"{field}: there is no way to repair a {info}")
        return fix

    def _struct(self, info: inspect.StructType, within: str) -> Fix:
        fields = []
        for one in info.fields:
            name = one.encode_name
            field = f"{within}.{name}" if within else name
            # What is assumed instead is nothing, unless the default says something.
            says = one.default not in (NODEFAULT, None, (), {})
            fix = self._of(one.type, field)
            if name in _TIMES:
                fix = _time(fix, self._unit)
            elif field == "results":
                fix = _from_one(fix)
            fields.append((name, field, one.required, says, fix))

        def repair(value: Any, dropped: list[Dropped]) -> dict[str, Any]:
            if not isinstance(value, Mapping):
                raise Unusable(_mismatch("object", value))
            fixed: dict[str, Any] = {}
            for name, field, required, says, fix in fields:
                if name not in value:
                    if required:
                        raise Unusable("missing", name)
                    continue
                known = len(dropped)
                try:
                    fixed[name] = fix(value[name], dropped)
                except Unusable as fault:
                    fault.within(name)
                    if required or (says and value[name] is not None):
                        raise
                    dropped.append(Dropped(field, fault))
                else:
                    _within(name, dropped, known)
            return fixed

        return repair

    def _union(self, info: inspect.UnionType, field: str) -> Fix:
        """A type or none, or a scalar, of which its type decides what it must be."""
        kinds = [one.type if isinstance(one, inspect.Metadata) else one for one in info.types]
        some = [one for one in kinds if not isinstance(one, inspect.NoneType)]
        if len(some) == 1:
            only = self._of(some[0], field)
            return lambda value, dropped: None if value is None else only(value, dropped)
        if all(isinstance(one, inspect.StructType) for one in some):
            return self._tagged([one for one in some if isinstance(one, inspect.StructType)], field)
        scalars: dict[type, Fix] = {}
        for one in some:
            fix = self._of(one, field)
            for python, wanted in _SCALARS.items():
                if isinstance(one, wanted):
                    scalars[python] = fix

        def repair(value: Any, dropped: list[Dropped]) -> Any:
            fix = scalars.get(type(value))
            if fix is None:
                raise Unusable(_mismatch("number, text or boolean", value))
            return fix(value, dropped)

        return repair

    def _tagged(self, kinds: list[inspect.StructType], field: str) -> Fix:
        """A struct of several, of which its tag says the kind."""
        tag = str(kinds[0].tag_field)
        fixes = {one.tag: self._struct(one, field) for one in kinds}

        def repair(value: Any, dropped: list[Dropped]) -> Any:
            if not isinstance(value, Mapping):
                raise Unusable(_mismatch("object", value))
            name = value.get(tag)
            if not isinstance(name, str) or name not in fixes:
                raise Unusable(f"must be one of {', '.join(map(str, fixes))}", tag)
            return {tag: name, **fixes[name](value, dropped)}

        return repair

    def _dict(self, info: inspect.DictType, field: str) -> Fix:
        key_of, value_of = self._of(info.key_type, field), self._of(info.value_type, field)
        most = info.max_length or sys.maxsize
        whole = field in _WHOLE

        def repair(value: Any, dropped: list[Dropped]) -> dict[str, Any]:
            if not isinstance(value, Mapping):
                raise Unusable(_mismatch("object", value))
            fixed: dict[str, Any] = {}
            for key, item in value.items():
                known = len(dropped)
                try:
                    if len(fixed) >= most:
                        raise Unusable(f"more than {most} entries")
                    fixed[key_of(key, dropped)] = value_of(item, dropped)
                except Unusable as fault:
                    fault.within(key)
                    if whole:
                        raise
                    dropped.append(Dropped(field, fault))
                else:
                    _within(key, dropped, known)
            return fixed

        return repair

    def _tuple(self, info: inspect.VarTupleType, field: str) -> Fix:
        item_of = self._of(info.item_type, field)
        most = info.max_length or sys.maxsize
        whole = field in _WHOLE or isinstance(info.item_type, inspect.StructType)

        def repair(value: Any, dropped: list[Dropped]) -> list[Any]:
            if not isinstance(value, list):
                raise Unusable(_mismatch("array", value))
            if len(value) > most:
                raise Unusable(f"Expected `array` of length <= {most}, got {len(value)}")
            fixed = []
            for place, item in enumerate(value):
                known = len(dropped)
                try:
                    fixed.append(item_of(item, dropped))
                except Unusable as fault:
                    fault.within(place)
                    if whole:
                        raise
                    dropped.append(Dropped(field, fault))
                else:
                    _within(place, dropped, known)
            return fixed

        return repair


def _within(step: str | int, dropped: list[Dropped], known: int) -> None:
    """Say where those values were that were left out after the first `known`."""
    for one in dropped[known:]:
        one.fault.within(step)


_SCALARS: Final[dict[type, type[inspect.Type]]] = {
    bool: inspect.BoolType,
    int: inspect.FloatType,
    float: inspect.FloatType,
    str: inspect.StrType,
}
"""Of which type a JSON scalar must be where it can be one of several."""


def _time(fix: Fix, unit: str) -> Fix:
    def repair(value: Any, dropped: list[Dropped]) -> Any:
        try:
            return fix(time_of(value, unit), dropped)
        except FormError as error:
            raise Unusable(str(error)) from None

    return repair


def _from_one(fix: Fix) -> Fix:
    """Positions that begin at 0 are counted from 1."""

    def repair(value: Any, dropped: list[Dropped]) -> Any:
        positions = (
            [number_of(one.get("position")) for one in value if isinstance(one, Mapping)]
            if isinstance(value, list)
            else []
        )
        whole = [int(at) for at in positions if isinstance(at, int | float) and float(at).is_integer()]
        if min(whole, default=1) == 0 and len(whole) == len(value):
            dropped.append(Dropped("results.position", Unusable("positions begin at 0, and are counted from 1")))
            value = [{**one, "position": at + 1} for one, at in zip(value, whole, strict=True)]
        return fix(value, dropped)

    return repair


def _boolean(value: Any, _: list[Dropped]) -> bool:
    if not isinstance(value, bool):
        raise Unusable(_mismatch("bool", value))
    return value


def _text(info: inspect.StrType) -> Fix:
    least, most = info.min_length or 0, info.max_length or sys.maxsize

    def repair(value: Any, _: list[Dropped]) -> str:
        text = text_of(value)
        if not isinstance(text, str):
            raise Unusable(_mismatch("str", value))
        if len(text) < least:
            raise Unusable(f"Expected `str` of length >= {least}")
        if len(text) > most:
            raise Unusable(f"Expected `str` of length <= {most}, got {len(text)}")
        if "\0" in text:
            raise Unusable("contains the character U+0000")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise Unusable("contains half of a surrogate pair")
        return text

    return repair


def _choice(info: inspect.LiteralType) -> Fix:
    def repair(value: Any, dropped: list[Dropped]) -> Any:  # noqa: ARG001 - a Fix
        if value not in info.values:
            raise Unusable(f"Expected one of {', '.join(map(str, info.values))}, got {described(value)}")
        return value

    return repair


def _whole(info: inspect.IntType, *, fractions: bool) -> Fix:
    check = _bounds("int", info)

    def repair(value: Any, _: list[Dropped]) -> int:
        number = number_of(value)
        if isinstance(number, float) and isfinite(number) and (fractions or number.is_integer()):
            number = floor(number)
        if not isinstance(number, int):
            raise Unusable(_mismatch("int", value))
        check(number)
        return number

    return repair


def _number(info: inspect.FloatType) -> Fix:
    check = _bounds("float", info)
    least, most = (-inf if info.ge is None else info.ge), (inf if info.le is None else info.le)

    def repair(value: Any, _: list[Dropped]) -> float:
        number = number_of(value)
        if not isinstance(number, int | float) or abs(number) > sys.float_info.max or isnan(number):
            raise Unusable(_mismatch("float", value))
        if least - _ROUNDING <= number < least:
            return float(least)
        if most < number <= most + _ROUNDING:
            return float(most)
        check(number)
        return float(number)

    return repair


def _bounds(kind: str, info: inspect.IntType | inspect.FloatType) -> Callable[[float], None]:
    """Return a function that raises `Unusable` for a number out of bounds."""
    bounds = [
        (sign, beyond, bound)
        for sign, beyond, bound in (
            (">=", operator.lt, info.ge),
            (">", operator.le, info.gt),
            ("<=", operator.gt, info.le),
            ("<", operator.ge, info.lt),
        )
        if bound is not None
    ]

    def check(number: float) -> None:
        for sign, beyond, bound in bounds:
            if beyond(number, bound):
                raise Unusable(f"Expected `{kind}` {sign} {bound}, got {described(number)}")

    return check


def _mismatch(wanted: str, value: Any) -> str:
    return f"Expected `{wanted}`, got {described(value)}"


def described(value: Any) -> str:
    """Return a value of JSON as an error quotes it: with its kind, and only that if it is long."""
    if isinstance(value, str):
        return "`str`" if len(value) > _QUOTED else f"`str` {value!r}"
    if type(value) in {int, float}:
        if isinstance(value, float) and isnan(value):
            return "NaN"
        beyond = abs(value) >= 1 << 64 if isinstance(value, int) else isinf(value)
        return "a number out of range" if beyond else repr(value)
    return _KINDS.get(type(value), "`object`")
