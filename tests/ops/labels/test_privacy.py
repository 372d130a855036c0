"""What is common, and what ids become."""

from backchannel.ops.labels.facts import Facts, Judgements
from backchannel.ops.labels.learned import Learned, Told
from backchannel.ops.labels.privacy import Ids, Shared
from backchannel.schemas.events import Understanding
from tests.support.turns import query


def facts(user: str | None, text: str = "play jazz", slots: dict[str, str] | None = None) -> Facts:
    nlu = Understanding(slots=dict(slots)) if slots else None
    asked = query(text=text, user_id=user, interpretation="play(song=jazz)", nlu=nlu)
    return Facts(asked, None, 0, 1, 0, ("e1", 1.0), 0, 0, False, None, Judgements())


def learned(interpretation: Told | None = None, entity: Told | None = None) -> Learned:
    return Learned(ts=0, session_id="s", query_id="q", text="Play jazz!", interpretation=interpretation, entity=entity)


def test_only_different_users_make_something_common() -> None:
    shared = Shared(2)
    shared.add([facts("ann"), facts("ann"), facts(None)])
    assert shared.common(learned()) is None
    shared.add([facts("bob")])
    assert shared.common(learned()) == learned()


def test_slots_and_entities_that_few_had_are_left_out() -> None:
    shared = Shared(2)
    shared.add([facts("ann", slots={"song": "mine"}), facts("bob")])
    plain = Told("play(song=jazz)", 1.0, "rephrase")
    found = shared.common(learned(interpretation=plain, entity=Told("e1", 1.0, "click")))
    assert found is not None
    assert found.interpretation == plain
    assert found.entity is not None
    own = Told("play(song=jazz)", 1.0, "rephrase", slots={"song": "mine"})
    found = shared.common(learned(interpretation=own, entity=Told("e2", 1.0, "click")))
    assert found is not None
    assert found.interpretation is found.entity is None


def test_hashes_depend_on_the_key_and_on_what_the_id_is_of() -> None:
    one = Learned(ts=90_000_000, session_id="x", query_id="x", user_id="x", text="t", goal=Told("x", 1.0, "starts"))
    found, again, other = (Ids(key).hashed(one) for key in (b"a" * 16, b"a" * 16, b"b" * 16))
    assert found == again
    assert len({found.session_id, found.query_id, found.user_id, other.query_id}) == 4
    assert found.goal is not None
    assert (found.goal.value, found.ts) == (found.query_id, 86_400_000)
