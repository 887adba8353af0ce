"""Plot pair cosine similarity and accuracy by it (``vlm-harness agreement --plot``)."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_harness.analysis.agreement import Report
from vlm_harness.errors import InputError, listing
from vlm_harness.files import write_bytes

COLOURS = "#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bc4c00", "#57606a"
STYLE = {
    "font.size": 11,
    "font.family": "sans-serif",
    "text.parse_math": False,  # model and task names are not formulas
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": "#656d76",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
}
FORMATS = ("png", "svg", "pdf")
BARS = 40


def check(path: Path) -> None:
    """Check that a plot can be written to ``path``, before anything is computed.

    Raises:
        InputError: unknown format, missing folder, or matplotlib is not installed.
    """
    if path.suffix[1:].lower() not in FORMATS:
        raise InputError(
            f"expected a file name with a known extension ({listing(FORMATS)}), got {path}",
            where="--plot",
        )
    if not path.parent.is_dir():
        raise InputError(f"folder not found: '{path.parent}'", where="--plot")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "plotting needs matplotlib, which is not installed",
            where="--plot",
            hint='Install it with: pip install "vlm-harness[plot]"',
        )


def write(reports: Sequence[Report], path: Path) -> None:
    """Plot the pair cosines of each report and, below them, accuracy by cosine bin."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which would look for a display

    shown = [report for report in reports if report["n_pairs"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 6.8 * len(shown)), layout="constrained")
        parts = figure.subfigures(len(shown), 1, squeeze=False)
        for part, report in zip(parts.flat, shown, strict=True):
            _draw(part, report)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=150)
    write_bytes(path, buffer.getvalue())


def _draw(figure: Any, report: Report) -> None:
    threshold, rows = report["threshold"], report["rows"]
    figure.suptitle(
        f"{report['task']}: {report['n_pairs']} pairs, embedded by {report['encoder']}",
        x=0.01,
        ha="left",
        fontsize=14,
    )
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.set_title("number of pairs by pair cosine similarity")
    cosines = np.array([each["cosine"] for each in report["pairs"]])
    upper.margins(y=0.15)
    upper.hist(cosines, _edges(cosines, threshold), color="#8c959f", rwidth=0.95)
    upper.yaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        axes.axvline(threshold, color="#1f2328", linestyle="--", linewidth=1)
        axes.tick_params(labelbottom=True)
    share = f" {100 * report['share_above']['value']:.0f}% above {threshold:g} "
    right_half = threshold > sum(upper.get_xlim()) / 2
    upper.annotate(
        share,
        (threshold, 1),
        xycoords=("data", "axes fraction"),
        ha="right" if right_half else "left",
        va="top",
    )

    lower.set_title("pair accuracy by pair cosine similarity, with 95% intervals")
    lower.set_ylim(0, 1.04)
    lower.yaxis.set_major_formatter("{x:.0%}")
    chances = {each["pair_accuracy"]["chance"] for row in rows for each in row["bins"]} - {None}
    if len(chances) == 1:
        lower.axhline(chances.pop(), color="#656d76", linestyle=":", label="chance")
    left, right = lower.get_xlim()
    for number, row in enumerate(rows):
        # Shift each model a little, so that intervals do not cover each other.
        offset = 0.006 * (right - left) * (number - (len(rows) - 1) / 2)
        points = [
            (bounds["median"] + offset, found["value"], found["ci_low"], found["ci_high"])
            for bounds, each in zip(report["bins"], row["bins"], strict=True)
            if (found := each["pair_accuracy"])["value"] is not None
        ]
        x, y, low, high = np.array(points, dtype=float).reshape(-1, 4).T
        lower.errorbar(
            x,
            y,
            [np.nan_to_num(y - low), np.nan_to_num(high - y)],
            fmt="o-",
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.2,
            clip_on=False,
            label=_label(row),
        )
    lower.legend(loc="upper left", bbox_to_anchor=(0, -0.12), frameon=False)


def _edges(cosines: np.ndarray, threshold: float) -> np.ndarray:
    """Bin edges; the threshold is one of them, so that no bar has pairs from both sides of it."""
    low, high = min(cosines.min(), threshold), max(cosines.max(), threshold)
    width = max((high - low) / BARS, 1e-4)
    first, last = np.floor((low - threshold) / width), np.ceil((high - threshold) / width)
    return np.asarray(threshold + width * np.arange(first, last + 2))


def _label(row: Any) -> str:
    rho = row["spearman"]
    correlation = f": Spearman {rho['rho']:.2f} (p = {rho['p']:.2g}, n = {rho['n']})" if rho else ""
    return f"{row['label'][:80]}{correlation}"
