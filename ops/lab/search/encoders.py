"""The default sentence encoder, if its extra and its model are available; everything else works without it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from backchannel.streams.extras import install

if TYPE_CHECKING:
    from backchannel.ops.lab.search.generators.encoder import SentenceEncoder


def find_encoder(say: Callable[[str], None]) -> "SentenceEncoder | None":
    """Return the default encoder; None, after reporting what is missing, if there is none."""
    try:
        from backchannel.ops.lab.search.generators.encoder import EncoderMissingError, default_encoder  # noqa: PLC0415
    except ModuleNotFoundError as error:
        say(f"no dense strategy: it needs {error.name}: {install('dense')}")
        return None
    try:
        return default_encoder()
    except EncoderMissingError as error:
        say(f"no dense strategy: {error}")
        return None
