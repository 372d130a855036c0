"""The figures of the demo's report. A figure's docstring is its label in the page."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from backchannel.ops.lab.demo.findings import SERVERS, Findings
from backchannel.ops.lab.worlds.people import QUERY_KINDS
from backchannel.ops.reporting import drawing
from backchannel.ops.reporting.drawing import TOKENS, panels


def draw(findings: Findings) -> dict[str, dict[str, str]]:
    """Return the figures as SVG: figure name -> shape (`wide` or `narrow`) -> SVG."""
    return drawing.draw((rates, kinds, shares, rewrites, memory), findings)


def rates(findings: Findings, width: float) -> Figure:
    """Click rate and defect rate of the three servers over time."""
    figure, sides = panels(width, 2, 3.2)
    turns = np.asarray(findings.points)
    shown = turns >= 100
    curves = findings.curves
    for axes, title, values in (
        (sides[0], "Click rate", {server: curves[server].click_rate for server in SERVERS}),
        (sides[1], "Defect rate", {server: curves[server].defect_rate for server in SERVERS}),
    ):
        axes.set_title(title)
        for server in ("uniform", "best", "learned"):
            rate = np.asarray(values[server])
            low, high = _wilson(rate, np.minimum(turns, findings.window))
            color = TOKENS[server]
            axes.fill_between(turns[shown], low[shown], high[shown], color=color, alpha=0.15, linewidth=0)
            axes.plot(turns[shown], rate[shown], color=color, linewidth=2.4 if server == "learned" else 1.5)
        _label_ends(axes, {server: (values[server][-1], server) for server in SERVERS}, 0.075)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(_percent)
        _turns_axis(axes, findings)
    return figure


def kinds(findings: Findings, width: float) -> Figure:
    """Click rates of the three servers by kind of query, late in the run."""
    figure, (axes,) = panels(width, 1, 3.0)
    by_kind = {kind: [findings.late[server].click_rate_by_kind[kind] for server in SERVERS] for kind in QUERY_KINDS}
    roomiest = max(QUERY_KINDS, key=lambda kind: np.diff(sorted(by_kind[kind])).min())
    for row, kind in enumerate(reversed(QUERY_KINDS)):
        values = dict(zip(SERVERS, by_kind[kind], strict=True))
        axes.plot([values["uniform"], values["best"]], [row, row], color=TOKENS["grid"], linewidth=4, zorder=1)
        for server, size in (("uniform", 50), ("best", 50), ("learned", 90)):
            axes.scatter(values[server], row, s=size, color=TOKENS[server], zorder=2, linewidth=0)
        _note(axes, _percent(values["learned"]), (values["learned"], row), -17, TOKENS["learned"])
        if kind == roomiest:
            for server, value in values.items():
                _note(axes, server, (value, row), 9, TOKENS[server])
    axes.grid(axis="x")
    axes.set_yticks(range(len(QUERY_KINDS)), reversed(QUERY_KINDS), color=TOKENS["ink"])
    axes.set_ylim(-0.7, len(QUERY_KINDS) - 0.3)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(_percent)
    axes.spines["bottom"].set_visible(False)
    return figure


def shares(findings: Findings, width: float) -> Figure:
    """Share of candidates of each strategy by kind of query, early and late in the run."""
    figure, (axes,) = panels(width, 1, 4.0)
    ticks: dict[float, str] = {}
    for group, kind in enumerate(reversed(QUERY_KINDS)):
        for place, phase in ((2.5 * group, "late"), (2.5 * group + 1, "early")):
            ticks[place] = f"{kind}, {phase}"
            start = 0.0
            for strategy, share in findings.shares[phase][kind].items():
                color = TOKENS[strategy]
                axes.barh(place, share, 0.9, start, color=color, edgecolor=TOKENS["surface"], linewidth=1.2)
                if share >= 0.4 / width:
                    text = f"{100 * share:.0f}"
                    axes.text(start + share / 2, place, text, ha="center", va="center", color=TOKENS["on-bar"])
                start += share
    axes.set_yticks(list(ticks), ticks.values(), color=TOKENS["ink"])
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return figure


def rewrites(findings: Findings, width: float) -> Figure:
    """Numbers of right and wrong rewrites in the policy over time."""
    figure, (axes,) = panels(width, 1, 2.6)
    found = findings.rewrites
    for name, values in (("right", found.right), ("wrong", found.wrong)):
        axes.plot(findings.points, values, color=TOKENS[name], linewidth=2.2)
    ends = {
        "right": (found.right[-1], f"{found.right[-1]} right"),
        "wrong": (found.wrong[-1], f"{found.wrong[-1]} wrong"),
    }
    top = 1.1 * max(*found.right, *found.wrong, 1)
    _label_ends(axes, ends, 0.1 * top)
    axes.set_ylim(0, top)
    _turns_axis(axes, findings)
    return figure


def memory(findings: Findings, width: float) -> Figure:
    """Scores of recalled entities against their true attractiveness."""
    figure, (axes,) = panels(min(width, 5.2), 1, 4.4)
    axes.plot([0, 1], [0, 1], color=TOKENS["muted"], linewidth=1, linestyle=(0, (2, 3)))
    axes.annotate("equal", (0.97, 0.97), (-4, 2), textcoords="offset points", ha="right", color=TOKENS["muted"])
    for remembered in findings.memory:
        size = 6 + 2.5 * np.sqrt(remembered.asked)
        color = TOKENS[{"fresh": "new", "garbled": "best"}.get(remembered.kind, "learned")]
        axes.scatter(remembered.attractiveness, remembered.score, s=size, color=color, alpha=0.6, linewidth=0)
    axes.set_xlabel("true attractiveness")
    axes.set_title("Score in the memory index")
    axes.grid()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    return figure


def _turns_axis(axes: Axes, findings: Findings) -> None:
    axes.grid(axis="y")
    axes.set_xlim(0, findings.points[-1])
    axes.set_xlabel("turns")
    axes.xaxis.set_major_formatter(lambda turns, _: f"{turns:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))


def _percent(share: float, _: object = None) -> str:
    return f"{100 * share:.0f}%"


def _note(axes: Axes, text: str, point: tuple[float, float], above: float, color: str) -> None:
    """Write `text` centered, `above` typographic points above `point`."""
    axes.annotate(text, point, (0, above), textcoords="offset points", ha="center", color=color, weight="bold")


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]], gap: float) -> None:
    """Write each line's label in its color to the right of its end, with labels at least `gap` apart."""
    above = -np.inf
    for name, (value, text) in sorted(ends.items(), key=lambda end: end[1][0]):
        above = max(value, above + gap)
        axes.text(
            1.02, above, text, transform=axes.get_yaxis_transform(), va="center", color=TOKENS[name], weight="bold"
        )


def _wilson(share: NDArray[np.float64], count: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of the 95% score interval (Wilson, 1927) of `share` in `count` trials, both (n,)."""
    z = 1.96
    trials = np.maximum(count, 1)
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return center - half, center + half
