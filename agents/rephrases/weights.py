"""The numbers of the rephrase detector. `backchannel rephrases train --write` wrote them: do not edit.

Measured on held-out callers (dstc2), sessions (trec) and sentences (slurp); one half or more counts as a rephrase:

| held out of | pairs | rephrases | precision | recall | false alarms | area under ROC | Brier | calibration error |
|---|---|---|---|---|---|---|---|---|
| dstc2 | 3,221 | 376 | 0.692 | 0.394 | 0.023 | 0.857 | 0.070 | 0.024 |
| trec | 66 | 0 | - | - | 0.015 | - | 0.014 | 0.031 |
| slurp | 10,053 | 2,146 | 0.940 | 0.862 | 0.015 | 0.981 | 0.032 | 0.011 |

`ops.lab.rephrases.pairs` describes how pairs are labelled.
"""

from typing import Final

WEIGHTS: Final = {
    "constant": -9.8329,
    "gap": 6.817,
    "gap squared": -1.7212,
    "same text": -10.9976,
    "same text, length": 2.9019,
    "characters": -6.3911,
    "characters squared": 14.0301,
    "characters, gap": -1.2122,
    "characters, answered": -2.0272,
    "words": 2.465,
    "sounds": 2.0484,
    "longer": -0.5874,
    "length": -0.1826,
    "interpreted": 0.6251,
    "next interpreted": 1.6561,
    "both": -3.2622,
    "both, characters": 3.7645,
    "both, characters squared": -6.8876,
    "meaning": 2.5328,
    "corrects": 0.5618,
    "barged in": 0.5504,
    "answered": 0.6851,
    "chosen": -0.0729,
}
"""Weights by name of the feature in `detector.features`."""
