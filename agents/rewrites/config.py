"""The configuration of rewrites."""

from typing import Annotated

from msgspec import Meta, Struct


class RephraseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a rewrite is published."""

    half_life_days: Annotated[float, Meta(ge=0.01, le=100_000, description="half-life of evidence, in days")] = 30.0
    min_support: Annotated[float, Meta(gt=0, le=1e6, description="turns (decayed) that both states must have")] = 3.0
    min_users: Annotated[
        float,
        Meta(
            ge=0,
            le=6,
            description="distinct people (decayed) who must have rephrased one query as the other. A session "
            "without a user counts as one",
        ),
    ] = 1.5
    margin: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="required distance from the upper bound of the source's success rate to the lower "
            "bound of the target's; each bound holds with 90% probability",
        ),
    ] = 0.1
    max_source_success: Annotated[
        float,
        Meta(
            ge=0, le=1, description="a query is rewritten only if the upper bound of its success rate is at most this"
        ),
    ] = 0.5
    min_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of those who ask a query who must go on to its target. To replace a single word "
            "takes more than half of those who do not give up, with 90% probability, and twice min_support unless both "
            "words sound the same. A changed number or an opposite takes five times min_support, and 80% of those whom "
            "the recogniser may have heard say both",
        ),
    ] = 0.1
    depth: Annotated[int, Meta(ge=1, le=10, description="longest chain of rephrases followed from a state")] = 3
    max_states: Annotated[int, Meta(ge=2, le=2000, description="most states in one solved subgraph")] = 100
    held_out: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of sessions that are served no rewrites, to measure whether rewrites help",
        ),
    ] = 0.05
    online_odds: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="wins per loss, by their lower bound, from which a query that nobody has rephrased yet is "
            "served as a near one that succeeds; 0: never. Spoken English commands suit 12",
        ),
    ] = 0.0
    online_first: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="how often a process serves a query's online rewrite before it has a record",
        ),
    ] = 3
    habits: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="most queries, per user, that have succeeded for the user and that online rewrites try first, "
            "where those of other users have proven to tell what was meant; learned only if online_odds is above 0. "
            "0: none",
        ),
    ] = 50
    personal: Annotated[
        int, Meta(ge=0, le=1000, description="most rewrites learned from a user's own rephrases, per user")
    ] = 20
    personal_support: Annotated[
        float, Meta(gt=0, le=1e6, description="rephrases of a query by one user that are enough for a personal rewrite")
    ] = 1.5
