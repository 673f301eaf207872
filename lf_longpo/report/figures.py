"""Plots as inline SVG. Text stays text; lines and text have the page's text colour, in light and dark mode."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable with any colour vision, on white and on black.
BLUE, ORANGE = "#3b82c4", "#d9822b"
_BINS = 20
# A smaller range of values counts as one value.
_LEAST_RANGE = 1e-9
# Width and height in inches. Text of 10 points stays as large as the page's on a screen of 420 pixels.
_SIZE = (4.6, 2.9)
# Left, bottom, width and height of the plot, as shares of the figure; matplotlib's automatic layouts draw it twice.
_WITHIN = (0.15, 0.17, 0.83, 0.71)
_INK = "#010203"  # replaced by the page's text colour


class Plot(NamedTuple):
    """A figure and how to read it."""

    svg: str
    caption: str


def histogram(
    values: Mapping[str, Sequence[float] | np.ndarray],
    label: str,
    counted: str,
    span: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
) -> str:
    """A histogram.

    Args:
        values: one or two series by name; two are drawn over each other.
        label: label of the values, with their unit.
        counted: label of the counts.
        span: the lowest and highest possible value. Default: the range of the values.
        mark: a value and a name: draws a vertical line at the value.
    """
    figure, axes = _axes(label, counted)
    finite = {name: array[np.isfinite(array)] for name, array in ((n, np.asarray(s)) for n, s in values.items())}
    shown = np.concatenate([*finite.values(), [mark[0]] if mark else []])
    if span is None and len(shown) and np.ptp(shown) < _LEAST_RANGE:  # bins would have no width
        span = (float(shown.min()) - 0.5, float(shown.max()) + 0.5)
    edges = np.histogram_bin_edges(shown, _BINS, span)
    for (name, series), colour in zip(finite.items(), (BLUE, ORANGE), strict=False):
        counts, _ = np.histogram(series, edges)  # matplotlib would make a list of all values
        axes.hist(edges[:-1].tolist(), edges.tolist(), weights=counts.tolist(), color=colour, alpha=0.65, label=name)
    if mark:
        axes.axvline(mark[0], color=_INK, linestyle="--", linewidth=1, label=mark[1])
    if len(values) > 1 or mark:
        _legend(axes)
    return _svg(figure)


def line(means: Sequence[float], errors: Sequence[float], label: str, value: str) -> str:
    """A line through means with an error band.

    Args:
        means: one per step; the first step is 1.
        errors: half the height of the band, per step.
        label: label of the steps.
        value: label of the means, with their unit.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(label, value)
    steps, centre, spread = np.arange(1, len(means) + 1), np.array(means), np.array(errors)
    axes.fill_between(steps, centre - spread, centre + spread, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(steps, centre, color=BLUE, marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    # Matplotlib's default locator, but without ticks between the steps.
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    return _svg(figure)


def curves(values: Mapping[str, Sequence[tuple[float, float]]], label: str, value: str) -> str:
    """One or two lines.

    Args:
        values: the points of each line, by its name.
        label: label of the first coordinate.
        value: label of the second coordinate.
    """
    figure, axes = _axes(label, value)
    for (name, points), colour in zip(values.items(), (BLUE, ORANGE), strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, label=name, marker="o" if len(points) < _BINS else "", ms=3)
    if len(values) > 1:
        _legend(axes)
    return _svg(figure)


def bars(
    heights: Sequence[float], names: Sequence[str], label: str, value: str, chance: Sequence[float], by_chance: str
) -> str:
    """A bar chart with a line across each bar at the height that chance gives.

    Args:
        heights: of the bars.
        names: of the bars.
        label: label of the names.
        value: label of the heights.
        chance: height of the line across each bar.
        by_chance: the legend's text for these lines.
    """
    figure, axes = _axes(label, value)
    positions = np.arange(len(heights))
    axes.bar(positions, heights, color=BLUE, alpha=0.8)
    axes.set_xticks(positions, names)
    axes.hlines(chance, positions - 0.45, positions + 0.45, color=_INK, linewidth=1.5, label=by_chance)
    _legend(axes)
    return _svg(figure)


def _axes(label: str, value: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(_SIZE)
    axes = figure.add_axes(_WITHIN)
    axes.set_xlabel(label, color=_INK)
    axes.set_ylabel(value, color=_INK)
    axes.tick_params(colors=_INK)
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    return figure, axes


def _legend(axes: "Axes") -> None:
    axes.legend(frameon=False, labelcolor=_INK, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0)


def _svg(figure: "Figure") -> str:
    import matplotlib

    file = StringIO()
    # The salt makes the ids in the SVG reproducible, and so the page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lf-longpo"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r' id="[a-z0-9.]+_\d+"', "", text)  # names of groups, which would be equal in all figures of a page
    return text.replace(_INK, "currentColor")
