"""The figures of the report."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backchannel.ops.lab.search.findings import Findings, Method
from backchannel.ops.reporting import drawing
from backchannel.ops.reporting.drawing import TOKENS, panels
from backchannel.schemas.snapshot import Estimate


def draw(findings: Findings) -> dict[str, dict[str, str]]:
    """Return the figures as SVG: figure name -> shape (`wide` or `narrow`) -> SVG."""
    return drawing.draw((learning, methods), findings)


def learning(findings: Findings, width: float) -> Figure:
    """Recall on held-out queries as the policy learns, beside best fixed allocation, even split and oracle."""
    figure, (axes,) = panels(width, 1, 3.2)
    for name, color in (("best per query", "best"), ("best fixed", "uniform"), ("even split", "muted")):
        value = _recall(findings, findings.method(name)).value
        axes.axhline(value, color=TOKENS[color], linewidth=1.5, linestyle=(0, (4, 2)))
        axes.annotate(
            f"{name} {value:.3f}",
            (0, value),
            (2, 3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=TOKENS[color],
        )
    turns = [point.turns for point in findings.points]
    values = [point.recall.value for point in findings.points]
    axes.fill_between(
        turns,
        [point.recall.low for point in findings.points],
        [point.recall.high for point in findings.points],
        color=TOKENS["learned"],
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(turns, values, color=TOKENS["learned"], linewidth=2.4, marker="o")
    axes.annotate(
        f"learned {values[-1]:.3f}",
        (turns[-1], values[-1]),
        (0, -14),
        textcoords="offset points",
        color=TOKENS["learned"],
        ha="right",
    )
    axes.set_xscale("log")
    axes.set_xticks(turns, [f"{turn:,}" for turn in turns])
    axes.minorticks_off()
    axes.set_xlabel("turns learned from")
    axes.grid(axis="y")
    return figure


def methods(findings: Findings, width: float) -> Figure:
    """Recall of every method on held-out queries, with its interval."""
    shown = sorted(findings.methods, key=lambda method: _recall(findings, method).value)
    figure, (axes,) = panels(width, 1, 0.5 + 0.27 * len(shown))
    for row, method in enumerate(shown):
        estimate = _recall(findings, method)
        color = {"learned": "learned", "best fixed": "uniform", "best per query": "best"}.get(method.name, "muted")
        axes.plot([estimate.low, estimate.high], [row, row], color=TOKENS[color], linewidth=2)
        axes.scatter(estimate.value, row, s=60, color=TOKENS[color], zorder=2, linewidth=0)
    _names(axes, [method.name for method in shown])
    return figure


def _names(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(left=0)
    axes.grid(axis="x")


def _recall(findings: Findings, method: Method) -> Estimate:
    return method.distinct if findings.settings["distinct"] else method.drawn
