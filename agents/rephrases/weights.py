"""The numbers of the rephrase detector. `backchannel rephrases train --write` wrote them: do not edit.

Measured on held-out callers (dstc2), sessions (trec) and sentences (slurp); one half or more counts as a rephrase:

| held out of | pairs | rephrases | precision | recall | false alarms | area under ROC | Brier | calibration error |
|---|---|---|---|---|---|---|---|---|
| dstc2 | 3,221 | 376 | 0.692 | 0.394 | 0.023 | 0.857 | 0.070 | 0.024 |
| trec | 66 | 0 | - | - | 0.015 | - | 0.014 | 0.031 |
| slurp | 10,053 | 2,146 | 0.940 | 0.867 | 0.015 | 0.981 | 0.031 | 0.011 |

`ops.lab.rephrases.pairs` describes how pairs are labelled.
"""

from typing import Final

WEIGHTS: Final = {
    "constant": -9.7619,
    "gap": 6.8209,
    "gap squared": -1.7234,
    "same text": -11.02,
    "same text, length": 2.9115,
    "characters": -6.4514,
    "characters squared": 14.1283,
    "characters, gap": -1.2037,
    "characters, answered": -2.0012,
    "words": 2.52,
    "sounds": 1.9159,
    "longer": -0.5885,
    "length": -0.2006,
    "interpreted": 0.6282,
    "next interpreted": 1.6498,
    "both": -3.2688,
    "both, characters": 3.8391,
    "both, characters squared": -6.9551,
    "meaning": 2.5305,
    "corrects": 0.5512,
    "barged in": 0.5578,
    "answered": 0.6682,
    "chosen": -0.0633,
}
"""Weights by name of the feature in `detector.features`."""
