"""Whether there is a sentence encoder to use: it needs an extra and a model, and everything else works without."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backchannel.ops.lab.search.generators.encoder import SentenceEncoder


def find_encoder(say: Callable[[str], None]) -> "SentenceEncoder | None":
    """Return the default encoder; None if there is none, after saying what is missing."""
    try:
        from backchannel.ops.lab.search.generators.encoder import EncoderMissingError, default_encoder  # noqa: PLC0415
    except ModuleNotFoundError as error:
        say(f"no dense strategy: it needs {error.name}: pip install 'backchannel[dense]'")
        return None
    try:
        return default_encoder()
    except EncoderMissingError as error:
        say(f"no dense strategy: {error}")
        return None
