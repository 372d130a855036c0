"""The rules of one owner: a user, a group, or everyone.

Nothing is added up here, but the state is still free of order: of each thing that can be said, the latest event counts,
and of all things, the `most` latest are kept. Both are maxima, so events may come in any order, again, and on any
number of workers, and the rules are the same. What is undone stays as a rule that does not hold: the event that it
undoes may come later.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from backchannel.schemas.events import MAX_PHRASE, Like, LikeAttribute, Means, Prefer, Rule, Teach
from backchannel.schemas.text import Fold, normalize, spelled

EVERYONE: Final = "everyone"
"""The owner of operators' rules."""


class TaughtConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may teach, and how much."""

    operators: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
        Meta(description="`user_id`s that may teach for everyone; whoever writes events says who taught"),
    ] = ()
    most: Annotated[
        int, Meta(ge=1, le=1000, description="rules of one user or group; the oldest make room for new ones")
    ] = 100
    most_everyone: Annotated[int, Meta(ge=1, le=10_000, description="rules for everyone")] = 1000


class TaughtRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule as it was last taught or undone.

    Attributes:
        rule: what was said, with texts normalised.
        ts: when it was said (event time, ms).
        event_id: the id of the event.
        scope: for whom it holds.
        by: the operator who taught it for everyone; otherwise empty.
        undone: whether it holds no longer.
        expires: when it ceases to hold, ms since the Unix epoch; 0: never.
        asked: whether it answers a question.
    """

    rule: Rule
    ts: int
    event_id: str
    scope: Literal["user", "group", "everyone"] = "user"
    by: str = ""
    undone: bool = False
    expires: int = 0
    asked: bool = False

    def holds(self, now: int) -> bool:
        """Return whether the rule holds at `now`, ms since the Unix epoch."""
        return not self.undone and (not self.expires or now < self.expires)

    @property
    def age(self) -> tuple[int, str, bytes]:
        """What the latest has most of; equal only if the rules are."""
        return self.ts, self.event_id, _encode(self)


Slot: TypeAlias = tuple[str, ...]
"""What a rule is about: of two rules with the same slot, the later one counts."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[TaughtRule]).decode


def user_owner(user: str) -> str:
    """Return the owner of a user's rules."""
    return f"user:{user}"


def group_owner(group: str) -> str:
    """Return the owner of a group's rules."""
    return f"group:{group}"


def owner_of(event: Teach) -> str:
    """Return the owner of the rule of an event."""
    if event.everyone:
        return EVERYONE
    return group_owner(event.group_id) if event.group_id else user_owner(event.user_id)


def slot_of(rule: Rule) -> Slot:
    """Return what a rule with normalised texts is about."""
    if isinstance(rule, Means):
        return "means", rule.source
    if isinstance(rule, Prefer):
        return "prefer", rule.query
    if isinstance(rule, Like):
        return "like", f"{rule.query}\n{rule.entity_id}"
    if isinstance(rule, LikeAttribute):
        return "like_attribute", rule.feature, rule.value
    return "never", rule.entity_id


def rule_of(event: Teach, folds: Sequence[Fold] = ()) -> TaughtRule:
    """Return the rule that an event teaches or undoes; `folds` is in what texts of one query may differ."""

    def key(text: str) -> str:
        found = normalize(spelled(text, event.locale, tuple(folds)))
        # A few characters become so many that the row could not be read again: such a rule is kept as it was said.
        return found if 0 < len(found) <= MAX_PHRASE else text

    rule = event.rule
    if isinstance(rule, Means) and not rule.interpretation:
        rule = Means(source=key(rule.source), target=key(rule.target))
    elif isinstance(rule, (Prefer, Like)):
        rule = type(rule)(entity_id=rule.entity_id, query=key(rule.query))
    return TaughtRule(
        rule=rule,
        ts=event.ts,
        event_id=event.event_id,
        scope="everyone" if event.everyone else "group" if event.group_id else "user",
        by=event.user_id if event.everyone else "",
        undone=event.undo,
        expires=event.ts + 1000 * event.expires_s if event.expires_s else 0,
        asked=event.asked,
    )


def merged(known: Iterable[TaughtRule], new: Iterable[TaughtRule], most: int) -> dict[Slot, TaughtRule]:
    """Return the rules of an owner by slot, the latest first; at most `most`, and the latest of each slot."""
    latest: dict[Slot, TaughtRule] = {}
    for one in (*known, *new):
        slot = slot_of(one.rule)
        held = latest.get(slot)
        if held is None or one.age > held.age:
            latest[slot] = one
    ordered = sorted(latest.items(), key=lambda item: item[1].age, reverse=True)
    return dict(ordered[:most])


def packed(rules: Mapping[Slot, TaughtRule]) -> bytes:
    """Return the row of an owner: JSON."""
    return _encode(list(rules.values()))


def unpacked(row: bytes) -> list[TaughtRule]:
    """Return the rules in the row of an owner, the latest first, without those that only another version can read."""
    try:
        return _decode(row)
    except msgspec.ValidationError:
        return [rule for one in msgspec.json.decode(row, type=list[msgspec.Raw]) for rule in _readable(one)]


def _readable(rule: msgspec.Raw) -> list[TaughtRule]:
    with suppress(msgspec.ValidationError):
        return [msgspec.json.decode(rule, type=TaughtRule)]
    return []
