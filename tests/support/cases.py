"""Valid and invalid events, derived from the structs so that no field can be forgotten."""

from collections.abc import Iterator
from typing import Any, TypeAlias, get_args

from hypothesis import strategies as st
from msgspec import inspect

from backchannel.schemas.events import EVENT_TYPES, Rule
from backchannel.schemas.text import normalize

Document: TypeAlias = dict[str, Any]

# Characters that both UTF-8 JSON and a SQL store accept.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
# JSON Schema accepts 1.0 as an integer, the decoder does not.
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: not number.is_integer()
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(CHARACTERS, max_size=8),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=8), item, max_size=3),
    max_leaves=6,
)
# A value of each JSON kind.
KINDS: Document = {
    "null": None,
    "boolean": True,
    "integer": 1,
    "number": 0.5,
    "string": "text",
    "array": [],
    "object": {},
}


def struct_of(event: str) -> inspect.StructType:
    """Return the struct type of `event`."""
    info = inspect.type_info(EVENT_TYPES[event])
    assert isinstance(info, inspect.StructType)
    return info


def minimal(info: inspect.StructType) -> Document:
    """Return a valid object with only the required fields."""
    tag = {} if info.tag_field is None else {info.tag_field: info.tag}
    return {**tag, **{field.encode_name: _example(field.type) for field in info.fields if field.required}}


def documents(event: str) -> st.SearchStrategy[Document]:
    """Return a strategy for valid events of type `event`."""
    return _values(struct_of(event))


def faults(info: inspect.Type) -> Iterator[Any]:
    """Yield values that a field of this type must refuse: of each wrong kind, and beyond each bound."""
    kinds = _kinds(info)
    yield from (value for kind, value in KINDS.items() if kind not in kinds)
    yield from _beyond(info)


def leaves(info: inspect.Type) -> Iterator[inspect.Type]:
    """Yield all types within a type, including itself."""
    yield info
    match info:
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            yield from leaves(inner)
        case inspect.UnionType(types=types):
            for member in types:
                yield from leaves(member)
        case inspect.DictType(key_type=key, value_type=value):
            yield from leaves(key)
            yield from leaves(value)
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from leaves(field.type)
        case _:
            pass


def _example(info: inspect.Type) -> Any:
    match info:
        case inspect.Metadata(type=inner):
            return _example(inner)
        case inspect.StructType():
            return minimal(info)
        case inspect.UnionType(types=types):
            return _example(types[0])
        case inspect.StrType():
            return "x"
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.IntType():
            return 1
        case inspect.FloatType():
            return 0.5
        case _:
            return {} if isinstance(info, inspect.DictType) else []


def _values(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.Metadata(type=inner):
            return _values(inner)
        case inspect.UnionType(types=types):
            return st.one_of(*map(_values, types))
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.FloatType(ge=low, gt=above, le=high):
            least = low if above is None else above
            return st.floats(least, high, exclude_min=above is not None, allow_nan=False, allow_infinity=False)
        case inspect.IntType(ge=low, le=high, lt=beyond):
            return st.integers(low, high if beyond is None else beyond - 1)
        case inspect.StrType(min_length=shortest, max_length=longest):
            assert longest is not None
            return st.text(CHARACTERS, min_size=shortest or 0, max_size=min(longest, 12)) | st.just("😀" * longest)
        case inspect.LiteralType(values=values):
            return st.sampled_from(list(values))
        case inspect.VarTupleType(item_type=item):
            return st.lists(_values(item), max_size=3)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_values(key), _values(value), max_size=3)
        case inspect.StructType(cls=cls, fields=fields, tag=tag, tag_field=tag_field):
            objects = st.fixed_dictionaries(
                {field.encode_name: _values(field.type) for field in fields if field.required}
                | ({} if tag_field is None else {tag_field: st.just(tag)}),
                optional={field.encode_name: _values(field.type) for field in fields if not field.required},
            )
            return objects.filter(_visible) if cls in get_args(Rule) else objects
        case _:
            raise NotImplementedError(info)


def _visible(rule: Document) -> bool:
    """Return whether the texts of a rule can be seen, which their types do not say."""
    return all(normalize(rule[name]) for name in ("from", "to", "query") if name in rule)


def _kinds(info: inspect.Type) -> set[str]:
    match info:
        case inspect.Metadata(type=inner):
            return _kinds(inner)
        case inspect.UnionType(types=types):
            return set().union(*map(_kinds, types))
        case inspect.NoneType():
            return {"null"}
        case inspect.BoolType():
            return {"boolean"}
        case inspect.IntType():
            return {"integer"}
        case inspect.FloatType():
            return {"integer", "number"}
        case inspect.StrType():
            return {"string", "integer"}  # ids are often numbers
        case inspect.LiteralType():
            return set()
        case inspect.VarTupleType():
            return {"array"}
        case _:
            return {"object"}


def _beyond(info: inspect.Type) -> Iterator[Any]:
    match info:
        case inspect.Metadata(type=inner):
            yield from _beyond(inner)
        case inspect.UnionType(types=types):
            for member in types:
                yield from _beyond(member)
        case inspect.IntType(ge=low, le=high, lt=beyond):
            yield from () if low is None else (low - 1,)
            yield from () if high is None else (high + 1,)
            yield from () if beyond is None else (beyond,)
        case inspect.FloatType(ge=low, gt=above, le=high):
            yield from () if low is None else (low - 0.5,)
            yield from () if above is None else (above,)
            yield from () if high is None else (high + 0.5,)
        case inspect.StrType(min_length=shortest, max_length=longest):
            assert longest is not None
            yield "x" * (longest + 1)
            yield from ("",) if shortest else ()
        case inspect.VarTupleType(item_type=item, max_length=longest):
            assert longest is not None
            yield [_example(item)] * (longest + 1)
            yield from ([fault] for fault in faults(item))
        case inspect.DictType(key_type=key, value_type=value, max_length=longest):
            assert longest is not None
            yield {str(number): _example(value) for number in range(longest + 1)}
            yield from ({fault: _example(value)} for fault in _beyond(key))
            yield from ({"key": fault} for fault in faults(value))
        case inspect.StructType(fields=fields):
            valid = minimal(info)
            for field in fields:
                yield from ({**valid, field.encode_name: fault} for fault in faults(field.type))
                if field.required:
                    yield {name: value for name, value in valid.items() if name != field.encode_name}
        case _:
            pass


ALL_DOCUMENTS: st.SearchStrategy[Document] = st.one_of(*map(documents, EVENT_TYPES))
"""Valid events of every type."""
