"""What numbers say of a turn, its reply and the turns around it."""

from backchannel.agents.failures.evidence import BINS
from backchannel.agents.failures.numbers import Numbers, Said, of_earlier, of_next, of_query, of_reply
from backchannel.agents.labelled.kinds import parts_of
from backchannel.schemas.events import Earlier, Hypothesis, Meaning, Recognition, Understanding

HEARD = Recognition(hypotheses=(Hypothesis("a thai place", -0.5), Hypothesis("a tie place", -1.5)))
MEANT = Understanding(
    score=0.6,
    alternatives=(Meaning("inform(food=thai)&bye()", 0.2), Meaning("inform(area=east)", 0.1), Meaning("", 0.1)),
)


def said(interpretation: str, text: str = "a thai place", reply: str | None = None) -> Said:
    return Said(0, text, parts_of(interpretation), HEARD, MEANT, Earlier(turns=2, reply=reply))


def some(numbers: Numbers, *names: str) -> list[float | None]:
    return [numbers[name] for name in names]


def test_numbers_have_bins() -> None:
    one = said("inform(food=thai)", reply="request(slot=food)")
    found = of_query(one) | of_earlier(one) | of_reply(one, "offer(name=x)") | of_next(one, one, "offer(name=x)")
    assert found.keys() | {"results", "clicks", "barge-ins"} == BINS.keys()


def test_how_sure_each_word_and_part_is() -> None:
    found = of_query(said("inform(food=thai)"))
    assert [None if one is None else round(one, 3) for one in some(
        found,
        "certainty of the least certain word",
        "certainty of a word that was left out",
        "certainty of the least certain part",
        "certainty of a part that was left out",
        "certainty that nothing was meant",
    )] == [0.731, 0.269, 0.8, 0.2, 0.1]  # fmt: skip


def test_a_reply_takes_up_what_was_said_or_changes_it() -> None:
    names = "values that the reply takes up", "values that the reply changes"
    assert some(of_reply(said("inform(food=thai)"), "offer(name=x)&inform(food=thai)"), *names) == [1.0, 0]
    assert some(of_reply(said("inform(food=thai)"), "canthelp(food=greek)"), *names) == [0.0, 1]
    assert some(of_reply(said("bye()"), "canthelp(food=greek)"), *names) == [None, 0]


def test_a_reply_may_give_what_was_asked_for() -> None:
    asked = said("request(slot=phone)", reply="offer(name=x)")
    names = (
        "values that the reply takes up",
        "values that are new in the reply",
        "share of the reply that was said before",
    )
    assert some(of_reply(asked, "offer(name=x)&inform(phone=123)"), *names) == [1.0, 1, 0.5]
    assert some(of_reply(asked, "offer(name=x)"), *names) == [0.0, 0, 1.0]


def test_a_reply_to_another_interpretation() -> None:
    name = "values of the reply that are other interpretations"
    assert some(of_reply(said("inform(food=thai)"), "expl-conf(area=east)"), name) == [1]
    assert some(of_reply(said("inform(food=thai)"), "expl-conf(food=thai)"), name) == [0]


def test_the_next_query_may_correct_the_reply() -> None:
    names = "next values that the reply had", "values of the reply that the next query changes"
    now = said("inform(food=thai)")
    assert some(of_next(now, said("inform(food=thai)"), "expl-conf(food=greek)"), *names) == [0.0, 1]
    assert some(of_next(now, said("inform(food=thai)"), "expl-conf(food=thai)"), *names) == [1.0, 0]
    assert of_next(now, now, None).keys().isdisjoint(names)
