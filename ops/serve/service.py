"""The service without HTTP: requests in, answers out."""

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from math import comb
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import structs

from backchannel.agents.bandit.decision import Decision
from backchannel.agents.bandit.features import Value, context_of
from backchannel.agents.ranking.serving import Candidate, Ranker
from backchannel.agents.rewrites.serving import Rewriting
from backchannel.agents.satisfaction.asking import Asker, Kind, Question, answered
from backchannel.ops.serve.completion import Logged, completed, pack, unpack
from backchannel.ops.serve.contract import (
    MAX_EVENTS,
    DecideRequest,
    DecideResponse,
    EventsResponse,
    PolicyResponse,
    RankRequest,
    RankResponse,
    RankResult,
    RecallResponse,
    RewriteResponse,
    StrategyResponse,
    TaughtResponse,
)
from backchannel.ops.serve.probing import Probe
from backchannel.ops.serve.sinks import Accepted, Sink
from backchannel.ops.web.problems import Fault, RefusedError
from backchannel.schemas.codec import EventError
from backchannel.schemas.events import Query, Rewrite, Rule, Teach
from backchannel.streams.clock import untimely
from backchannel.streams.serving.policy import Policy, asking
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.turns.partition import unauthorized

Happened: TypeAlias = Literal["asked", "refused", "answered"]
"""What happened to a question; it is refused by the budget."""

MAX_FAULTS: Final = 20
"""Invalid events of a request that are named."""


class Service:
    """Answers with the newest policy; before there is one, with defaults.

    Args:
        reader: reads the policy; started by the caller.
        strategies: the strategies to ask before there is a policy.
        sink: takes the events.
        max_ahead_s: how far events may be ahead of this machine's clock, s.
        operators: who may teach for everyone.
        asker: returns what decides when to ask people at a time (ms since the Unix epoch); None: nobody is asked here.
        on_question: is told of each question that is asked, refused by the budget, or answered.
        rng: the source of randomness.
    """

    def __init__(
        self,
        reader: PolicyReader,
        strategies: Sequence[str],
        sink: Sink,
        max_ahead_s: float = 300.0,
        *,
        operators: Collection[str] = (),
        asker: Callable[[int], Asker | None] | None = None,
        on_question: Callable[[Kind, Happened], None] = lambda _kind, _happened: None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._reader: Final = reader
        self._strategies: Final = tuple(strategies)
        self._sink: Final = sink
        self._max_ahead: Final = round(max_ahead_s * 1000)
        self._operators: Final = operators
        self._asker: Final = asker
        self._on_question: Final = on_question
        self._rng: Final = rng or np.random.default_rng()

    @property
    def policy(self) -> Policy | None:
        """The newest policy; None before the first."""
        return None if self._reader.status.version is None else self._reader.policy

    def decide(self, asked: DecideRequest) -> DecideResponse:
        """Decide what to do for a query: its rewrite first, then the allocation, then what is remembered."""
        policy, query = self.policy, _query(asked)
        rewriting = (
            policy.rewrite(
                query.text,
                interpretation=query.interpretation,
                user=query.user_id,
                session=query.session_id,
                locale=query.locale,
                group=asked.group_id,
                hypotheses=query.asr.hypotheses if query.asr else (),
            )
            if policy and asked.rewrite
            else None
        )
        source = query.interpretation or query.text
        logged = Logged(query, Decision({}, {}), Rewrite(source=source, target=rewriting.target) if rewriting else None)
        decision, probe = self._allocate(policy, asked, logged)
        question = self._question(policy, query, rewriting, asked.group_id) if policy else None
        if question is not None:
            decision = asking(decision, question)
        logged = structs.replace(logged, decision=decision, group=asked.group_id, probe=probe)
        known = set(policy.strategies if policy else self._strategies)
        return DecideResponse(
            decision_id=pack(logged),
            session_id=query.session_id,
            query_id=query.query_id,
            ts=query.ts,
            served=logged.served,
            rewrite=rewriting,
            allocation=decision.allocation,
            planned=decision.planned,
            propensities=decision.propensities,
            allocation_propensity=decision.allocation_propensity,
            recalled=policy.recall(
                logged.served, asked.recall, query.user_id, group=asked.group_id, locale=query.locale
            )
            if policy and asked.recall
            else [],
            canary=decision.canary,
            look_up=probe is not None,
            ask=decision.ask,
            ask_propensity=decision.ask_propensity,
            offers=decision.offers,
            policy_version=decision.policy_version,
            ignored=sorted({*(asked.available or ()), *asked.strategy_context} - known),
        )

    def _question(
        self, policy: Policy, query: Query, rewriting: Rewriting | None, group: str | None
    ) -> Question | None:
        now = time.time_ns() // 1_000_000
        asker = self._asker(now) if self._asker else None
        if asker is None:
            return None

        def offers() -> Sequence[Rule]:
            return policy.offers(
                query.text, interpretation=query.interpretation, user=query.user_id, locale=query.locale, group=group
            )

        drawn = asker.draw(policy.satisfaction, query, self._rng, offers=offers, rewritten=rewriting is not None)
        if drawn is None:
            return None
        allowed = asker.spend(query, now)
        self._on_question(drawn.kind, "asked" if allowed else "refused")
        return drawn if allowed else None

    def _allocate(self, policy: Policy | None, asked: DecideRequest, logged: Logged) -> tuple[Decision, Probe | None]:
        available = None if asked.available is None else frozenset(asked.available)
        if asked.look_up is not None and asked.distinct:
            raise RefusedError(400, "look_up: with a budget of distinct candidates nothing is known of what it brings")
        if policy is None:
            return evenly(self._strategies, asked.budget, available, self._rng), None
        known: Mapping[str, Mapping[str, Value]] = policy.history(logged.served, locale=logged.query.locale)
        if asked.strategy_context:
            names = {*known, *asked.strategy_context}
            known = {name: {**known.get(name, {}), **asked.strategy_context.get(name, {})} for name in names}
        context, user = context_of(logged.query), asked.user_id
        try:
            decision = policy.allocate(
                context, asked.budget, self._rng, known, user, distinct=asked.distinct, available=available
            )
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        if asked.look_up is None or self._rng.random() >= asked.look_up:
            return decision, None
        brought = policy.retrieval(context, asked.budget, known, user, available=available)
        return decision, Probe.of(asked.look_up, brought)

    def rank(self, asked: RankRequest) -> RankResponse:
        """Rank candidates."""
        try:
            logged = unpack(asked.decision_id)
        except EventError as error:
            raise RefusedError(400, str(error)) from None
        policy, query = self.policy, logged.query
        drawn = logged.decision.allocation if logged.probe is not None else None
        candidates = [Candidate(one.entity_id, one.features, one.ranks) for one in asked.candidates]
        context = context_of(query)
        try:
            if policy is None:
                ranking = Ranker({}).rank(context, candidates, asked.k, self._rng, explain=asked.explain)
            else:
                ranking = policy.rank(
                    context,
                    candidates,
                    asked.k,
                    query=logged.served,
                    locale=query.locale,
                    user=query.user_id,
                    rng=self._rng,
                    explain=asked.explain,
                    group=logged.group,
                )
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        results = [
            RankResult(
                entity_id=one.entity_id,
                position=one.position,
                # A rank that was looked up may be deeper than what was drawn.
                strategies=tuple(
                    name for name, rank in one.ranks.items() if drawn is None or rank <= drawn.get(name, 0)
                ),
                ranks=dict(one.ranks),
                features={name: value for name, value in one.features.items() if value is not None},
                score=one.score,
                reasons=one.reasons,
            )
            for one in ranking.results
        ]
        return RankResponse(
            decision_id=pack(structs.replace(logged, normalizers=ranking.normalizers, examined=ranking.examined)),
            results=results,
            learned=ranking.learned,
            propensity=ranking.propensity,
            policy_version=ranking.policy_version,
        )

    def recall(
        self, text: str, k: int, user_id: str | None, group_id: str | None, locale: str | None
    ) -> RecallResponse:
        """Return the entities that have worked for a query."""
        policy = self.policy
        return RecallResponse(
            recalled=policy.recall(text, k, user_id, group=group_id, locale=locale) if policy else [],
            policy_version=policy.version if policy else None,
        )

    def rewrite(
        self,
        text: str,
        interpretation: str | None,
        user_id: str | None,
        session_id: str | None,
        *,
        group_id: str | None,
        locale: str | None,
    ) -> RewriteResponse:
        """Return what a query should have been."""
        policy = self.policy
        found = (
            policy.rewrite(
                text, interpretation=interpretation, user=user_id, session=session_id, group=group_id, locale=locale
            )
            if policy
            else None
        )
        return RewriteResponse(rewrite=found, policy_version=policy.version if policy else None)

    def taught(self, user_id: str | None, group_id: str | None) -> TaughtResponse:
        """Return what was taught that holds for a user."""
        return TaughtResponse(rules=self.policy.taught(user_id, group_id) if self.policy else [])

    def describe(self) -> PolicyResponse:
        """Describe the policy that is served."""
        policy, status = self.policy, self._reader.status
        return PolicyResponse(
            version=policy.version if policy else None,
            created=policy.snapshot.created if policy else None,
            watermark=policy.snapshot.watermark if policy else None,
            checked_s=status.checked_s,
            error=status.error,
            strategies={name: StrategyResponse(*known) for name, known in policy.evidence().items()} if policy else {},
            remembered=policy.remembered if policy else 0,
        )

    async def accept(self, body: bytes, *, lines: bool) -> EventsResponse:
        """Accept the events of a request: all of them, or none.

        Args:
            body: an event, an array of events, or with `lines` one event per line.
            lines: whether it is NDJSON.

        Raises:
            RefusedError: an event is invalid, or they cannot be made durable now.
        """
        now = time.time_ns() // 1_000_000
        events: list[Accepted] = []
        answers: list[Kind] = []
        faults: list[Fault] = []
        forbidden = 0
        sent = _events(body, lines=lines)
        for index, raw in enumerate(sent):
            try:
                event, record = completed(raw, now)
                if fault := untimely(event.ts, now, self._max_ahead):
                    raise EventError(fault)
                if isinstance(event, Teach) and (fault := unauthorized(event, self._operators)):
                    forbidden += 1
                    raise EventError(fault)
            except EventError as error:
                faults.append(Fault(index, str(error)))
                continue
            events.append(Accepted(type(event), event.session_id, event.ts, record))
            if (kind := answered(event)) is not None:
                answers.append(kind)
        if faults:
            first = faults[0]
            where = f"event {first.index}: {first.detail}" if len(sent) > 1 else first.detail
            more = f" ({len(faults)} of {len(sent)} events are invalid; none was accepted)" if len(sent) > 1 else ""
            raise RefusedError(
                403 if forbidden == len(faults) else 400,
                where + more,
                errors=list(islice(faults, MAX_FAULTS)) if len(sent) > 1 else None,
            )
        if events:
            await self._sink.put(events)
            for kind in answers:
                self._on_question(kind, "answered")
        return EventsResponse(accepted=len(events))


def evenly(
    strategies: Sequence[str], budget: int, available: Collection[str] | None, rng: np.random.Generator
) -> Decision:
    """Share a budget out among strategies as evenly as it can be; chance decides who gets what is left over.

    Raises:
        RefusedError: no strategy is available.
    """
    asked = [name for name in strategies if available is None or name in available]
    if not asked:
        raise RefusedError(400, f"available: none of {', '.join(strategies)}; name one, or set bandit.strategies")
    each, left = divmod(budget, len(asked))
    lucky = set(rng.permutation(len(asked))[:left].tolist())
    allocation = {name: each + (place in lucky) for place, name in enumerate(asked)}
    chance = 1.0 if each else left / len(asked)
    return Decision(
        {name: count for name, count in allocation.items() if count},
        {name: chance if name in asked else 0.0 for name in strategies},
        1.0 / comb(len(asked), left),
    )


def _query(asked: DecideRequest) -> Query:
    query_id = asked.query_id or secrets.token_hex(16)
    return Query(
        event_id=f"{query_id}/query",
        ts=time.time_ns() // 1_000_000 if asked.ts is None else asked.ts,
        session_id=asked.session_id,
        query_id=query_id,
        text=asked.text,
        user_id=asked.user_id,
        locale=asked.locale,
        interpretation=asked.interpretation,
        context=asked.context,
        earlier=asked.earlier,
        asr=asked.asr,
    )


def _events(body: bytes, *, lines: bool) -> list[bytes]:
    """Split a body into events, undecoded."""
    if lines:
        found = [line for line in body.split(b"\n") if line.strip()]
    else:
        start = body.lstrip()[:1]
        if start != b"[":
            return [body]
        try:
            found = [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(400, f"body: {error}; send an event, an array of events, or NDJSON") from None
    if len(found) > MAX_EVENTS:
        raise RefusedError(413, f"{len(found)} events; send at most {MAX_EVENTS} at once")
    return found
