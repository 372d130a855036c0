"""The extras of the distribution that contain optional packages, and the command that installs one."""

from typing import Final

_EXTRAS: Final = {
    "aiohttp": "kafka",
    "alembic": "learn",
    "aiokafka": "kafka",
    "cramjam": "kafka",
    "faust": "kafka",
    "granian": "serve",
    "jellyfish": "learn",
    "jinja2": "demo",
    "kafka": "kafka",
    "litestar": "serve",
    "matplotlib": "demo",
    "prometheus_client": "kafka",
    "pyarrow": "parquet",
    "rapidfuzz": "learn",
    "river": "learn",
    "onnxruntime": "dense",
    "scipy": "learn",
    "tantivy": "search",
    "tokenizers": "dense",
}
"""The extra that contains each package, by the name under which the package is imported."""


def remedy(error: ModuleNotFoundError) -> str | None:
    """Return the command that installs the missing package; None if no extra contains it."""
    extra = _EXTRAS.get(error.name or "")
    return f"pip install 'backchannel[{extra}]'" if extra else None
