"""A simulated loop with and without questions.

Simulated people come on every day, most of them with a few requests of their own that the service misunderstands until
they teach it what they mean. Whoever is not understood often repeats the request, interrupts, or leaves; whoever is,
often clicks; neither is certain. Asked whether the answer was what they wanted, some answer, nearly all of them
truthfully; asked what they mean, some choose the right one of three offers, if it is among them. The satisfaction model
is the learner as it is, solved once a day. All of this is made up: it shows how budget and gains go together, not how
large they are for you.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.satisfaction.asking import AskConfig, Asker, Question
from backchannel.agents.satisfaction.budget import DAY_MS, Budget
from backchannel.agents.satisfaction.learner import SatisfactionConfig, SatisfactionLearner
from backchannel.agents.satisfaction.serving import Rate, Satisfaction
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import BargeIn, Click, Earlier, Feedback, Impression, Means, Query, Result, Signal
from backchannel.schemas.turn import Turn

REQUESTS: Final = 12
"""Requests of one person."""
MISUNDERSTOOD: Final = 0.15
"""The probability that a request is misunderstood until it is taught."""
FAILS: Final = 0.06
"""The probability that an answer fails that is understood."""
REPEATS: Final = 0.6
ANSWERS: Final = 0.4
TRUTHFUL: Final = 0.95
TEACHES: Final = 0.5
OFFERED: Final = 0.7
"""The probability that what is meant is among the offers."""
_SESSIONS: Final = 2
_LENGTH: Final = 4
_GAP_MS: Final = 8_000
_FIRST_DAY: Final = 20_000


class Arm(Struct, frozen=True):
    """A way to ask, and how people answer.

    Attributes:
        name: in words.
        config: when people are asked.
        anywhere: whether every turn counts as one where it would help to be taught.
        truthful: the probability that what somebody says is true.
    """

    name: str
    config: AskConfig
    anywhere: bool = False
    truthful: float = TRUTHFUL


class Played(Struct, frozen=True):
    """What happened.

    Attributes:
        turns: number of turns.
        defects: share of the turns that failed.
        late_defects: the same, in the second half of the days.
        satisfaction: questions about satisfaction, as a share of the turns.
        teach: questions what is meant, as a share of the turns.
        most: most questions to one person in one day.
        taught: number of rules that were taught.
        error: how much higher the published rate of satisfaction is than the true one, over all days; None if none was
            published.
    """

    turns: int
    defects: float
    late_defects: float
    satisfaction: float
    teach: float
    most: int
    taught: int
    error: float | None


class _Person(Struct):
    name: str
    broken: set[int]


class Loop:
    """Plays an arm.

    Args:
        arm: how to ask.
        people: number of people.
        days: number of days.
        seed: the seed of people and questions.
    """

    def __init__(self, arm: Arm, people: int, days: int, seed: int) -> None:
        self._arm: Final = arm
        self._days: Final = days
        self._world, self._chance = np.random.default_rng(seed).spawn(2)
        self._asker: Final = Asker(arm.config, Budget(arm.config.per_day, 0))
        self._learner: Final = SatisfactionLearner(SatisfactionConfig())
        self._people: Final = [
            _Person(f"person {one}", set(np.flatnonzero(self._world.random(REQUESTS) < MISUNDERSTOOD).tolist()))
            for one in range(people)
        ]
        self._satisfaction = Satisfaction({})
        self._failed: list[tuple[int, bool]] = []
        self._asked: list[tuple[str, int, str]] = []
        self._taught = 0

    def play(self) -> Played:
        """Play all days."""
        judge = Judge(RewardConfig())
        delta: Delta = {}
        rate: Rate | None = None
        for day in range(self._days):
            turns = list(self._day(day))
            delta = merge([delta, self._learner.learn(judge.judge(columns_of(turns)))])
            at = (_FIRST_DAY + day + 1) * DAY_MS
            section = self._learner.solve(MemorySums(delta), {name: [] for name in delta}, at)
            self._satisfaction = Satisfaction(live_rows(section))
            rate = self._satisfaction.rate
        failed = np.array([one for _, one in self._failed])
        late = np.array([day >= self._days // 2 for day, _ in self._failed])
        size = len(failed)
        kinds = [kind for _, _, kind in self._asked]
        by_day = [(person, day) for person, day, _ in self._asked]
        return Played(
            turns=size,
            defects=float(failed.mean()),
            late_defects=float(failed[late].mean()),
            satisfaction=kinds.count("satisfaction") / size,
            teach=kinds.count("teach") / size,
            most=max((by_day.count(one) for one in set(by_day)), default=0),
            taught=self._taught,
            error=None if rate is None else rate.satisfied.value - (1.0 - float(failed.mean())),
        )

    def _day(self, day: int) -> Iterator[Turn]:
        rng, first = self._world, (_FIRST_DAY + day) * DAY_MS
        visits = [place for place in range(len(self._people)) for _ in range(int(rng.poisson(_SESSIONS)))]
        starts = first + rng.integers(DAY_MS * 9 // 10, size=len(visits))
        for number in np.argsort(starts).tolist():  # budgets take no questions from the past
            person = self._people[visits[number]]
            yield from self._session(person, day, f"{person.name}/{day}/{number}", int(starts[number]))

    def _session(self, person: _Person, day: int, session: str, start: int) -> Iterator[Turn]:
        rng = self._world
        earlier = Earlier(turns=0)
        request, repeats, waiting = int(rng.integers(REQUESTS)), 0, None
        ts = start
        for place in range(1 + int(rng.poisson(_LENGTH))):
            query = Query(
                event_id=f"{session}/{place}",
                ts=ts,
                session_id=session,
                query_id=f"{session}/{place}",
                text=f"request number {request} of {person.name}",
                user_id=person.name,
                earlier=structs.replace(earlier, repeats=repeats),
            )
            question = self._question(query)
            failed = request in person.broken or bool(rng.random() < FAILS)
            self._failed.append((day, failed))
            turn = Turn.of(query, self._signals(query, failed=failed, question=question))
            if waiting is not None:
                yield structs.replace(waiting, next=query)
            waiting = turn
            if question is not None:
                self._asked.append((person.name, day, question.kind))
                if question.kind == "teach" and request in person.broken and rng.random() < TEACHES * OFFERED:
                    person.broken.remove(request)
                    self._taught += 1
            again = failed and bool(rng.random() < REPEATS)
            ts += _GAP_MS
            earlier = _after(earlier, turn, (ts - start) / 1000, again=again)
            repeats = repeats + 1 if again else 0
            if failed and not again and rng.random() < 0.5:  # they leave
                break
            request = request if again else int(rng.integers(REQUESTS))
        if waiting is not None:
            yield waiting

    def _question(self, query: Query) -> Question | None:
        offers = [Means(source=query.text, target=f"{query.text} {place}") for place in range(3)]
        if self._arm.anywhere and query.earlier is not None:
            query = structs.replace(query, earlier=structs.replace(query.earlier, repeats=1))
        return self._asker.ask(self._satisfaction, query, query.ts, self._chance, offers=offers)

    def _signals(self, query: Query, *, failed: bool, question: Question | None) -> Iterator[Signal]:
        rng = self._world
        ids: dict[str, Any] = {"ts": query.ts, "session_id": query.session_id, "query_id": query.query_id}
        found = not failed or rng.random() < 0.7
        yield Impression(
            event_id=f"{query.query_id}/impression",
            results=(Result("e", 1),),
            outcome="answered" if found else "nothing",
            **ids,
        )
        if rng.random() < (0.1 if failed else 0.6):
            yield Click(event_id=f"{query.query_id}/click", entity_id="e", **ids)
        if rng.random() < (0.3 if failed else 0.05):
            yield BargeIn(event_id=f"{query.query_id}/barge_in", **ids)
        if question is not None and question.kind == "satisfaction" and rng.random() < ANSWERS:
            said = not failed if rng.random() < self._arm.truthful else failed
            yield Feedback(
                event_id=f"{query.query_id}/feedback", answered=said, asked=True, propensity=question.propensity, **ids
            )


def _after(earlier: Earlier, turn: Turn, seconds: float, *, again: bool) -> Earlier:
    outcome = turn.impressions[-1].outcome or ""
    said = [one.value for one in turn.all(Feedback)]
    return Earlier(
        turns=earlier.turns + 1,
        seconds=seconds,
        clicks=earlier.clicks + len(turn.clicks),
        barge_ins=earlier.barge_ins + len(turn.barge_ins),
        rephrased=earlier.rephrased + again,
        outcomes={**earlier.outcomes, outcome: earlier.outcomes.get(outcome, 0) + 1},
        outcome=outcome,
        answer=said[0] if said else None,
    )


def arms(probability: float, teach: float, budgets: Sequence[int]) -> list[Arm]:
    """Return the arms: nobody is asked; with each budget; and with the middle one, anywhere, and all answers true."""
    asking = [Arm(f"{most} a day", AskConfig(probability, teach, most)) for most in budgets]
    middle = asking[len(asking) // 2]
    return [
        Arm("nobody is asked", AskConfig()),
        *asking,
        structs.replace(middle, name=f"{middle.name}, anywhere", anywhere=True),
        structs.replace(middle, name=f"{middle.name}, all answers true", truthful=1.0),
    ]


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    """Return the mean of numbers, and half the width of its interval of 95%."""
    if len(numbers) < 2:
        return float(np.mean(numbers)), float("nan")
    return float(np.mean(numbers)), float(1.96 * np.std(numbers, ddof=1) / np.sqrt(len(numbers)))


def play(arm: Arm, people: int, days: int, rngs: int) -> list[Played]:
    """Play an arm once with each of `rngs` seeds; the people of a seed are the same for all arms."""
    return [Loop(arm, people, days, seed).play() for seed in range(rngs)]
