"""The numbers of the rephrase detector. `backchannel rephrases train --write` wrote them: do not edit.

Measured on held-out callers (dstc2), sessions (trec) and sentences (slurp; with interpretations, slurp_pipeline);
one half or more counts as a rephrase:

| held out of | pairs | rephrases | precision | recall | false alarms | area under ROC | Brier | calibration error |
|---|---|---|---|---|---|---|---|---|
| dstc2 | 3,221 | 376 | 0.706 | 0.410 | 0.022 | 0.858 | 0.070 | 0.034 |
| trec | 66 | 0 | - | - | 0.015 | - | 0.014 | 0.044 |
| slurp | 10,086 | 2,146 | 0.944 | 0.810 | 0.013 | 0.974 | 0.038 | 0.021 |
| slurp_pipeline | 5,990 | 950 | 0.953 | 0.788 | 0.007 | 0.968 | 0.032 | 0.018 |

`ops.lab.rephrases.pairs` describes how pairs are labelled.
"""

from typing import Final

WEIGHTS: Final = {
    "constant": -6.7698,
    "gap": 3.1336,
    "gap squared": -0.8577,
    "same text": -10.5244,
    "same text, length": 2.8723,
    "characters": -7.1143,
    "characters squared": 12.9017,
    "characters, gap": -0.4983,
    "characters, answered": -2.9291,
    "words": 2.4218,
    "sounds": 2.2712,
    "longer": -0.489,
    "length": 0.0449,
    "interpreted": 0.6876,
    "next interpreted": 1.8011,
    "both": -5.1895,
    "both, characters": -0.1659,
    "both, characters squared": -1.1682,
    "both, gap": 1.2685,
    "meaning": 1.3033,
    "corrects": 0.7039,
    "barged in": 0.5235,
    "answered": 0.7347,
    "chosen": 0.1963,
}
"""Weights by name of the feature in `detector.features`."""
