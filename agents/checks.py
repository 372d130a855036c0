"""The contract of a learner, as checks for your own learners: `check(learner)`.

Everything learned is a sum. So deltas form a commutative monoid, however turns are split and ordered; the policy is a
function of the sums; and whatever is kept by user can be erased.

Each check takes a learner, turns and a random generator, and raises an AssertionError that names the broken law.
`check` draws random turns; a property-based test can provide its own.
"""

import copy
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from math import lcm
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import structs
from numpy.random import Generator

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.learner import Learner
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.sums import USER, Delta, Key, MemorySums, Sums, SumTable, merge
from backchannel.schemas.events import (
    BargeIn,
    Click,
    Hypothesis,
    Impression,
    Label,
    Query,
    Recognition,
    Result,
    Rewrite,
    Signal,
    Understanding,
    name_of,
)
from backchannel.schemas.snapshot import Section, Snapshot
from backchannel.schemas.turn import Turn

Check: TypeAlias = Callable[[Learner, Sequence[Turn], Generator], None]

_DAY: Final = 86_400_000
_JUDGE: Final = Judge(RewardConfig(rephrase_weight=0.5))


def check(learner: Learner, seed: int = 0, rounds: int = 10) -> None:
    """Run all checks on random turns.

    Args:
        learner: the learner.
        seed: the seed of the turns, and of how they are split and ordered.
        rounds: the number of rounds, each with new turns.

    Raises:
        AssertionError: a law is broken.
    """
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        turns = random_turns(rng, int(rng.integers(12)))
        for one in CHECKS:
            one(learner, turns, rng)


def check_identity(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:  # noqa: ARG001 - a Check
    """No turns give an empty delta, and an empty delta adds nothing."""
    assert learn(learner, []) == {}, "no turns give a delta"
    delta = learn(learner, turns)
    empty: Delta = {table.name: Sums(table) for table in learner.tables}
    for nothing in ({}, empty):
        _same(merge([delta, nothing]), delta, exact=True)
        _same(merge([nothing, delta]), delta, exact=True)


def check_merging(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """Merging is commutative, to the last bit, and associative."""
    a, b, c = (learn(learner, some) for some in _split(turns, 3, rng))
    _same(merge([a, b]), merge([b, a]), exact=True)
    _same(merge([merge([a, b]), c]), merge([a, merge([b, c])]))


def check_split_and_order(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """The sums do not depend on how turns are split over workers, or on the order in which each learns them."""
    _same(merge(learn(learner, some) for some in _split(turns, 4, rng)), learn(learner, turns))


def check_purity(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:  # noqa: ARG001 - a Check
    """Learning and solving change neither their arguments nor the learner, and use no global randomness."""
    outcomes = _JUDGE.judge(columns_of(turns))
    before, chance = pickle.dumps(outcomes), (random.getstate(), repr(np.random.get_state()))
    delta = learner.learn(outcomes)
    kept = copy.deepcopy(delta)
    assert pickle.dumps(outcomes) == before, "learning changed the outcomes"
    _same(learner.learn(outcomes), delta, exact=True)
    for column in (outcomes.success, outcomes.gains.gains, outcomes.query, outcomes.asked.drawn):
        column[:] = 0  # the learner must not keep its input
    merge([delta, learn(learner, turns)])
    rows = solve(learner, delta, _last(turns))
    assert solve(learner, delta, _last(turns)) == rows, "solving twice gives two sections"
    _same(delta, kept, exact=True)
    assert (random.getstate(), repr(np.random.get_state())) == chance, "global randomness was used"


def check_decay(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """At time T a turn of time t counts 2^(-(T - t) / half_life), however far the landmarks have moved."""
    at = _last(turns) + int(rng.integers(100 * _DAY))
    total = merge(learn(learner, some) for some in _split(turns, 2, rng))
    alone = [(turn, turn.query.ts, learn(learner, [turn])) for turn in turns]
    for table in learner.tables:
        if not table.half_life_ms:
            continue
        expected: dict[Key, Any] = {}
        for turn, ts, delta in alone:
            sums = delta.get(table.name, Sums(table))
            share = 2.0 ** (-(at - ts) / table.half_life_ms)
            later = learn(learner, [_moved(turn, ts + table.half_life_ms)]).get(table.name, Sums(table))
            same = np.allclose(sums.at(ts), later.at(ts + table.half_life_ms), 1e-9, 1e-300)
            assert same, f"{table.name}: the undecayed contribution of a turn depends on its time"
            for key, row in zip(sums.keys, sums.at(ts), strict=True):
                expected[key] = expected.get(key, 0.0) + share * row
        found = total.get(table.name, Sums(table))
        rows = dict(zip(found.keys, found.at(at), strict=True))
        assert rows.keys() == expected.keys(), f"{table.name}: {sorted(rows)} are not {sorted(expected)}"
        for key, row in rows.items():
            assert np.allclose(row, expected[key], 1e-9, 1e-300), f"{table.name} {key}: {row} is not {expected[key]}"


def check_policy_of_split(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """Merged sums of several workers give the policy that a single worker would have learned."""
    exact = exactly_summable(learner, turns)
    merged = merge(learn(learner, some) for some in _split(exact, 3, rng))
    at = _last(exact)
    assert solve(learner, merged, at) == solve(learner, learn(learner, exact), at), "split turns give another policy"


def check_increments(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """Solving the changes batch by batch gives the same section as solving everything."""
    exact = exactly_summable(learner, turns)
    at = _last(exact)
    total: Delta = {}
    section = dict(learner.solve(MemorySums(total), everything(learner, total), at))
    for batch in _split(exact, 4, rng):
        delta = learn(learner, batch)
        total = merge([total, delta])
        section |= learner.solve(MemorySums(total), changes(delta), at)
    live = {key: row for key, row in section.items() if row is not None}
    assert live == solve(learner, total, at), "solving the changes and solving everything differ"


def check_portions(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """A portion of the changes gives the same rows whatever the other portions are."""
    delta = learn(learner, turns)
    sums, at = MemorySums(delta), _last(turns)
    for changed in ({}, changes(delta), everything(learner, delta)):
        section: dict[str, bytes | None] = {}
        for portion in learner.portions(changed, int(rng.integers(1, 4))):
            section |= learner.solve(sums, portion, at)
        assert section == learner.solve(sums, changed, at), "portions give another section"


def check_section(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """The rows of a section are JSON with finite numbers, and the serving half accepts them."""
    rows = solve(learner, learn(learner, turns), _last(turns) + int(rng.integers(100 * _DAY)))
    for key, row in rows.items():
        assert b"null" not in row, f"{key!r}: a number is not finite, or a value is missing"  # null: both encoders' NaN
        msgspec.json.decode(row)
    if learner.serving is None:
        assert not rows, "it publishes rows, but nothing serves them"
    elif rows:
        learner.serving.of({learner.name: rows}, _HEADER)


def check_users(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:  # noqa: ARG001 - a Check
    """A user's id occurs only in the column for it of tables that are kept by user, and in the user's own row.

    So everything known about a user is found by the id, can be erased, and does not come back.
    """
    named = [_with_user(turn) for turn in turns]
    users = {turn.query.user_id for turn in named if turn.query.user_id}
    delta, at = learn(learner, named), _last(named)
    for table in learner.tables:
        for key in delta.get(table.name, Sums(table)).keys:
            for user in users:
                place = table.column(USER) if _is_of(table, key, learner.key_of(user)) else len(key)
                assert user not in (*key[:place], *key[place + 1 :]), f"{table.name}: {key} contains the id {user}"
    rows = solve(learner, delta, at)
    for user in users:
        for name, row in rows.items():
            own = learner.is_personal and name == user
            assert own or (user not in name and user.encode() not in row), f"row {name!r} contains the id {user}"
        mine = learner.key_of(user)
        left = {
            name: _rows_of(sums, [key for key in sums.keys if not _is_of(sums.table, key, mine)])
            for name, sums in delta.items()
        }
        again = learner.solve(MemorySums(left), changes(delta), at)
        assert again.get(user) is None, f"a row of {user} comes back after the user's sums were erased"


def check_compact(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """Compacting packed sums adds rows to other rows of the table, in one step, or drops them."""
    delta = merge(learn(learner, some) for some in _split(turns, 2, rng))
    for table in learner.tables:
        sums = delta.get(table.name)
        if table.sums or sums is None:
            continue
        moved = learner.compact(
            table, list(sums.keys), MemorySums(delta), _last(turns) + int(rng.integers(1000 * _DAY))
        )
        assert moved.keys() <= set(sums.keys), f"{table.name}: it moves rows that do not exist"
        targets = {target for target in moved.values() if target is not None}
        assert all(moved.get(target, target) == target for target in targets), f"{table.name}: a row is moved twice"
        assert all(len(target) == len(table.key) for target in targets), (
            f"{table.name}: a row is moved to an invalid key"
        )


def check_excess(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:  # noqa: ARG001 - a Check
    """Dropping the excess leaves as many rows as the bound allows, and does not change the section."""
    if learner.bound is None:
        return
    table, most = learner.bound
    exact = exactly_summable(learner, turns)
    delta, at = learn(learner, exact), _last(exact)
    sums = delta.get(table.name, Sums(table))
    crowded = {key[0] for key in sums.keys}
    dropped = set(learner.excess(MemorySums(delta), crowded, at))
    assert dropped <= set(sums.keys), f"{table.name}: it drops rows that do not exist"
    left = [key for key in sums.keys if key not in dropped]
    for value in crowded:
        before, after = (sum(key[0] == value for key in keys) for keys in (sums.keys, left))
        # Rows that belong together, such as those of one pair, are dropped together, and no more than necessary.
        widest = max(Counter(key[:2] for key in sums.keys if key[0] == value).values())
        fits = after == before if before <= most else most - widest < after <= most
        assert fits, f"{table.name}: {after} of {before} rows are left; the bound is {most}"
    remaining = delta | {table.name: _rows_of(sums, left)} if sums.keys else delta
    assert solve(learner, remaining, at) == solve(learner, delta, at), "dropping the excess changes the policy"


def check_keep(learner: Learner, turns: Sequence[Turn], rng: Generator) -> None:
    """Dropping the rows that are too old does not change the section."""
    if learner.keep is None:
        return
    table, column, age = learner.keep
    delta, at = learn(learner, turns), _last(turns) + int(rng.integers(1000 * _DAY))
    sums, place = delta.get(table.name, Sums(table)), table.column(column)
    left = _rows_of(sums, [key for key in sums.keys if key[place] >= at - age])
    assert solve(learner, delta | {table.name: left}, at) == solve(learner, delta, at), "old rows change the section"


CHECKS: Final[tuple[Check, ...]] = (
    check_identity,
    check_merging,
    check_split_and_order,
    check_purity,
    check_decay,
    check_policy_of_split,
    check_increments,
    check_portions,
    check_section,
    check_users,
    check_compact,
    check_excess,
    check_keep,
)


def learn(learner: Learner, turns: Iterable[Turn]) -> Delta:
    """Return the delta of `turns`."""
    return learner.learn(_JUDGE.judge(columns_of(list(turns))))


def solve(learner: Learner, delta: Delta, at: int) -> Section:
    """Return the whole section computed from `delta` at event time `at` (ms)."""
    section = learner.solve(MemorySums(delta), everything(learner, delta), at)
    return {key: row for key, row in section.items() if row is not None}


def changes(delta: Delta) -> dict[str, set[str]]:
    """Return the changes that the ledger would log for `delta`: table -> values of the first key column."""
    return {name: {key[0] for key in sums.keys} for name, sums in delta.items()}


def everything(learner: Learner, delta: Delta) -> dict[str, set[str]]:
    """Return all possible changes, naming empty tables too, as before the first version."""
    return {table.name: set[str]() for table in learner.tables} | changes(delta)


def unlike(one: Delta, two: Delta, *, exact: bool) -> str:
    """Describe a difference between two deltas; empty if they are equal, to the last bit or to 1e-9 relative."""
    one, two = ({name: sums for name, sums in delta.items() if sums.keys} for delta in (one, two))
    if one.keys() != two.keys():
        return f"tables {sorted(one)} and {sorted(two)}"
    for name, sums in one.items():
        landmark = max(sums.landmark, two[name].landmark)
        rows, others = (dict(zip(some.keys, some.rescaled(landmark), strict=True)) for some in (sums, two[name]))
        if rows.keys() != others.keys():
            return f"{name}: keys {sorted(rows)} and {sorted(others)}"
        for key, row in rows.items():
            same = row.tobytes() == others[key].tobytes() if exact else np.allclose(row, others[key], 1e-9, 1e-300)
            if not same:
                return f"{name} {key}: {row} and {others[key]}"
    return ""


def exactly_summable(learner: Learner, turns: Iterable[Turn]) -> list[Turn]:
    """Return variants of `turns` whose sums are exact, so that they can be compared to the last bit.

    Their times are whole half-lives, at most three, and all results are in the first position.
    """
    period = lcm(*(table.half_life_ms for table in learner.tables if table.half_life_ms)) or _DAY
    exact = []
    for turn in turns:
        moved = _moved(turn, turn.query.ts // _DAY % 4 * period)
        shown = [
            structs.replace(one, results=tuple(structs.replace(result, position=1) for result in one.results))
            for one in turn.impressions
        ]
        others = chain.from_iterable(some for name, some in turn.signals.items() if name != name_of(Impression))
        exact.append(Turn.of(moved.query, [*shown, *others], moved.next))
    return exact


def random_turns(rng: Generator, count: int) -> list[Turn]:
    """Return `count` turns from a small vocabulary, so that they share rows."""
    return [_random_turn(rng) for _ in range(count)]


_TEXTS: Final = ("play jazz", "Play, jass!", "weather", "🙂", "")
_STRATEGIES: Final = ("lexical", "semantic", "memory", "unheard-of")
_ENTITIES: Final = ("e1", "e2", "e3", "e4")
_HEADER: Final = Snapshot(
    version=1, parent=None, created=0, watermark=0, positions={}, fingerprint="", rows={}, checksum=""
)


def _random_turn(rng: Generator) -> Turn:
    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    def envelope(ts: int) -> dict[str, Any]:
        return {"event_id": "e", "ts": ts, "session_id": one_of("s", "t"), "query_id": "q"}

    def asked(ts: int) -> Query:
        return Query(
            **envelope(ts),
            text=one_of(*_TEXTS),
            interpretation=one_of(None, None, "a", "b", "c"),
            user_id=one_of(None, "ann", "bob"),
            context={"hour": int(rng.integers(24)), "device": one_of("car", "phone")},
            asr=one_of(None, Recognition(hypotheses=(Hypothesis("play jazz", -0.5), Hypothesis("play no jazz", -1.0)))),
            nlu=one_of(None, Understanding(score=float(rng.random()))),
        )

    ts = int(rng.integers(one_of(10 * _DAY, 3_000 * _DAY)))
    signals: list[Signal] = []
    for _ in range(rng.integers(3)):
        results = [
            Result(one_of(*_ENTITIES), int(place), tuple(rng.choice(_STRATEGIES, rng.integers(3), False).tolist()))
            for place in rng.integers(1, 13, rng.integers(4))
        ]
        signals.append(
            Impression(
                **envelope(ts),
                results=tuple(results),
                allocation={one_of(*_STRATEGIES): int(rng.integers(4)) for _ in range(3)},
                rewrite=one_of(None, None, None, Rewrite(source=one_of(*_TEXTS), target=one_of(*_TEXTS))),
                outcome=one_of(None, "answered", "asked"),
            )
        )
    signals += [
        Click(**envelope(ts), entity_id=one_of(*_ENTITIES), kind=one_of("click", "play"))
        for _ in range(rng.integers(3))
    ]
    signals += [
        Label(
            **envelope(ts),
            labeller=one_of("eve", "joe"),
            labelled_at=int(rng.integers(3)),
            failure_point=one_of(None, "correct", "recognition", "result"),
            goal=one_of(None, "continues", "reached", "missed"),
        )
        for _ in range(rng.integers(3))
    ]
    if rng.random() < 0.25:
        signals.append(BargeIn(**envelope(ts)))
    return Turn.of(asked(ts), signals, one_of(None, asked(ts + int(rng.integers(90_000)))))


def _moved(turn: Turn, ts: int) -> Turn:
    gap = turn.next.ts - turn.query.ts if turn.next else 0
    following = turn.next and structs.replace(turn.next, ts=ts + gap)
    return structs.replace(turn, query=structs.replace(turn.query, ts=ts), next=following)


def _with_user(turn: Turn) -> Turn:
    user = turn.query.user_id
    return structs.replace(turn, query=structs.replace(turn.query, user_id=user and f"user-7f3a9c-{user}"))


def _split(turns: Sequence[Turn], parts: int, rng: Generator) -> list[list[Turn]]:
    """Split turns at random, in random order."""
    order = rng.permutation(len(turns))
    ends = [0, *sorted(rng.integers(len(turns) + 1, size=parts - 1).tolist()), len(turns)]
    return [[turns[place] for place in order[first:last]] for first, last in pairwise(ends)]


def _last(turns: Iterable[Turn]) -> int:
    return max((turn.query.ts for turn in turns), default=0)


def _is_of(table: SumTable, key: Key, user: str) -> bool:
    return table.by_user and key[table.column(USER)] == user


def _rows_of(sums: Sums, keys: Sequence[Key]) -> Sums:
    place = {key: row for row, key in enumerate(sums.keys)}
    return Sums(sums.table, keys, sums.values[[place[key] for key in keys]], sums.landmark)


def _same(one: Delta, two: Delta, *, exact: bool = False) -> None:
    difference = unlike(one, two, exact=exact)
    assert not difference, f"sums differ: {difference}"
