"""What a recogniser may have heard: its hypotheses (n-best list)."""

from collections.abc import Iterable
from math import exp

from backchannel.schemas.events import Hypothesis
from backchannel.schemas.text import normalize


def heard(hypotheses: Iterable[Hypothesis]) -> dict[str, float]:
    """Return what may have been heard: normalised text -> its likelihood over that of the likeliest, 0 to 1.

    >>> heard([Hypothesis("Play jazz", -1.0), Hypothesis("play jazz!", -2.0), Hypothesis("play chess", -1.0)])
    {'play jazz': 1.0, 'play chess': 1.0}
    """
    known = [(normalize(one.text), one.score) for one in hypotheses]
    best = max((score for _, score in known), default=0.0)
    found: dict[str, float] = {}
    for text, score in known:
        if text:
            found[text] = max(found.get(text, 0.0), exp(score - best))
    return found
