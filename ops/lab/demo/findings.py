"""The findings of a closed-loop run: rates over time, what was learned, and how it compares with the truth."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from msgspec import Struct
from numpy.random import Generator
from numpy.typing import NDArray
from river import stats, utils

from backchannel.ops.lab.worlds.people import QUERY_KINDS, STRAY, SearchWorld, SimulatedTurn
from backchannel.ops.lab.worlds.servers import STRATEGIES
from backchannel.schemas.snapshot import Estimate
from backchannel.streams.serving.policy import Policy

SERVERS: Final = ("learned", "uniform", "best")

EARLY: Final = 0.05
"""The early phase ends at this share of the turns."""
LATE: Final = 0.75
"""The late phase begins at this share of the turns."""

_RESAMPLES: Final = 1_000
_QUERIES, _RECALLED = 60, 3

_Key = TypeVar("_Key")


class Curve(Struct, frozen=True):
    """One server's rates over its last `Findings.window` turns, read at each of `Findings.points`."""

    click_rate: list[float]
    defect_rate: list[float]


class Late(Struct, frozen=True):
    """One server's rates in the late phase."""

    turns: int
    click_rate: Estimate
    defect_rate: Estimate
    barge_in_rate: float
    rephrase_rate: float
    click_rate_by_kind: dict[str, float]


class LearnedRewrite(Struct, frozen=True):
    """A rewrite in the policy, how often its source was asked, and whether it is right in the simulated world."""

    source: str
    target: str
    probability: float
    asked: int
    right: bool


class Rewrites(Struct, frozen=True):
    """The rewrites learned.

    Attributes:
        learned: rewrites in the last policy, the most asked first.
        right, wrong: number of right and of wrong rewrites at each of `Findings.points`.
        garbled: number of distinct garbled texts.
        garbled_served_right, garbled_served_wrong, others_served_wrong: share of the garbled turns, or of the other
            turns, in the late phase that were served a right or a wrong rewrite, 0 to 1.
    """

    learned: list[LearnedRewrite]
    right: list[int]
    wrong: list[int]
    garbled: int
    garbled_served_right: float
    garbled_served_wrong: float
    others_served_wrong: float


class Remembered(Struct, frozen=True):
    """An entity recalled for a query: the policy's score, and the true probability of a click when examined."""

    query: str
    kind: str
    asked: int
    rank: int
    title: str
    score: float
    attractiveness: float


class Findings(Struct, frozen=True, kw_only=True):
    """All findings of a run, all of them simulated.

    Attributes:
        planned: number of turns requested; sessions are played to their end, so `turns` may be slightly larger.
        points: numbers of the learned server's turns at which the curves were read.
        gap_closed: (learned - uniform) / (best - uniform) of the click rates in the late phase.
        shares: phase (`early` or `late`) -> kind of query -> strategy -> share of the candidates requested.
        memory: entities recalled for the most asked queries.
    """

    simulated: bool = True
    seed: int
    planned: int
    turns: int
    sessions: int
    events: int
    entities: int
    policy_version: int
    seconds: float
    window: int
    points: list[int]
    curves: dict[str, Curve]
    late: dict[str, Late]
    gap_closed: Estimate
    shares: dict[str, dict[str, dict[str, float]]]
    rewrites: Rewrites
    memory: list[Remembered]


class Scoreboard:
    """Records the servers' results while they serve the same people.

    Args:
        world: the simulated world, which knows the truth.
        turns: planned number of the learned server's turns, from which the phases are derived.
        window: number of turns that a rolling rate covers.

    Attributes:
        turns, events: number of the learned server's turns and events so far.
        sessions: number of sessions so far.
        policy_version: version that the learned server served last; 0 before the first.
    """

    def __init__(self, world: SearchWorld, turns: int, window: int = 1_000) -> None:
        self.turns = 0
        self.sessions = 0
        self.events = 0
        self.policy_version = 0
        self._now = 0
        self._world = world
        self._planned = turns
        self._window = window
        self._clicks = {server: utils.Rolling(stats.Mean, window_size=window) for server in SERVERS}
        self._defects = {server: utils.Rolling(stats.Mean, window_size=window) for server in SERVERS}
        self._points: list[int] = []
        self._curves = {server: Curve([], []) for server in SERVERS}
        self._asked: Counter[str] = Counter()
        self._kinds: dict[str, str] = {}
        self._right: list[int] = []
        self._wrong: list[int] = []
        self._candidates: Counter[tuple[str, str, str]] = Counter()
        self._served: Counter[tuple[bool, bool | None]] = Counter()
        self._late_sessions: list[list[list[int]]] = []
        self._late_kinds: dict[tuple[str, str], stats.Mean] = defaultdict(stats.Mean)

    def add(self, sessions: Mapping[str, Sequence[SimulatedTurn]]) -> None:
        """Add one person's session with each server."""
        late = self.turns >= LATE * self._planned
        for server in SERVERS:
            for turn in sessions[server]:
                self._clicks[server].update(turn.clicked)
                self._defects[server].update(turn.defect)
                if late:
                    self._late_kinds[server, turn.kind].update(turn.clicked)
        if late:
            self._late_sessions.append([_counts(sessions[server]) for server in SERVERS])
        for turn in sessions["learned"]:
            self._add_learned(turn, late)
        self.turns += len(sessions["learned"])
        self.sessions += 1

    def _add_learned(self, turn: SimulatedTurn, late: bool) -> None:
        text, kind = turn.text, turn.kind
        self.events += len(turn.events)
        self.policy_version = turn.answer.policy_version or 0
        self._now = max(self._now, turn.events[-1].ts)
        self._asked[text] += 1
        self._kinds[text] = kind
        phase = "late" if late else "early" if self.turns < EARLY * self._planned else None
        if phase:
            for strategy, count in turn.answer.allocation.items():
                self._candidates[phase, kind, strategy] += count
        if late:
            rewrite = turn.answer.rewrite
            self._served[kind == "garbled", self._world.is_right(text, rewrite.target) if rewrite else None] += 1

    def click_rate(self, server: str) -> float:
        """Return the server's click rate over its last `window` turns."""
        return self._clicks[server].obj.get()

    def mark(self, policy: Policy) -> None:
        """Record a point of every curve."""
        self._points.append(self.turns)
        for server, curve in self._curves.items():
            curve.click_rate.append(self._clicks[server].obj.get())
            curve.defect_rate.append(self._defects[server].obj.get())
        right = [rewrite.right for rewrite in self._rewrites(policy)]
        self._right.append(sum(right))
        self._wrong.append(len(right) - sum(right))

    def findings(self, policy: Policy, seed: int, seconds: float) -> Findings:
        """Return the findings.

        Args:
            policy: the last policy.
            seed: the seed of the run, also used for the bootstrap.
            seconds: the duration of the run.
        """
        counts = np.asarray(self._late_sessions, dtype=np.float64)
        click_rates, defect_rates, gap_closed = _bootstrap(counts, np.random.default_rng(seed))
        totals = counts.sum(axis=0)
        late = {
            server: Late(
                turns=int(totals[number, 0]),
                click_rate=click_rates[number],
                defect_rate=defect_rates[number],
                barge_in_rate=float(totals[number, 3] / totals[number, 0]),
                rephrase_rate=float(totals[number, 4] / totals[number, 0]),
                click_rate_by_kind={kind: self._late_kinds[server, kind].get() for kind in QUERY_KINDS},
            )
            for number, server in enumerate(SERVERS)
        }
        garbled, others = (
            {right: count for (is_garbled, right), count in self._served.items() if is_garbled is which}
            for which in (True, False)
        )
        return Findings(
            seed=seed,
            planned=self._planned,
            turns=self.turns,
            sessions=self.sessions,
            events=self.events,
            entities=len(self._world.catalogue),
            policy_version=policy.version,
            seconds=seconds,
            window=self._window,
            points=self._points,
            curves=self._curves,
            late=late,
            gap_closed=gap_closed,
            shares={phase: self._shares(phase) for phase in ("early", "late")},
            rewrites=Rewrites(
                learned=self._rewrites(policy),
                right=self._right,
                wrong=self._wrong,
                garbled=sum(kind == "garbled" for kind in self._kinds.values()),
                garbled_served_right=_share(garbled, True),
                garbled_served_wrong=_share(garbled, False),
                others_served_wrong=_share(others, False),
            ),
            memory=self._memory(policy),
        )

    def _shares(self, phase: str) -> dict[str, dict[str, float]]:
        shares: dict[str, dict[str, float]] = {}
        for kind in QUERY_KINDS:
            asked = {strategy: self._candidates[phase, kind, strategy] for strategy in STRATEGIES}
            shares[kind] = {strategy: _share(asked, strategy) for strategy in STRATEGIES}
        return shares

    def _rewrites(self, policy: Policy) -> list[LearnedRewrite]:
        rewritings = ((text, asked, policy.rewrite(text)) for text, asked in self._asked.most_common())
        return [
            LearnedRewrite(text, found.target, found.probability, asked, self._world.is_right(text, found.target))
            for text, asked, found in rewritings
            if found
        ]

    def _memory(self, policy: Policy) -> list[Remembered]:
        remembered = []
        for text, asked in self._asked.most_common(_QUERIES):
            truth = self._world.attractiveness(text, self._now)
            remembered += [
                Remembered(
                    query=text,
                    kind=self._kinds[text],
                    asked=asked,
                    rank=rank,
                    title=self._world.entities[recalled.entity_id].title,
                    score=recalled.score,
                    attractiveness=truth.get(recalled.entity_id, STRAY),
                )
                for rank, recalled in enumerate(policy.recall(text, _RECALLED), start=1)
            ]
        return remembered


def _counts(session: Sequence[SimulatedTurn]) -> list[int]:
    """Return the numbers of turns, and of clicked, defective, barged-in and rephrased turns."""
    return [
        len(session),
        sum(turn.clicked for turn in session),
        sum(turn.defect for turn in session),
        sum(turn.barged_in for turn in session),
        sum(turn.rephrased for turn in session),
    ]


def _share(counts: Mapping[_Key, int], key: _Key) -> float:
    return counts.get(key, 0) / (sum(counts.values()) or 1)


def _bootstrap(counts: NDArray[np.float64], rng: Generator) -> tuple[list[Estimate], list[Estimate], Estimate]:
    """Return each server's click rate and defect rate, and the gap closed.

    Sessions are drawn with replacement, each with all servers' results, so that the comparison stays paired.

    Args:
        counts: the result of `_counts` per session and server, (sessions, servers, 5).
        rng: the random generator.
    """
    sessions = len(counts)
    drawn = rng.multinomial(sessions, np.full(sessions, 1 / sessions), size=_RESAMPLES)
    # The first row is the sample itself.
    totals = np.tensordot(np.vstack([np.ones(sessions), drawn]), counts, axes=1)
    clicks, defects = totals[:, :, 1] / totals[:, :, 0], totals[:, :, 2] / totals[:, :, 0]
    learned, uniform, best = clicks.T
    gap = (learned - uniform) / (best - uniform)
    return [_estimate(rate) for rate in clicks.T], [_estimate(rate) for rate in defects.T], _estimate(gap)


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the estimate from `values`, (1 + resamples,), of which the first is the sample's own."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))
