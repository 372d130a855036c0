"""What a bandit has learned, made up."""

from typing import Any

import msgspec
import numpy as np
import orjson

from backchannel.agents.bandit.features import Categorical, Encoder, Numeric
from backchannel.agents.bandit.ranks import BUCKETS, WIDTH
from backchannel.agents.bandit.section import Limits
from backchannel.schemas.snapshot import Section

ENCODER = Encoder([Numeric("hour", center=12, scale=4), Categorical("device", ("car", "phone"))])
CAR: dict[str, Any] = {"hour": 13.0, "device": "car"}


def section(
    count: int,
    seed: int = 0,
    floor: float = 0.1,
    exploration: float = 0.6,
    policy: str = "thompson",
    limits: dict[int, Limits] | None = None,
) -> Section:
    """A bandit's section with some posterior for each of `count` strategies."""
    rng = np.random.default_rng(seed)
    names = [f"strategy{number}" for number in range(count)]
    rows: dict[str, Any] = {
        name: {
            "count": 10.0,
            "reward": 0.5,
            "clicks": rng.random(BUCKETS).tolist(),
            "rates": (0.3 * 0.8 ** np.arange(BUCKETS) * rng.random(BUCKETS)).tolist(),
            "prior": rng.random(BUCKETS).tolist(),
            "theta": rng.normal(0.1, 0.3, ENCODER.dimension).tolist(),
            "whitener": np.tril(rng.normal(0, 0.5, (ENCODER.dimension, ENCODER.dimension))).tolist(),
            "hazards": rng.uniform(0, 0.3, (count, BUCKETS, BUCKETS)).tolist(),
            "shown": rng.uniform(0, 0.3, (count, BUCKETS, BUCKETS)).tolist(),
            "available": WIDTH.tolist(),
            "gram": np.diag([1.0, 1.0, 0.5, 0.5]).tolist(),
            "cover": [1.0] * BUCKETS,
            "segments": [],
        }
        for name in names
    }
    rows[""] = {
        "features": msgspec.to_builtins(ENCODER.features),
        "encoding": ENCODER.fingerprint,
        "strategies": names,
        "policy": policy,
        "exploration": exploration,
        "floor": floor,
        "elasticities": rng.normal(0, 0.2, count).tolist(),
        "elasticities_whitener": np.triu(rng.normal(0, 0.1, (count, count))).tolist(),
        "limits": [msgspec.to_builtins((limits or {}).get(number, Limits())) for number in range(count)],
    }
    return {key: orjson.dumps(row) for key, row in rows.items()}
