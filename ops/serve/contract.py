"""What the service is sent, and what it answers: the structs from which its OpenAPI document is made."""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.memory.serving import Recalled
from backchannel.agents.ranking.serving import Reason
from backchannel.agents.rewrites.serving import Rewriting
from backchannel.agents.taught.rules import TaughtRule
from backchannel.schemas.events import (
    Canary,
    Context,
    Earlier,
    Id,
    Name,
    Ranks,
    Recognition,
    Rule,
    Strategies,
    Text,
    Timestamp,
)

Locale: TypeAlias = Annotated[str, Meta(max_length=35)]
Size: TypeAlias = Annotated[int, Meta(ge=1, le=500)]

MAX_EVENTS: Final = 10_000
"""Events of one request."""


class DecideRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody asks something: what is to be done?"""

    text: Annotated[Text, Meta(description="the query, as asked")]
    session_id: Annotated[Id, Meta(description="the session; its events are learned together")]
    budget: Annotated[
        int, Meta(ge=1, le=MAX_BUDGET, description="number of candidates to draw from all strategies together")
    ]
    query_id: Annotated[Id, Meta(description="never to be used again; made up if it is missing")] | None = None
    ts: Annotated[Timestamp, Meta(description="when it was asked, ms since the Unix epoch; now if missing")] | None = (
        None
    )
    user_id: Id | None = None
    group_id: Annotated[Id, Meta(description="the user's group, such as a household: see `teach`")] | None = None
    locale: Locale | None = None
    interpretation: Annotated[Text, Meta(description="the NLU's semantic form, if there is one")] | None = None
    context: Annotated[Context, Meta(description="device, time of day ...: whatever may influence what is good")] = {}
    strategy_context: Annotated[
        dict[Name, Context], Meta(max_length=64, description="strategy -> what you know about it, for this query")
    ] = {}
    available: (
        Annotated[Strategies, Meta(min_length=1, description="the strategies that can be asked now; all if missing")]
        | None
    ) = None
    distinct: Annotated[bool, Meta(description="whether the budget is one of different candidates")] = False
    look_up: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=1,
                description="with which probability you look up the ranks of this query's results in every strategy: "
                "the same for all queries. From those, `evaluate` tells what other allocations are worth. Not for "
                "`distinct`",
            ),
        ]
        | None
    ) = None
    rewrite: Annotated[bool, Meta(description="whether a rewrite is served, if there is one")] = True
    earlier: Annotated[Earlier, Meta(description="what happened in the session before")] | None = None
    asr: Annotated[Recognition, Meta(description="how it was recognised, if it was spoken")] | None = None
    recall: Annotated[int, Meta(ge=0, le=500, description="maximum number of remembered entities")] = 20


class DecideResponse(Struct, frozen=True, kw_only=True):
    """What to do for a query: search for `served`, ask the strategies of `allocation`, then rank what they find."""

    decision_id: Annotated[
        str, Meta(description="the decision itself, packed: name it in `/v1/rank` and in the query's events")
    ]
    session_id: str
    query_id: str
    ts: int
    served: Annotated[str, Meta(description="what to search for: the text as asked, or what it should have been")]
    rewrite: Annotated[Rewriting | None, Meta(description="why `served` differs from the text; null: it does not")]
    allocation: Annotated[
        dict[str, int],
        Meta(
            description="strategy -> number of candidates to draw, for the strategies to ask; with `distinct`, the "
            "proportions in which to walk their lists until there are so many different ones"
        ),
    ]
    planned: Annotated[
        dict[str, int], Meta(description="the plan of a distinct budget: log how deep each list was walked")
    ]
    propensities: Annotated[dict[str, float], Meta(description="strategy -> probability that it is asked")]
    allocation_propensity: float | None
    recalled: Annotated[list[Recalled], Meta(description="entities that have worked for `served`, best first")]
    canary: Canary | None
    look_up: Annotated[
        bool,
        Meta(
            description="whether the coin of `look_up` fell on this query: then name in `ranks`, for each result that "
            "is shown, its rank in the list of every strategy that has it, asked or not"
        ),
    ]
    ask: Annotated[
        Literal["satisfaction", "teach"] | None,
        Meta(
            description="what to ask with the answer: `satisfaction`, whether it was what they wanted; `teach`, what "
            "they mean. A `feedback` event that names the `decision_id` need not say that it was asked for, and with "
            "which probability; null: nothing"
        ),
    ]
    ask_propensity: Annotated[float | None, Meta(description="probability of that question")]
    offers: Annotated[
        tuple[Rule, ...],
        Meta(description="for `teach`, the rules to choose from, best first: send one as a `teach` event"),
    ]
    policy_version: Annotated[
        int | None, Meta(description="null: there is no policy yet, and the budget is shared out evenly")
    ]
    ignored: Annotated[
        list[str], Meta(description="names among `available` and `strategy_context` that the policy does not know")
    ]


class RankCandidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be shown."""

    entity_id: Id
    features: Annotated[Context, Meta(description="what is known of it; `score` is your own score")] = {}
    ranks: Annotated[Ranks, Meta(description="its rank, from 1, in the list of each strategy that brought it")] = {}


class RankRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The union of what the strategies brought: in which order is it to be shown?"""

    decision_id: Annotated[str, Meta(description="as `/v1/decide` gave it")]
    candidates: Annotated[
        list[RankCandidate],
        Meta(max_length=MAX_BUDGET, description="each entity once, in your own order, or with a feature `score`"),
    ]
    k: Annotated[Size, Meta(description="number of results wanted")] = 10
    explain: Annotated[bool, Meta(description="whether results say what their scores are made of")] = False


class RankResult(Struct, frozen=True, kw_only=True):
    """One result in its place, in the form that the `impression` wants; `score` and `reasons` need not be sent back."""

    entity_id: str
    position: int
    strategies: tuple[str, ...]
    ranks: dict[str, int]
    features: dict[str, float | bool | str]
    score: float
    reasons: tuple[Reason, ...] = ()


class RankResponse(Struct, frozen=True, kw_only=True):
    """An order. Log what is shown of it as the `results` of an impression that names this `decision_id`."""

    decision_id: Annotated[str, Meta(description="takes the place of the one that was sent")]
    results: list[RankResult]
    learned: Annotated[bool, Meta(description="whether clicks had a say; false: the order is yours")]
    propensity: Annotated[float, Meta(description="probability of this order")]
    policy_version: int | None


class RecallResponse(Struct, frozen=True, kw_only=True):
    """The entities that have worked for a query."""

    recalled: list[Recalled]
    policy_version: int | None


class RewriteResponse(Struct, frozen=True, kw_only=True):
    """What a query should have been; null: it should stay as it is."""

    rewrite: Rewriting | None
    policy_version: int | None


class TaughtResponse(Struct, frozen=True, kw_only=True):
    """The rules that hold for a user: the user's own, then the group's, then everyone's; latest first."""

    rules: list[TaughtRule]


class StrategyResponse(Struct, frozen=True):
    """What is known about a strategy: turns that asked it (decayed), and their mean reward."""

    turns: float
    reward: float


class PolicyResponse(Struct, frozen=True, kw_only=True):
    """The policy that this process serves."""

    version: Annotated[int | None, Meta(description="null: none was published yet, and defaults are served")]
    created: Annotated[int | None, Meta(description="when it was made, ms since the Unix epoch")]
    watermark: Annotated[int | None, Meta(description="event time up to which it has learned, ms")]
    checked_s: Annotated[float, Meta(description="seconds since the store last answered")]
    error: Annotated[str | None, Meta(description="why the newest version is not served; null: all is well")]
    strategies: dict[str, StrategyResponse]
    remembered: Annotated[int, Meta(description="queries in the memory index")]


class EventsResponse(Struct, frozen=True, kw_only=True):
    """The events are durable and will be learned once, however often they are sent."""

    accepted: int
