"""The gate: whether a policy may go live, judged on logged decisions.

The candidate is compared with the live policy and with the uniform one, turn by turn, by the doubly robust estimator.
What counts is the lower bound of the difference (Thomas, Theocharous & Ghavamzadeh, "High confidence policy
improvement", ICML 2015). Either difference is

    sure      if its lower bound is no worse than the loss that is allowed;
    unsure    if it is not, but the estimate is at least 0;
    bad       otherwise.

The worse of the two decides, and how much the shares of candidates change, over all and in every segment:

                     change within bounds    beyond
    sure             publish                 warn
    unsure           warn                    hold
    bad              hold                    hold
    early            publish                 hold
    unfit            warn                    hold

It is early when there are too few logged decisions to tell; when there are enough of them, but they say little of the
candidate, they are unfit. So early learning is published, unjudged, as long as it moves in steps; when it would leap,
it waits for the evidence.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.bandit.features import Encoder
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import DecisionTable, LoggedDecision, table_of, vectors_of
from backchannel.agents.ope.estimators import Feedback, Terms, diagnose, doubly_robust
from backchannel.agents.ope.intervals import interval
from backchannel.agents.sums import Matrix
from backchannel.schemas.snapshot import Estimate, Evidence, Verdict

DRAWS: Final = 8
"""Of Thompson sampling's, for each turn: their noise averages out over turns."""
SEGMENT: Final = 30
"""Turns that a segment must have to be looked at."""
_SEED: Final = 1
_WORK: Final = 4_000_000  # candidates that are weighed for one policy


class GateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a policy may go live."""

    turns: Annotated[
        int,
        Meta(ge=0, le=100_000, description="recent decisions kept for judging policies; 0: policies are not judged"),
    ] = 2000
    minimum_effective: Annotated[
        float, Meta(ge=2, le=100_000, description="smallest effective sample size that counts as evidence")
    ] = 200.0
    max_loss: Annotated[
        float,
        Meta(ge=0, le=1, description="largest loss that may be risked, as a share of the live policy's value"),
    ] = 0.05
    confidence: Annotated[
        float, Meta(ge=0.5, le=0.9999, description="probability with which the loss must be within `max_loss`")
    ] = 0.95
    max_change: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="largest change in a strategy's share of candidates, in any segment, that needs no evidence",
        ),
    ] = 0.5


_VERDICTS: Final[dict[tuple[str, bool], Verdict]] = {
    ("sure", False): "publish",
    ("sure", True): "warn",
    ("unsure", False): "warn",
    ("unsure", True): "hold",
    ("bad", False): "hold",
    ("bad", True): "hold",
    ("early", False): "publish",
    ("early", True): "hold",
    ("unfit", False): "warn",
    ("unfit", True): "hold",
}
"""By the grade of the evidence, and whether shares change beyond the bound."""
_SAID: Final = {
    "sure": "",
    "unsure": "not sure to be no worse: ",
    "bad": "looks worse: ",
    "early": "early learning: ",
    "unfit": "unjudged: ",
}


class Change(Struct, frozen=True):
    """A change of a strategy's mean share of candidates, in a segment of the queries; "": in all."""

    strategy: str
    segment: str
    before: float
    after: float

    @property
    def where(self) -> str:
        """The segment, in words."""
        return f" where {self.segment}" if self.segment else ""

    @property
    def size(self) -> float:
        """0 to 1."""
        return abs(self.after - self.before)


class Judgement(Struct, frozen=True):
    """What the gate says of a policy.

    Attributes:
        verdict: `publish`; `warn`, which publishes too; or `hold`.
        reason: in words.
        evidence: in numbers; of the gains, `low` is the bound that counts.
        change: of shares; None without a live policy or data.
    """

    verdict: Verdict
    reason: str
    evidence: Evidence = Evidence()
    change: Change | None = None


def judge(
    candidate: Allocator, live: Allocator | None, decisions: Sequence[LoggedDecision], config: GateConfig
) -> Judgement:
    """Judge a policy. Pure: the same arguments give the same judgement.

    Args:
        candidate: the policy.
        live: what it would replace; None if there is nothing.
        decisions: a sample of those logged. Where there are more than can be evaluated in passing, the first count.
        config: the bounds.

    Raises:
        SupportError: something was asked that by its propensity could not be.
    """
    if live is None:
        return Judgement("publish", "the first version")
    if not decisions:
        return Judgement("publish", "early learning: unjudged, as no decision is logged with its propensities yet")
    weighed = _weigh(candidate, live, decisions, config)
    diagnosis, change = diagnose(weighed.log), weighed.change
    faults = diagnosis.faults(config.minimum_effective)
    value, gains = None, dict[str, Estimate]()
    if faults:
        early = diagnosis.turns < 2.0 * config.minimum_effective
        grade, told = "early" if early else "unfit", faults
    else:
        # One-sided, so with twice the error probability on both sides together.
        confidence = max(2.0 * config.confidence - 1.0, 1e-6)
        grade, told = "sure", []
        value = interval(weighed.value, "normal", confidence)
        for name, other in weighed.others:
            gain, scale = interval(weighed.value.minus(other), "normal", confidence), max(other.value, 1e-12)
            if gain.low < -config.max_loss * scale:
                grade = "bad" if gain.value < 0 or grade == "bad" else "unsure"
            gains[name] = gain
            told.append(f"{gain.value / scale:+.1%} to the {name} policy (at least {gain.low / scale:+.1%})")
        told.append(f"effective sample size {diagnosis.effective:,.0f}")
    leap = change.size > config.max_change
    reason = (
        f"{_SAID[grade]}{'; '.join(told)}; {change.strategy} goes from {change.before:.0%} to {change.after:.0%} "
        f"of the candidates{change.where}{f', more than the {config.max_change:.0%} allowed' if leap else ''}"
    )
    return Judgement(_VERDICTS[grade, leap], reason, Evidence(diagnosis.effective, value, gains), change)


class _Weighed(Struct, frozen=True):
    """What logged decisions say of a candidate.

    Attributes:
        log: weighed for it.
        value: of it.
        others: names and values of the live and the uniform policy.
        change: from the live one.
    """

    log: Feedback
    value: Terms
    others: list[tuple[str, Terms]]
    change: Change


def _weigh(candidate: Allocator, live: Allocator, decisions: Sequence[LoggedDecision], config: GateConfig) -> _Weighed:
    # A strategy that only one of them knows is never asked by the other.
    strategies = [*candidate.strategies, *(name for name in live.strategies if name not in candidate.strategies)]
    # A policy waits for this, so of what is too much, fewer turns are looked at, and then fewer draws in each.
    work = sum(sum(one.allocation.values()) for one in decisions) / len(decisions) * len(strategies)
    decisions = decisions[: max(int(_WORK / (work * DRAWS)), int(4 * config.minimum_effective))]
    many = max(min(int(_WORK / (work * len(decisions))), DRAWS), 1)
    contexts = _Contexts(decisions)
    table = table_of(decisions, contexts.encoded(candidate.encoder, strategies), strategies)
    depth = int(table.budgets.max(initial=max(candidate.least, live.least)))
    worth = np.concatenate([candidate.worth(depth), live.worth(depth)])
    worth = worth[[[*candidate.strategies, *live.strategies].index(name) for name in strategies]]
    modelled = table.modelled(worth)
    shares, logs = {}, {}
    for name, policy, draws in (
        ("candidate", candidate, many),
        ("live", live, many),
        ("uniform", candidate, 0),
    ):
        # The same chance for all policies, so that they differ in nothing but themselves.
        vectors = contexts.encoded(policy.encoder, policy.strategies)
        counts, extents = table.expected(policy, vectors, worth, np.random.default_rng(_SEED), draws)
        shares[name] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        logs[name] = table.feedback(extents, worth, modelled)
    values = {name: doubly_robust(log) for name, log in logs.items()}
    return _Weighed(
        log=logs["candidate"],
        value=values["candidate"],
        others=[(name, values[name]) for name in ("live", "uniform")],
        change=_largest_change(table, candidate.encoder, shares["live"], shares["candidate"]),
    )


class _Contexts:
    """The contexts of logged decisions, encoded once in each of the ways that the policies do, which mostly is one."""

    def __init__(self, decisions: Sequence[LoggedDecision]) -> None:
        self._decisions = decisions
        self._encoded: dict[tuple[str, tuple[str, ...]], Matrix] = {}

    def encoded(self, encoder: Encoder, strategies: Sequence[str]) -> Matrix:
        """See `vectors_of`."""
        key = encoder.fingerprint, tuple(strategies)
        if key not in self._encoded:
            self._encoded[key] = vectors_of(self._decisions, encoder, strategies)
        return self._encoded[key]


def _largest_change(table: DecisionTable, encoder: Encoder, before: Matrix, after: Matrix) -> Change:
    """The largest change of a strategy's mean share, over all turns and in segments that have enough of them."""
    found = []
    everywhere = np.ones(len(table.contexts), dtype=bool)
    members = {"": everywhere} | {name: table.contexts[:, 0, place] > 0 for name, place in encoder.segments.items()}
    for segment, own in members.items():
        if own.sum() >= SEGMENT or not segment:
            for strategy, was, is_now in zip(
                table.strategies, before[own].mean(axis=0).tolist(), after[own].mean(axis=0).tolist(), strict=True
            ):
                found.append(Change(strategy, segment, was, is_now))
    return max(found, key=lambda change: change.size)
