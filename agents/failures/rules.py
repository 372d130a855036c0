"""Weak supervision: what rules over the events of a turn say failed first, for as long as there are no labels.

The rules are declared, not learned. The first that holds of a turn counts. How often each is right was measured on one
log, DSTC2, whose labels are true: `backchannel lab failures` measures it anew. Elsewhere it may be right less often.
DSTC2 has no wake words, so the chances of the first rule are declared, not measured.

After A. Ratner et al., "Snorkel: rapid training data creation with weak supervision", VLDB 2017, without its model of
how rules agree: of these, only one speaks at a time.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

Numbers = Mapping[str, float | None]
"""The numbers of a turn by name; see `evidence.BINS`."""

POINTS: Final = ("correct", "false_wake", "recognition", "understanding", "result")
"""The failure points that rules tell."""


class Rule(Struct, frozen=True):
    """A rule.

    Attributes:
        name: what it says of a turn, in words.
        holds: whether it holds, by the numbers of a turn and the system's last outcome.
        chances: probability of each of POINTS in turns of which it is the first to hold.
    """

    name: str
    holds: Callable[[Numbers, str | None], bool]
    chances: tuple[float, ...]


def _least(numbers: Numbers, name: str, bound: float) -> bool:
    number = numbers.get(name)
    return number is not None and number >= bound


def _below(numbers: Numbers, name: str, bound: float) -> bool:
    number = numbers.get(name)
    return number is not None and number < bound


def _again(numbers: Numbers) -> bool:
    """Return whether the next query says the same."""
    return (
        _least(numbers, "words of the next query", 0.8)
        or _least(numbers, "likeness of the next query", 0.7)
        or _least(numbers, "overlap with the next interpretation", 1.0)
    )


def _nothing_understood(numbers: Numbers) -> bool:
    """Return whether there is an NLU, and it understood nothing."""
    return numbers.get("interpretations") is not None and _below(numbers, "parts of the interpretation", 1)


RULES: Final = (
    Rule(
        "false wake: the wake word was improbable",
        lambda numbers, _: _below(numbers, "wake word", 0.5),
        (0.2, 0.8, 0.0, 0.0, 0.0),
    ),
    Rule(
        "false wake: one or no word, hypotheses unlike each other, and nothing understood",
        lambda numbers, _: (
            _below(numbers, "words", 2)
            and _below(numbers, "likeness of the hypotheses", 0.4)
            and _nothing_understood(numbers)
        ),
        (0.49, 0.18, 0.23, 0.06, 0.04),
    ),
    Rule(
        "recognition: the next query is another hypothesis of this one",
        lambda numbers, _: (
            _least(numbers, "likeness of the next query to another hypothesis", 0.9)
            and _below(numbers, "likeness of the next query", 0.8)
        ),
        (0.28, 0.09, 0.41, 0.13, 0.09),
    ),
    Rule(
        "recognition: the next query says the same, and the recogniser was unsure",
        lambda numbers, _: _again(numbers) and _least(numbers, "surprise of the recogniser", 1.5),
        (0.25, 0.03, 0.38, 0.3, 0.04),
    ),
    Rule(
        "result: the next query means the same, and nothing was found",
        lambda numbers, outcome: (
            outcome in {"nothing", "failed"} and _least(numbers, "overlap with the next interpretation", 1.0)
        ),
        (0.13, 0.0, 0.16, 0.1, 0.61),
    ),
    Rule(
        "understanding: the next query has the same words and another meaning",
        lambda numbers, _: (
            _least(numbers, "words of the next query", 0.8)
            and _below(numbers, "overlap with the next interpretation", 0.4)
        ),
        (0.3, 0.01, 0.14, 0.52, 0.03),
    ),
    Rule(
        "understanding: the next query says the same, and the NLU was unsure",
        lambda numbers, _: _again(numbers) and _below(numbers, "certainty of the NLU", 0.6),
        (0.15, 0.01, 0.12, 0.44, 0.28),
    ),
    Rule(
        "correct or result: the next query says the same",
        lambda numbers, _: _again(numbers),
        (0.58, 0.0, 0.09, 0.15, 0.18),
    ),
    Rule(
        "recognition: the recogniser was very unsure",
        lambda numbers, _: _least(numbers, "surprise of the recogniser", 3.0),
        (0.35, 0.04, 0.52, 0.09, 0.0),
    ),
    Rule(
        "recognition: the recogniser was unsure, and nothing was understood",
        lambda numbers, _: _least(numbers, "surprise of the recogniser", 0.7) and _nothing_understood(numbers),
        (0.22, 0.09, 0.56, 0.11, 0.02),
    ),
    Rule(
        "correct or understanding: the NLU was very unsure",
        lambda numbers, _: _below(numbers, "certainty of the NLU", 0.5),
        (0.57, 0.03, 0.13, 0.23, 0.04),
    ),
    Rule(
        "understanding: nothing was understood",
        lambda numbers, _: _nothing_understood(numbers),
        (0.34, 0.1, 0.26, 0.27, 0.03),
    ),
    Rule("correct: nothing speaks against it", lambda _numbers, _outcome: True, (0.9, 0.0, 0.05, 0.03, 0.02)),
)

CHANCES: Final[Floats] = np.array([rule.chances for rule in RULES])
"""The chances of the rules, (rules, POINTS)."""


ERROR: Final = 0.04
"""Half the width of intervals of shares by rules: the largest error of a share in the turns of one of DSTC2's four
systems, with the chances of the other three, is 0.033. It does not get smaller with more turns."""


def first_to_hold(numbers: Numbers, outcome: str | None) -> int:
    """Return the index of the first rule that holds of a turn."""
    return next(place for place, rule in enumerate(RULES) if rule.holds(numbers, outcome))


def shares(held: Floats, turns: float) -> dict[str, Estimate]:
    """Return the share of each of POINTS in a set of turns, as far as rules tell.

    Args:
        held: the number of turns of which each rule was the first to hold, (rules,).
        turns: the number of turns, above 0.
    """
    values = (held @ CHANCES / turns).tolist()
    bounds = ((value, max(value - ERROR, 0.0), min(value + ERROR, 1.0)) for value in values)
    return {point: Estimate(*(round(one, 4) for one in some)) for point, some in zip(POINTS, bounds, strict=True)}
