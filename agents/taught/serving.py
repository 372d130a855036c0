"""What was taught, serving: it comes before everything learned.

A user's own rules come before those of the user's group, and these before those for everyone. But what operators
forbid for everyone is shown to nobody, whatever was taught.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct

from backchannel.agents.taught.rules import EVERYONE, Slot, TaughtRule, group_owner, slot_of, unpacked, user_owner
from backchannel.schemas.events import Like, LikeAttribute, Means, Never, Prefer
from backchannel.schemas.text import normalize


class Wishes(Struct, frozen=True):
    """What was taught about the results of a query.

    Attributes:
        preferred: the entity to show first; None: there is none.
        never: the entities not to show.
        liked: the features and values that are liked, with the time at which that was last said, ms.
    """

    preferred: str | None = None
    never: Collection[str] = frozenset()
    liked: Mapping[tuple[str, str], int] = {}

    def __bool__(self) -> bool:
        return self.preferred is not None or bool(self.never) or bool(self.liked)


NO_WISHES: Final = Wishes()


def _now() -> int:
    return time.time_ns() // 1_000_000


class Taught:
    """The rules of all owners.

    Args:
        rows: owner -> row; see `rules.packed`.
        now: returns the time, ms since the Unix epoch, at which rules expire.
    """

    def __init__(self, rows: Mapping[str, bytes], now: Callable[[], int] = _now) -> None:
        self._rows: Final = rows
        self._now: Final = now
        row = rows.get(EVERYONE)
        self._everyone: Final = unpacked(row) if row else []  # read once: it is needed for every query

    def rules(self, user: str | None = None, group: str | None = None) -> list[TaughtRule]:
        """Return the rules that hold for a user now: the user's own, then the group's, then everyone's."""
        now = self._now()
        return [one for rules in self._known(user, group) for one in rules if one.holds(now)]

    def target(self, state: str, user: str | None = None, group: str | None = None) -> str | None:
        """Return what a state means, which may be itself; None: nothing was said about it.

        Args:
            state: a normalised query, or an interpretation.
            user: the `user_id` of the user who asks.
            group: the user's group.
        """
        for rules in self._holding(user, group):
            found = rules.get(("means", state))
            if found is not None and isinstance(found.rule, Means):
                return found.rule.target
        return None

    def wishes(self, query: str, user: str | None = None, group: str | None = None) -> Wishes:
        """Return what was taught about the results of a query."""
        known = self._holding(user, group)
        if not any(known):
            return NO_WISHES
        slot = "prefer", normalize(query)
        preferred: str | None = None
        never: set[str] = set()
        liked: dict[tuple[str, str], int] = {}
        for rules in reversed(known):  # the more specific ones have the last word
            forbidden = {one.rule.entity_id: one for one in rules.values() if isinstance(one.rule, Never)}
            never.update(forbidden)
            found = rules.get(slot)
            if found is not None and isinstance(found.rule, Prefer):
                entity = found.rule.entity_id
                against = forbidden.get(entity)
                if against is None or against.age < found.age:
                    preferred = entity
                    never.discard(entity)
            for one in rules.values():
                if isinstance(one.rule, LikeAttribute):
                    pair = one.rule.feature, one.rule.value
                    liked[pair] = max(one.ts, liked.get(pair, 0))
        never.update(one.rule.entity_id for one in known[-1].values() if isinstance(one.rule, Never))
        return Wishes(None if preferred in never else preferred, never, liked)

    def likes(self, query: str, user: str | None = None, group: str | None = None) -> dict[str, int]:
        """Return the entities that are liked for a query, with the time at which that was last said, ms."""
        known = self._holding(user, group)
        if not any(known):
            return {}
        text = normalize(query)
        liked: dict[str, int] = {}
        for one in (one for rules in known for one in rules.values()):
            if isinstance(one.rule, Like) and one.rule.query == text:
                liked[one.rule.entity_id] = max(one.ts, liked.get(one.rule.entity_id, 0))
        return liked

    def __len__(self) -> int:
        return len(self._rows)

    def _known(self, user: str | None, group: str | None) -> Iterable[list[TaughtRule]]:
        """Yield the rules of the user, the group and everyone, also those that do not hold."""
        for owner in (None if user is None else user_owner(user), None if group is None else group_owner(group)):
            row = self._rows.get(owner) if owner else None
            yield unpacked(row) if row else []
        yield self._everyone

    def _holding(self, user: str | None, group: str | None) -> list[dict[Slot, TaughtRule]]:
        """Return the rules that hold of the user, the group and everyone, by slot."""
        if not self._rows:
            return []
        now = self._now()
        return [{slot_of(one.rule): one for one in rules if one.holds(now)} for rules in self._known(user, group)]


NOTHING_TAUGHT: Final = Taught({})
