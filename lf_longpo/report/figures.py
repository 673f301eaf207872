"""Plots as inline SVG: text stays text, and lines and letters take the page's colour, in light and dark."""

import re
from collections.abc import Sequence
from io import StringIO
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by people of any colour vision, on white and on black.
BLUE, ORANGE = "#3b82c4", "#d9822b"
_BINS = 20
_NOTHING = 1e-9
_SIZE = (6.4, 3.0)
# Left, bottom, width and height of the plot, as shares of the figure: matplotlib's own layouts draw everything twice.
_WITHIN = (0.115, 0.165, 0.87, 0.74)
_INK = "#010203"  # becomes the page's own colour


class Plot(NamedTuple):
    """A figure and how to read it."""

    svg: str
    caption: str


def histogram(
    values: dict[str, Sequence[float]],
    label: str,
    counted: str,
    span: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
) -> str:
    """How often which values occur.

    Args:
        values: by what they belong to; one or two, drawn over each other.
        label: of the values, with their unit.
        counted: what is counted.
        span: lowest and highest possible value; default: what is there.
        mark: a value to draw a line at, and its name.
    """
    figure, axes = _axes(label, counted)
    values = {name: [value for value in its if isfinite(value)] for name, its in values.items()}
    shown = [*(value for its in values.values() for value in its), *([mark[0]] if mark else [])]
    if span is None and shown and max(shown) - min(shown) < _NOTHING:  # bins would have no width
        span = (min(shown) - 0.5, max(shown) + 0.5)
    edges = np.histogram_bin_edges(shown, _BINS, span)
    for (name, its), colour in zip(values.items(), (BLUE, ORANGE), strict=False):
        axes.hist(its, edges, color=colour, alpha=0.65, label=name)
    if mark:
        axes.axvline(mark[0], color=_INK, linestyle="--", linewidth=1, label=mark[1])
    if len(values) > 1 or mark:
        _legend(axes)
    return _svg(figure)


def line(means: Sequence[float], errors: Sequence[float], label: str, value: str) -> str:
    """A mean at each step, from 1 on, within its errors."""
    figure, axes = _axes(label, value)
    steps, centre, spread = np.arange(1, len(means) + 1), np.array(means), np.array(errors)
    axes.fill_between(steps, centre - spread, centre + spread, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(steps, centre, color=BLUE, marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure)


def bars(
    heights: Sequence[float], names: Sequence[str], label: str, value: str, chance: Sequence[float], by_chance: str
) -> str:
    """A bar for each name, and across it the height that chance would give it."""
    figure, axes = _axes(label, value)
    places = np.arange(len(heights))
    axes.bar(places, heights, color=BLUE, alpha=0.8)
    axes.set_xticks(places, names)
    axes.hlines(chance, places - 0.45, places + 0.45, color=_INK, linewidth=1.5, label=by_chance)
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
    # The salt makes the ids within it, and so the page, the same every time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lf-longpo"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace(_INK, "currentColor")
