"""Values from clicked items: what the log cannot tell."""

import numpy as np

from backchannel.agents.ope.estimators import Terms
from backchannel.agents.ope.union import Clicked, Lookup, diagnose, faults


def test_a_propensity_next_to_0_is_a_reason_not_to_rely_on_the_log() -> None:
    lookups = [Lookup(1.0, (Clicked({"a": 1}, 1e-320, 1.0),), 1.0) for _ in range(200)]
    terms = Terms(np.full(200, np.inf), 0.0, np.inf)
    assert any("effective" in fault for fault in faults(diagnose(terms, lookups), lookups, 100.0))
