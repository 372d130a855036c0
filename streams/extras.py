"""The extras of the distribution that contain optional packages, and the command that installs one."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

_EXTRAS: Final = {
    "aiohttp": "kafka",
    "alembic": "learn",
    "aiokafka": "kafka",
    "confluent_kafka": "registry",
    "cramjam": "kafka",
    "fastavro": "registry",
    "faust": "kafka",
    "granian": "serve",
    "jellyfish": "learn",
    "jinja2": "demo",
    "jmespath": "learn",
    "kafka": "kafka",
    "lightgbm": "challenger",
    "litestar": "serve",
    "matplotlib": "demo",
    "prometheus_client": "kafka",
    "psycopg": "postgres",
    "pyarrow": "parquet",
    "rapidfuzz": "learn",
    "river": "learn",
    "onnxruntime": "dense",
    "scipy": "learn",
    "tantivy": "search",
    "tokenizers": "dense",
    "usearch": "dense",
    "uvicorn": "serve",
    "zstandard": "learn",
}
"""The extra that contains each package, by the name under which the package is imported."""


def remedy(error: ModuleNotFoundError) -> str | None:
    """Return the command that installs the missing package; None if no extra contains it."""
    extra = _EXTRAS.get(error.name or "")
    return install(extra) if extra else None


def install(extra: str) -> str:
    """Return the command that installs an extra from where Backchannel was installed from: a folder, or an index."""
    try:
        origin = json.loads(distribution("backchannel").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    url = urlsplit(origin.get("url", ""))
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    source = url2pathname(url.path) if url.scheme == "file" else "backchannel"
    return f"pip install {editable}'{source}[{extra}]'"
