"""The events. A struct defines everything about an event type, including its topic; `codec` reads and writes them."""

from typing import Annotated, Any, ClassVar, Final, Literal, NoReturn, TypeAlias, get_args

from msgspec import Meta, Struct, field

from backchannel.schemas.text import normalize

MAX_DEPTH: Final = 10_000
"""The maximum depth of a list that is logged; it means that the list was read to its end."""
MAX_PLACES: Final = 100
"""The number of places on a page that are told apart: 0 to 98 candidates with a better rank, and more."""
MAX_PHRASE: Final = 500
"""The maximum length of a text of a rule."""

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
Text: TypeAlias = Annotated[str, Meta(max_length=2000)]
Phrase: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_PHRASE)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Timestamp: TypeAlias = Annotated[int, Meta(ge=0, lt=253_402_300_800_000, description="ms since the Unix epoch")]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 53)]
Scalar: TypeAlias = float | bool | Annotated[str, Meta(max_length=256)]
Context: TypeAlias = Annotated[dict[Name, Scalar], Meta(max_length=64)]
Strategies: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=32)]
Allocation: TypeAlias = Annotated[dict[Name, Annotated[int, Meta(ge=0, le=MAX_DEPTH)]], Meta(max_length=32)]
Ranks: TypeAlias = Annotated[dict[Name, Annotated[int, Meta(ge=1, le=MAX_DEPTH)]], Meta(max_length=32)]
Propensities: TypeAlias = Annotated[dict[Name, Annotated[float, Meta(ge=0, le=1)]], Meta(max_length=32)]
FailurePoint: TypeAlias = Literal[
    "correct", "false_wake", "recognition", "understanding", "resolution", "result", "unsupported"
]
GoalLabel: TypeAlias = Literal["continues", "reached", "missed"]


class _Nothing(dict[Any, Any]):
    """A mapping that stays empty."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("events cannot be changed")

    __setitem__ = __ior__ = setdefault = update = _refuse


NOTHING: Final = _Nothing()
"""The mapping of every field without one: making and freeing its own for each took a tenth of the time of decoding."""


class _Event(Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag_field="type"):
    topic: ClassVar[str]
    unlearned: ClassVar[frozenset[str]] = frozenset()  # fields that no turn keeps

    event_id: Annotated[Id, Meta(description="counts once per turn")]
    ts: Annotated[Timestamp, Meta(description="event time, ms since the Unix epoch")]
    session_id: Annotated[Id, Meta(description="the record's key: a session lives in one partition")]
    query_id: Annotated[Id, Meta(description="the query that this event belongs to")]


ENVELOPE: Final = frozenset(_Event.__struct_fields__)
"""The fields that events of all types have."""


class Hypothesis(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the recogniser may have heard."""

    text: Text
    score: Annotated[float, Meta(ge=-1e6, le=1e6, description="log probability; only differences have a meaning")]


class Recognition(Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """How a spoken query was recognised."""

    hypotheses: Annotated[
        tuple[Hypothesis, ...], Meta(max_length=20, description="best first; the first one is the query's text")
    ] = ()
    wake: Annotated[float, Meta(ge=0, le=1, description="probability that the wake word was spoken")] | None = None


class Meaning(Struct, frozen=True, omit_defaults=True, gc=False):
    """Another interpretation."""

    interpretation: Text
    score: Annotated[float, Meta(ge=0, le=1, description="its probability")]


class Understanding(Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """How the NLU interpreted the text."""

    score: Annotated[float, Meta(ge=0, le=1, description="probability of the query's interpretation")] | None = None
    alternatives: Annotated[
        tuple[Meaning, ...], Meta(max_length=20, description="other interpretations, best first")
    ] = ()
    slots: Annotated[Context, Meta(description="slot -> value, as understood")] = NOTHING


class Earlier(Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """What happened in the session before a query; see `earlier_of`."""

    turns: Annotated[Count, Meta(description="number of earlier turns")]
    seconds: Annotated[float, Meta(ge=0, le=1e9, description="since the session's first query")] = 0.0
    clicks: Annotated[Count, Meta(description="number of clicks")] = 0
    barge_ins: Annotated[Count, Meta(description="number of turns that were interrupted")] = 0
    rephrased: Annotated[
        float, Meta(ge=0, le=1e9, description="number of turns that were rephrased: their probabilities, added up")
    ] = 0.0
    outcomes: Annotated[dict[Name, Count], Meta(max_length=32, description="outcome -> number of turns")] = NOTHING
    outcome: Annotated[Name, Meta(description="the last outcome")] | None = None
    surprise: (
        Annotated[float, Meta(ge=-1e6, le=1e6, description="mean of minus the best hypotheses' log probabilities")]
        | None
    ) = None
    certainty: Annotated[float, Meta(ge=0, le=1, description="mean of the NLU's probabilities")] | None = None
    repeats: Annotated[Count, Meta(description="number of turns just before, in a row, that ask the same")] = 0
    answer: Annotated[float, Meta(ge=0, le=1, description="what was said about the last answer")] | None = None
    reply: Annotated[Text, Meta(description="what the system said last: the `reply` of the last impression")] | None = (
        None
    )


class Query(_Event, frozen=True, gc=False, kw_only=True, tag="query"):
    """Somebody asked something."""

    topic: ClassVar[str] = "queries"

    text: Text
    user_id: Id | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    interpretation: Annotated[Text, Meta(description="the NLU's semantic form, if there is one")] | None = None
    context: Context = NOTHING
    asr: Annotated[Recognition, Meta(description="how it was recognised, if it was spoken")] | None = None
    nlu: Annotated[Understanding, Meta(description="how sure the NLU was")] | None = None
    earlier: Annotated[Earlier, Meta(description="what happened in the session before")] | None = None


class Result(Struct, frozen=True, omit_defaults=True, gc=False):
    """One entity as it was shown, with the strategies that produced it."""

    entity_id: Id
    position: Annotated[int, Meta(ge=1, le=10_000, description="1-based")]
    strategies: Strategies = ()
    ranks: Annotated[
        Ranks,
        Meta(
            description="strategy -> 1-based rank of the entity in the strategy's list, for strategies that produced "
            "it, and for others if it was looked up. A missing rank is counted from the positions"
        ),
    ] = NOTHING
    features: Annotated[Context, Meta(description="its features when it was ranked: flat, like a query's context")] = (
        NOTHING
    )
    places: (
        Annotated[
            tuple[Annotated[float, Meta(ge=0, le=1)], ...],
            Meta(
                max_length=MAX_PLACES,
                description="probabilities that it was among the candidates, whichever strategy brought it, with 0, 1 "
                f"... candidates of a better rank, the last of {MAX_PLACES} with more; for results whose ranks were "
                "looked up in every strategy",
            ),
        ]
        | None
    ) = None


class Normalizer(Struct, frozen=True, gc=False):
    """The mean and the standard deviation of a feature among the candidates of a list."""

    mean: Annotated[float, Meta(ge=-1e15, le=1e15)]
    deviation: Annotated[float, Meta(ge=0, le=1e15)]


class Rewrite(Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """A query that was served in place of the one asked."""

    source: Annotated[Text, Meta(description="the query as asked")] = field(name="from")
    target: Annotated[Text, Meta(description="the query served instead")] = field(name="to")


class Canary(Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """How the decision was made while the served policy shares decisions with one on trial."""

    trial: Annotated[Count, Meta(description="the version with which the trial began")]
    share: Annotated[float, Meta(ge=0, le=1, description="probability that the policy on trial decides")]
    propensity: Annotated[
        float, Meta(ge=0, le=1, description="probability of the allocation if the policy on trial had decided alone")
    ]


class Impression(_Event, frozen=True, gc=False, kw_only=True, tag="impression"):
    """The results shown for a query, and how they were chosen."""

    topic: ClassVar[str] = "impressions"

    results: Annotated[tuple[Result, ...], Meta(max_length=500)]
    allocation: Annotated[
        Allocation,
        Meta(
            description="strategy -> number of candidates requested from it, even if its list was shorter; "
            f"{MAX_DEPTH} if its whole list was walked in search of new candidates"
        ),
    ] = NOTHING
    planned: Annotated[
        Allocation,
        Meta(
            description="if the budget counts distinct candidates: strategy -> its proportion of the walk that the "
            "decision planned; the propensities are those of this plan"
        ),
    ] = NOTHING
    distinct: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=MAX_DEPTH,
                description="the budget of distinct candidates, if it was one; without it, the sum of `planned` is "
                "taken for it",
            ),
        ]
        | None
    ) = None
    propensities: Annotated[Propensities, Meta(description="strategy -> probability that it was asked")] = NOTHING
    allocation_propensity: (
        Annotated[float, Meta(ge=0, le=1, description="probability of the allocation as a whole")] | None
    ) = None
    looked_up: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=1,
                description="probability with which the results' ranks are looked up in every strategy; given where "
                "they were",
            ),
        ]
        | None
    ) = None
    strategy_context: Annotated[
        dict[Name, Context],
        Meta(
            max_length=64,
            description="strategy -> its context at the time of the decision: flat, like a query's context",
        ),
    ] = NOTHING
    user_context: Annotated[
        Context, Meta(description="the user's features at the time of the decision, as the decision reports them")
    ] = NOTHING
    examined: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=1)], ...],
        Meta(
            max_length=500,
            description="probabilities that positions 1, 2 ... are examined, as assumed by the ranking; the last one "
            "applies to all further positions",
        ),
    ] = ()
    normalizers: Annotated[
        dict[Name, Normalizer],
        Meta(max_length=64, description="feature of the results -> how it was standardized for ranking"),
    ] = NOTHING
    policy_version: Count | None = None
    canary: Annotated[Canary, Meta(description="as reported by the decision, while a policy is on trial")] | None = None
    ask: Annotated[Literal["satisfaction", "teach"], Meta(description="what was asked with the answer")] | None = None
    ask_propensity: Annotated[float, Meta(ge=0, le=1, description="probability of that question")] | None = None
    offers: Annotated[tuple["Rule", ...], Meta(max_length=3, description="the rules that were offered")] = ()
    rewrite: Rewrite | None = None
    outcome: (
        Annotated[
            Name,
            Meta(
                description="what the system did: answered, offered, asked, confirmed, repeated, failed (it could "
                "not), nothing (it found nothing) ..."
            ),
        ]
        | None
    ) = None
    reply: (
        Annotated[Text, Meta(description="what the system said, in the form of an interpretation: `offer(food=thai)`")]
        | None
    ) = None


class Click(_Event, frozen=True, gc=False, kw_only=True, tag="click"):
    """Somebody chose an entity."""

    topic: ClassVar[str] = "clicks"

    entity_id: Id
    kind: Annotated[Name, Meta(description="click, play, like, add ...")] = "click"
    dwell_ms: Count | None = None


class BargeIn(_Event, frozen=True, gc=False, kw_only=True, tag="barge_in"):
    """Somebody interrupted the response."""

    topic: ClassVar[str] = "barge_ins"

    offset_ms: Annotated[Count, Meta(description="into the response")] | None = None


class Label(_Event, frozen=True, gc=False, kw_only=True, tag="label"):
    """Somebody judged a turn.

    Its `ts` is that of the query, so that a log with labels gives the same turns whenever they were made.
    """

    topic: ClassVar[str] = "labels"

    labeller: Annotated[Id, Meta(description="who judged; in each field, the latest label by a labeller counts")]
    labelled_at: Annotated[Timestamp, Meta(description="when, ms since the Unix epoch")]
    failure_point: (
        Annotated[
            FailurePoint,
            Meta(
                description="the first component that failed in a way that was not recovered; `correct` if none did, "
                "`unsupported` if nobody could have done what was asked"
            ),
        ]
        | None
    ) = None
    goal: (
        Annotated[
            GoalLabel,
            Meta(
                description="what became of the user's goal: the next query `continues` it; or this was its last turn, "
                "so that the next query begins another, and it was `reached` or `missed`"
            ),
        ]
        | None
    ) = None
    interpretation: Annotated[Text, Meta(description="what was meant, in the NLU's form")] | None = None


class Feedback(_Event, frozen=True, gc=False, kw_only=True, tag="feedback"):
    """Somebody said how good the answer was: whether it answered, a rating, or a thumb; the first of them counts."""

    topic: ClassVar[str] = "feedback"
    unlearned: ClassVar[frozenset[str]] = frozenset({"comment"})

    answered: Annotated[bool, Meta(description="whether the query was answered")] | None = None
    rating: Annotated[float, Meta(ge=0, le=1, description="0 is the worst, 1 the best")] | None = None
    thumbs_up: Annotated[bool, Meta(description="whether the thumb was up")] | None = None
    asked: Annotated[bool, Meta(description="whether it answers a question; otherwise it was volunteered")] = False
    propensity: (
        Annotated[
            float,
            Meta(gt=0, le=1, description="probability that the question was asked, if it was; logged for estimates"),
        ]
        | None
    ) = None
    comment: Annotated[Text, Meta(description="in words; nothing is learned from it, and it is not kept")] | None = None

    @property
    def value(self) -> float | None:
        """How good the answer was, from 0 to 1; None: nothing was said but in words."""
        return value_of(self.answered, self.rating, self.thumbs_up)


def value_of(answered: bool | None, rating: float | None, thumbs_up: bool | None) -> float | None:
    """Return how good an answer was, from 0 to 1; see `Feedback.value`."""
    said = next((one for one in (answered, rating, thumbs_up) if one is not None), None)
    return None if said is None else float(said)


Signal: TypeAlias = Impression | Click | BargeIn | Label | Feedback
"""An event about a query. A new event type is another struct in this union."""


def _require_visible(name: str, text: str) -> None:
    if not normalize(text):
        raise ValueError(f"Expected a text in `{name}`, got only what cannot be seen")


class Means(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="means"):
    """FROM means TO: the query is to be replaced. A query that means itself is left as it is."""

    source: Annotated[Phrase, Meta(description="the query as asked")] = field(name="from")
    target: Annotated[Phrase, Meta(description="the query meant")] = field(name="to")
    interpretation: Annotated[
        bool, Meta(description="whether both are interpretations, used verbatim, and not texts")
    ] = False

    def __post_init__(self) -> None:
        if not self.interpretation:
            _require_visible("from", self.source)
            _require_visible("to", self.target)


class Prefer(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="prefer"):
    """For a query, an entity comes first."""

    entity_id: Id
    query: Annotated[Phrase, Meta(description="the query's text")]

    def __post_init__(self) -> None:
        _require_visible("query", self.query)


class Never(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="never"):
    """An entity is not to be shown, for any query."""

    entity_id: Id


class Like(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="like"):
    """For a query, an entity is liked: that counts like clicks, fades like them, and clicks can overrule it."""

    entity_id: Id
    query: Annotated[Phrase, Meta(description="the query's text")]

    def __post_init__(self) -> None:
        _require_visible("query", self.query)


class LikeAttribute(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="like_attribute"):
    """A value of a feature of results is liked, for any query: that counts like clicks, which can overrule it."""

    feature: Annotated[Name, Meta(description="the feature of results, such as `cuisine`")]
    value: Annotated[
        str, Meta(min_length=1, max_length=256, description="its value; for a yes or no, `true` or `false`")
    ]


Rule: TypeAlias = Means | Prefer | Never | Like | LikeAttribute
"""What can be taught."""


class Teach(_Event, frozen=True, gc=False, kw_only=True, tag="teach"):
    """Somebody said outright what is to be done. It holds from the next interaction on, and belongs to no turn.

    Of what was said about the same thing, the latest event counts: by `ts`, then by `event_id`.
    """

    topic: ClassVar[str] = "teachings"

    user_id: Annotated[Id, Meta(description="who teaches")]
    rule: Rule
    group_id: Annotated[
        str, Meta(max_length=256, description="the group, such as a household, for which it holds; empty: the user")
    ] = ""
    everyone: Annotated[bool, Meta(description="whether it holds for everyone; for operators only")] = False
    undo: Annotated[bool, Meta(description="whether the rule is to hold no longer")] = False
    locale: Annotated[str, Meta(max_length=35, description="the locale of its texts")] | None = None
    expires_s: Annotated[
        int, Meta(ge=0, le=3_155_760_000, description="seconds after `ts` at which it ceases to hold; 0: never")
    ] = 0
    asked: Annotated[bool, Meta(description="whether it answers a question; otherwise it was volunteered")] = False


Event: TypeAlias = Query | Signal | Teach


def name_of(event_type: type[Struct]) -> str:
    """Return the name of an event type, as in its field `type`: `query`, `impression` ..."""
    return str(event_type.__struct_config__.tag)


EVENT_TYPES: Final[dict[str, type[Event]]] = {name_of(event_type): event_type for event_type in get_args(Event)}
"""Event types by name. Topics, decoders, documents, counts and metrics follow from it."""
