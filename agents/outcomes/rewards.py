"""What feedback is worth: the section `rewards` of the configuration."""

from typing import Annotated, Final

from msgspec import Meta, Struct, field

NEGATIVE: Final = frozenset(
    {"dislike", "dismiss", "downvote", "hide", "not_interested", "report", "skip", "thumb_down", "thumbs_down"}
)
"""Kinds of clicks that are worth 0 unless the configuration says otherwise."""


class RewardConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The worth of feedback."""

    click_gain: Annotated[
        dict[str, Annotated[float, Meta(ge=-1, le=1)]],
        Meta(
            description="kind of click -> its worth; a negative worth takes back what other clicks on the same entity "
            f"earned. Other kinds are worth 1, those that are plainly negative 0: {', '.join(sorted(NEGATIVE))}"
        ),
    ] = field(default_factory=lambda: {"click": 1.0})
    dwell_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="dwell time at which a click has its full worth; a shorter dwell time gives a "
            "proportional share. Clicks without a dwell time have their full worth; 0: dwell "
            "times are ignored",
        ),
    ] = 0.0
    unclicked_gain: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="success of a query without a click, if the session continues with a query that does "
            "not rephrase it. Where nobody clicks, as with most voice assistants, anything is "
            "learned only if this is above 0: strategies and entities from turns that showed a single result",
        ),
    ] = 0.0
    barge_in_weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of the gain that a barge-in takes back. In real dialogue logs barge-ins depend"
            " on the system and are not always rejections: raise this if they are in yours",
        ),
    ] = 0.5
    rephrase_weight: Annotated[float, Meta(ge=0, le=1, description="share of the gain that a rephrase takes back")] = (
        1.0
    )
    feedback_weight: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share by which what somebody said about an answer takes the place of what clicks, barge-ins "
            "and rephrases say; 0: `feedback` is ignored",
        ),
    ] = 1.0
    least_propensity: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="the smallest probability with which people are asked: an answer to a question that was asked "
            "with the logged probability p counts only least_propensity / p of feedback_weight, so that asking more in "
            "one segment biases nothing. 1: all answers count alike. Volunteered answers count in full",
        ),
    ] = 0.01
    rephrase_gap_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="longest time between a query and its rephrase"),
    ] = 60.0

    def worth(self, kind: str) -> float:
        """Return what a click of a kind is worth, in [-1, 1]."""
        otherwise = 0.0 if kind.casefold().replace("-", "_") in NEGATIVE else 1.0
        return self.click_gain.get(kind, otherwise)

    def names(self, kind: str) -> bool:
        """Return whether a kind of click has a worth of its own, configured or by its plain meaning."""
        return kind in self.click_gain or kind == "click" or not self.worth(kind)
