"""What rows of the long horizon are kept by."""

from msgspec import structs

from backchannel.agents.horizon.keys import LONGEST, lines_of, panel_of, sessions_of, sets_of
from backchannel.agents.learner import hash_of
from backchannel.agents.sums import CodedKeys, Keys
from backchannel.schemas.turn import Turn
from backchannel.streams.store.ledger import MAX_KEY_BYTES
from tests.support.turns import closed_turn, impression, judged, query


def turn(*asked: str, session: str = "s", user: str | None = None) -> Turn:
    own = structs.replace(query(session_id=session), query_id=f"{session}{asked}", user_id=user)
    return closed_turn(own, [impression(allocation=dict.fromkeys(asked, 1))])


def told(turns: list[Turn], configured: tuple[str, ...] = ()) -> list[list[str]]:
    """The strategies of each turn, by way of sets and lines."""
    place, sets = sets_of(judged(turns), configured)
    assert sets == sorted(set(sets))
    lines = lines_of([sets[code] for code in place.tolist()])
    found: list[list[str]] = [[] for _ in turns]
    for row, code in zip(lines.rows.tolist(), lines.codes.tolist(), strict=True):
        found[row].append(lines.strategies[code])
    return found


def test_sets_have_a_line_for_each_strategy() -> None:
    turns = [turn("b", "a"), turn("c"), turn(), turn("a", "b"), turn("a", "c", "b")]
    assert told(turns) == [["a", "b"], ["c"], [], ["a", "b"], ["a", "b", "c"]]
    assert told(turns, ("b",)) == [["b"], [], [], ["b"], ["b"]]
    assert lines_of([]).strategies == []


def test_a_set_is_no_longer_than_a_key_may_be() -> None:
    names = [f"{number:02}{'x' * 62}" for number in range(32)]
    assert LONGEST <= MAX_KEY_BYTES
    assert told([turn(*names), turn(*names[:14]), turn(names[0])]) == [[], names[:14], [names[0]]]


def test_people_are_hashed_and_sessions_are_told_apart() -> None:
    turns = [turn(session="s", user="u"), turn(session="t", user="u"), turn(session="t")]
    outcomes = judged(turns)
    people, keys = panel_of(outcomes, "salt", 1.0)
    assert [keys[code] for code in people.tolist()] == [hash_of("salt", one) for one in ("u", "u", "t")]
    assert keys == sorted(keys)
    place, numbers = sessions_of(outcomes)
    assert numbers == sorted(numbers)
    assert place.tolist()[1] == place.tolist()[2] != place.tolist()[0]


def test_coded_keys_are_keys() -> None:
    keys = Keys(["a", "a", "c"], [1, 2, 1])
    coded = keys.coded()
    assert list(coded) == list(keys) == [coded[0], *coded[1:]]
    assert [list(values) for _, values in coded.parts] == [["a", "c"], [1, 2]]
    whole = CodedKeys((coded.parts[0][0], ["a", "c", "never"]), (coded.parts[1][0], range(1, 9)))
    assert list(whole) == list(keys)
    assert [(codes.tolist(), list(values)) for codes, values in whole.coded().parts] == [
        (codes.tolist(), list(values)) for codes, values in coded.parts
    ]
