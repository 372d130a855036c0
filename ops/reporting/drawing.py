"""Drawing of figures as SVG to be inlined in HTML, for wide and narrow screens, for light and dark mode.

A token's color becomes the CSS variable of that name, so that one drawing serves light and dark mode.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from io import StringIO
from typing import Final, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_NAMES: Final = (
    *("ink", "muted", "grid", "surface", "on-bar", "learned", "uniform", "best", "right", "wrong"),
    *("lexical", "semantic", "memory", "popular", "new"),
)
TOKENS: Final = {name: f"#0101{number:02x}" for number, name in enumerate(_NAMES)}
"""The color that stands for each CSS variable while drawing."""

_SHAPES: Final = {"wide": 8.6, "narrow": 4.2}
"""Widths in inches, for letters of 10 points."""

_Shown = TypeVar("_Shown")


def draw(drawings: Iterable[Callable[[_Shown, float], Figure]], shown: _Shown) -> dict[str, dict[str, str]]:
    """Return the figures as SVG: function name -> shape (`wide` or `narrow`) -> SVG.

    A function takes `shown` and a width in inches; its docstring becomes the figure's label.
    """
    with _style():
        return {
            drawing.__name__: {
                shape: _svg(drawing(shown, width), f"{drawing.__name__}-{shape}", str(drawing.__doc__))
                for shape, width in _SHAPES.items()
            }
            for drawing in drawings
        }


def panels(width: float, count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Make `count` panels of `height` inches: side by side if `width` (inches) allows it, else one below the other."""
    beside = count if width > 6 else 1
    figure = Figure(figsize=(width, height * count / beside), layout="constrained")
    panels = figure.subplots(count // beside, beside, squeeze=False)
    return figure, panels.ravel().tolist()


def _style() -> AbstractContextManager[None]:
    return rc_context(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": TOKENS["grid"],
            "axes.labelcolor": TOKENS["muted"],
            "axes.spines.left": False,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": TOKENS["ink"],
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "font.size": 10,
            "grid.color": TOKENS["grid"],
            "grid.linewidth": 0.7,
            "lines.solid_capstyle": "round",
            "svg.fonttype": "none",
            "text.color": TOKENS["ink"],
            "xtick.bottom": False,
            "xtick.color": TOKENS["muted"],
            "ytick.color": TOKENS["muted"],
            "ytick.left": False,
        }
    )


def _svg(figure: Figure, name: str, label: str) -> str:
    """Return `figure` as an SVG element that fits its container, with its tokens as CSS variables."""
    drawn = StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(
            drawn, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # ids are not unique across figures
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", text)
    for token, color in TOKENS.items():
        text = text.replace(color, f"var(--{token})")
    return re.sub(r'width="[^"]*" height="[^"]*"', "", text, count=1).replace(
        "<svg", f'<svg role="img" aria-label="{label}"', 1
    )
