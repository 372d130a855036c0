"""Rules: whatever the order of events, and on however many workers, the latest about each thing counts."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.taught.rules import EVERYONE, TaughtRule, merged, owner_of, packed, rule_of, unpacked
from backchannel.agents.taught.serving import NOTHING_TAUGHT, Taught
from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.schemas.events import Like, LikeAttribute, Means, Never, Prefer, Rule, Teach

NOW = 1_000_000


def teach(number: int, rule: Rule, ts: int = 1000, **fields: object) -> Teach:
    ids = {"event_id": f"e{number}", "session_id": "s", "query_id": "q", "user_id": "me"}
    return Teach(ts=ts, rule=rule, **{**ids, **fields})  # type: ignore[arg-type]


def taught(*events: Teach, most: int = 10) -> Taught:
    """Return what events teach, at `NOW`."""
    owners: dict[str, list[TaughtRule]] = {}
    for event in events:
        owners.setdefault(owner_of(event), []).append(rule_of(event))
    return Taught({owner: packed(merged((), rules, most)) for owner, rules in owners.items()}, lambda: NOW)


def means(source: str, target: str) -> Means:
    return Means(source=source, target=target)


rules = st.one_of(
    st.builds(means, st.sampled_from("abc"), st.sampled_from("xy")),
    st.builds(Prefer, entity_id=st.sampled_from("xy"), query=st.sampled_from("ab")),
    st.builds(Never, entity_id=st.sampled_from("xy")),
    st.builds(Like, entity_id=st.sampled_from("xy"), query=st.sampled_from("ab")),
    st.builds(LikeAttribute, feature=st.sampled_from("fg"), value=st.sampled_from("xy")),
)
events = st.lists(
    st.builds(teach, st.integers(0, 9), rules, ts=st.integers(1000, 1003), undo=st.booleans()), max_size=12
).map(lambda some: list(map(rule_of, some)))


@given(events, st.data(), st.integers(1, 4))
def test_order_duplicates_and_workers_do_not_matter(some: list[TaughtRule], data: st.DataObject, most: int) -> None:
    whole = merged((), some, most)
    again = data.draw(st.permutations([*some, *data.draw(st.lists(st.sampled_from(some)) if some else st.just([]))]))
    row: Sequence[TaughtRule] = ()
    for size in data.draw(st.lists(st.integers(1, 4))):  # commits of any sizes, each of which reads what is there
        part, again = again[:size], again[size:]
        row = unpacked(packed(merged(row, part, most)))
    assert merged(row, again, most) == whole
    assert list(merged(row, again, most)) == list(whole)
    assert len(whole) <= most


def test_the_latest_word_about_a_thing_counts_and_ties_are_broken_by_the_events_id() -> None:
    said = [teach(1, means("a", "x")), teach(2, means("a", "y")), teach(3, means("A!", "z"), ts=999)]
    assert taught(*said).target("a", "me") == "y"
    undone = teach(4, means("a", "whatever"), ts=1001, undo=True)
    assert taught(*said, undone).target("a", "me") is None
    assert taught(*said, undone).rules("me") == []
    assert taught(undone, teach(5, means("a", "x"), ts=1002)).target("a", "me") == "x"


def test_texts_are_read_in_their_locale_and_as_it_is_declared() -> None:
    turkish = rule_of(teach(1, means("ISPARTA", "Café"), locale="tr"), ("diacritics",))
    assert turkish.rule == means("ısparta", "cafe")


@pytest.mark.parametrize("blank", [" ", "\u200b", "\n"])
def test_texts_in_which_nothing_can_be_seen_are_no_rule(blank: str) -> None:
    for rule in (
        {"kind": "means", "from": blank, "to": "x"},
        {"kind": "means", "from": "x", "to": blank},
        {"kind": "prefer", "entity_id": "e", "query": blank},
        {"kind": "like", "entity_id": "e", "query": blank},
    ):
        with pytest.raises(EventError, match=r"rule: Expected a text in `(from|to|query)`"):
            EventDecoder(Teach).decode(
                msgspec.json.encode({**msgspec.to_builtins(teach(1, Never(entity_id="e"))), "rule": rule})
            )


def test_what_is_taught_can_be_read_again_however_long_its_key_is() -> None:
    long = "ß" * 500  # of which the key is twice as long
    rules = taught(teach(1, means(long, "x")), teach(2, means("a", long)), teach(3, Prefer(entity_id="e", query=long)))
    assert rules.target("a", "me") == long
    assert len(rules.rules("me")) == 3


def test_a_rule_of_a_newer_version_leaves_the_others_as_they_are() -> None:
    known = merged((), [rule_of(teach(1, means("a", "x")))], 10)
    row = packed(known).replace(b"[", b'[{"rule":{"kind":"new"},"ts":1,"event_id":"n"},', 1)
    assert unpacked(row) == list(known.values())


def test_a_rule_ceases_to_hold_when_it_expires() -> None:
    lasting, passing = teach(1, means("a", "x"), expires_s=1000), teach(2, means("b", "y"), expires_s=999)
    known = taught(lasting, passing)
    assert (known.target("a", "me"), known.target("b", "me")) == ("x", None)


def test_the_oldest_rules_of_an_owner_make_room() -> None:
    known = taught(*(teach(number, means(f"q{number}", "x"), ts=1000 + number) for number in range(20)), most=3)
    assert [one.event_id for one in known.rules("me")] == ["e19", "e18", "e17"]


def test_a_users_rule_touches_nobody_else() -> None:
    known = taught(
        teach(1, means("a", "x")), teach(2, Never(entity_id="x")), teach(3, Prefer(entity_id="y", query="a"))
    )
    for user in ("you", "user:me", "", None):
        assert known.target("a", user) is None
        assert not known.wishes("a", user)
        assert known.rules(user, "me") == []
    assert not NOTHING_TAUGHT.wishes("a", "me", "home")


def test_the_users_rules_come_before_the_groups_and_everyones() -> None:
    home = {"group_id": "home"}
    everyone = {"everyone": True}
    said = [
        teach(1, means("a", "mine")),
        *(teach(number, means(query, "ours"), 2000, **home) for number, query in ((2, "a"), (3, "b"))),
        *(teach(number, means(query, "all's"), 3000, **everyone) for number, query in ((4, "a"), (5, "b"), (6, "c"))),
    ]
    known = taught(*said)
    assert [known.target(query, "me", "home") for query in "abcd"] == ["mine", "ours", "all's", None]
    assert [known.target(query, "you", "home") for query in "abc"] == ["ours", "ours", "all's"]
    assert [known.target(query) for query in "abc"] == ["all's"] * 3
    assert [one.scope for one in known.rules("me", "home")] == ["user", "group", "group", *["everyone"] * 3]
    assert owner_of(said[-1]) == EVERYONE
    assert known.rules()[0].by == "me"


@pytest.mark.parametrize(
    ("said", "preferred", "never"),
    [
        ([("user", Prefer(entity_id="x", query="a"))], "x", set()),
        ([("user", Prefer(entity_id="x", query="A!")), ("user", Prefer(entity_id="y", query="a"))], "y", set()),
        ([("user", Prefer(entity_id="x", query="b"))], None, set()),
        ([("user", Never(entity_id="x")), ("user", Prefer(entity_id="x", query="a"))], "x", set()),
        ([("user", Prefer(entity_id="x", query="a")), ("user", Never(entity_id="x"))], None, {"x"}),
        ([("user", Prefer(entity_id="x", query="a")), ("group", Never(entity_id="x"))], "x", set()),
        ([("group", Prefer(entity_id="x", query="a")), ("user", Never(entity_id="x"))], None, {"x"}),
        ([("everyone", Prefer(entity_id="x", query="a")), ("user", Prefer(entity_id="y", query="a"))], "y", set()),
        ([("everyone", Never(entity_id="x")), ("user", Prefer(entity_id="x", query="a"))], None, {"x"}),
    ],
)  # fmt: skip
def test_the_later_and_the_more_specific_word_counts_but_for_what_operators_forbid(
    said: list[tuple[str, Rule]], preferred: str | None, never: set[str]
) -> None:
    events = [
        teach(number, rule, 1000 + number, everyone=scope == "everyone", group_id="home" if scope == "group" else "")
        for number, (scope, rule) in enumerate(said)
    ]
    wishes = taught(*events).wishes("a", "me", "home")
    assert (wishes.preferred, set(wishes.never)) == (preferred, never)


def test_likes_are_of_a_query_and_may_be_several_and_undone() -> None:
    said = [teach(1, Like(entity_id="x", query="A!")), teach(2, Like(entity_id="y", query="a"), ts=1001)]
    assert taught(*said).likes("a", "me") == {"x": 1000, "y": 1001}
    assert taught(*said).likes("b", "me") == taught(*said).likes("a", "you") == NOTHING_TAUGHT.likes("a", "me") == {}
    assert taught(*said, teach(3, Like(entity_id="x", query="a"), ts=1002, undo=True)).likes("a", "me") == {"y": 1001}


def test_liked_attributes_hold_for_any_query_and_the_latest_word_counts() -> None:
    italian, thai = (LikeAttribute(feature="cuisine", value=value) for value in ("italian", "thai"))
    said = [teach(1, italian), teach(2, thai, ts=1001), teach(3, italian, 1002, group_id="home")]
    for query in ("a", "b"):
        assert taught(*said).wishes(query, "me").liked == {("cuisine", "italian"): 1000, ("cuisine", "thai"): 1001}
    assert taught(*said).wishes("a", "you", "home").liked == {("cuisine", "italian"): 1002}
    assert taught(*said).wishes("a", "me", "home").liked["cuisine", "italian"] == 1002
    assert not taught(*said).wishes("a", "you")
    undone = teach(4, thai, 1003, undo=True)
    assert taught(*said, undone).wishes("a", "me").liked == {("cuisine", "italian"): 1000}
