"""What is left out of exported labels, and hashed, so that they say little about single people."""

import hmac
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import structs

from backchannel.ops.labels.facts import Facts
from backchannel.ops.labels.learned import Learned, Told
from backchannel.schemas.events import Context
from backchannel.schemas.text import normalize

_DAY_MS: Final = 86_400_000


class Shared:
    """Counts how many people had each text, interpretation and entity.

    Only people with a `user_id` count. A person takes eight bytes for each of these, until there are enough people.

    Args:
        least: number of people from which on something is common; 1: everything is.
    """

    def __init__(self, least: int) -> None:
        self._least: Final = least
        self._people: Final[dict[bytes, set[int] | None]] = {}  # None: enough

    def add(self, goal: Sequence[Facts]) -> None:
        """Count the people of a goal's turns."""
        if self._least < 2:
            return
        for one in goal:
            query = one.query
            if query.user_id is None:
                continue
            person = hash_of(query.user_id)
            self._count(_text(query.text), person)
            if query.interpretation is not None:
                for slots in ({}, query.nlu.slots if query.nlu else {}):
                    self._count(_form(query.interpretation, slots), person)
            if one.chosen is not None:
                self._count(_entity(one.chosen[0]), person)

    def common(self, one: Learned) -> Learned | None:
        """Return what was learned, without what too few people had; None if too few asked this text."""
        if self._least < 2:
            return one
        if not self._is_common(_text(one.text)):
            return None
        told: Told | None
        kept: dict[str, None] = {}
        if (told := one.interpretation) is not None and not self._is_common(_form(told.value, told.slots)):
            kept["interpretation"] = None
        if (told := one.entity) is not None and not self._is_common(_entity(told.value)):
            kept["entity"] = None
        if one.logged is not None and not self._is_common(_form(one.logged, {})):
            kept["logged"] = None
        return structs.replace(one, **kept)

    def _count(self, key: bytes, person: int) -> None:
        people = self._people.setdefault(key, set())
        if people is not None:
            people.add(person)
            if len(people) >= self._least:
                self._people[key] = None

    def _is_common(self, key: bytes) -> bool:
        return self._people.get(key, set()) is None


class Ids:
    """Replaces ids by keyed hashes: the same id gives the same hash, and only the key's owner can compute it.

    Args:
        key: the key.
    """

    def __init__(self, key: bytes) -> None:
        self._key: Final = key

    def hashed(self, one: Learned) -> Learned:
        """Return what was learned with hashed ids, and its time cut to the day."""
        changed = {
            field: structs.replace(told, query_id=self._of("query", told.query_id))
            for field in ("interpretation", "entity")
            if (told := getattr(one, field)) is not None and told.query_id is not None
        }
        if one.goal is not None:
            changed["goal"] = structs.replace(one.goal, value=self._of("query", one.goal.value))
        return structs.replace(
            one,
            ts=one.ts // _DAY_MS * _DAY_MS,
            session_id=self._of("session", one.session_id),
            query_id=self._of("query", one.query_id),
            user_id=None if one.user_id is None else self._of("user", one.user_id),
            **changed,
        )

    def _of(self, kind: str, value: str) -> str:
        said = f"{kind}:{value}".encode(errors="surrogatepass")
        return hmac.new(self._key, said, "sha256").hexdigest()[:32]


def hash_of(value: str) -> int:
    """Return 64 bits that tell people apart."""
    return int.from_bytes(blake2b(value.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def _key(kind: str, value: object) -> bytes:
    return blake2b(msgspec.json.encode((kind, value)), digest_size=12).digest()


def _text(text: str) -> bytes:
    return _key("text", normalize(text))


def _form(form: str, slots: Context) -> bytes:
    return _key("form", (form, sorted(slots.items())))


def _entity(entity: str) -> bytes:
    return _key("entity", entity)
