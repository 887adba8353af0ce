"""Cosines of pairs and accuracy by cosine, as one PNG (``vlm-harness agreement --plot``)."""

import io
from collections.abc import Callable, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlm_harness.agreement import Report
from vlm_harness.atomic import write_bytes

COLOURS = "#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bc4c00", "#57606a"
INK, GREY, GRID = "#1f2328", "#656d76", "#d8dee4"
WIDTH, LEFT, RIGHT, PANEL, BARS = 1400, 110, 50, 340, 40  # in pixels, and bars of the histogram
Span = tuple[float, float]


def write(reports: Sequence[Report], path: Path) -> None:
    """Draw the cosines of each report and, below them, accuracy by bin; a PNG file.

    With Pillow alone, as the contact sheet: two panels need no plotting library.
    """
    parts = [_figure(report) for report in reports if report["n_pairs"]]
    page = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), "white")
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _figure(report: Report) -> Any:
    rows, threshold = report["rows"], report["threshold"]
    cosines = np.array([each["cosine"] for each in report["pairs"]])
    low, high = (float(pick([*cosines, threshold])) for pick in (min, max))
    margin = max(0.03 * (high - low), 0.001)
    x_span = low - margin, high + margin
    legend = 34 * len(rows)
    top, middle = 90, 90 + PANEL + 90
    image = Image.new("RGB", (WIDTH, middle + PANEL + 90 + legend + 30), "white")
    pen = ImageDraw.Draw(image)

    def text(
        x: float, y: float, words: str, size: int = 22, fill: str = INK, anchor: str = "la"
    ) -> None:
        pen.text((x, y), words, fill, ImageFont.load_default(size), anchor)

    def across(value: float) -> float:
        share: float = (value - x_span[0]) / (x_span[1] - x_span[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def panel(y: int, span: Span, title: str, percent: bool = False) -> Callable[[float], float]:
        def up(value: float) -> float:
            return y + PANEL * (1 - (value - span[0]) / (span[1] - span[0]))

        text(LEFT, y - 14, title, 20, GREY, "ls")
        for tick in _ticks(span, whole=not percent):
            pen.line([(LEFT, up(tick)), (WIDTH - RIGHT, up(tick))], GRID, 1)
            label = f"{100 * tick:.0f}%" if percent else f"{tick:.0f}"
            text(LEFT - 12, up(tick), label, 20, GREY, "rm")
        for tick in _ticks(x_span):
            pen.line([(across(tick), y + PANEL), (across(tick), y + PANEL + 8)], INK, 2)
            text(across(tick), y + PANEL + 14, f"{tick:.4g}", 20, GREY, "ma")
        return up

    def dashed(at: Span, to: Span, fill: str) -> None:
        steps = max(1, int(np.hypot(to[0] - at[0], to[1] - at[1]) // 16))
        points = np.linspace(at, to, 2 * steps)
        for one, other in zip(points[::2], points[1::2], strict=True):
            pen.line([tuple(one), tuple(other)], fill, 2)

    text(
        LEFT,
        14,
        f"{report['task']}: {report['n_pairs']} pairs, as {report['encoder']} sees them",
        28,
    )
    # Bars end at the threshold: none holds pairs of both its sides.
    width = (x_span[1] - x_span[0]) / BARS
    edges = threshold + width * np.arange(
        np.floor((x_span[0] - threshold) / width), np.ceil((x_span[1] - threshold) / width) + 1
    )
    counts, _ = np.histogram(cosines, edges)
    up = panel(top, (0, 1.2 * counts.max()), "number of pairs by cosine of their two images")
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        if count:
            pen.rectangle((across(start) + 1, up(count), across(end) - 1, up(0)), "#8c959f")
    up = panel(middle, (0, 1.04), "pair accuracy by cosine, 95% intervals", percent=True)
    chances = {each["pair_accuracy"]["chance"] for row in rows for each in row["bins"]} - {None}
    for chance in [chances.pop()] if len(chances) == 1 else []:
        dashed((LEFT, up(chance)), (WIDTH - RIGHT, up(chance)), GREY)
        text(LEFT + 6, up(chance) - 4, "chance", 18, GREY, "ls")
    for y in (top, middle):
        pen.line([(LEFT, y), (LEFT, y + PANEL), (WIDTH - RIGHT, y + PANEL)], INK, 2)
        dashed((across(threshold), y), (across(threshold), y + PANEL), INK)
    words = f"{100 * report['share_above']['value']:.0f}% above {threshold:g}"
    near_edge = across(threshold) > WIDTH - RIGHT - 200
    text(
        across(threshold) + (-8 if near_edge else 8),
        top + 4,
        words,
        20,
        INK,
        "ra" if near_edge else "la",
    )
    for number, row in enumerate(rows):
        colour = COLOURS[number % len(COLOURS)]
        aside = 7 * (number - (len(rows) - 1) / 2)  # intervals of several models beside each other
        points = []
        for bounds, each in zip(report["bins"], row["bins"], strict=True):
            found = each["pair_accuracy"]
            if found["value"] is None:
                continue
            x = across(bounds["median"]) + aside
            points.append((x, up(found["value"])))
            if found["ci_low"] is not None:
                pen.line([(x, up(found["ci_low"])), (x, up(found["ci_high"]))], colour, 3)
        if len(points) > 1:
            pen.line(points, colour, 2)
        for x, at in points:
            pen.ellipse((x - 6, at - 6, x + 6, at + 6), colour)
        below = middle + PANEL + 70 + 34 * number
        pen.rectangle((LEFT, below + 3, LEFT + 22, below + 19), colour)
        rho = row["spearman"]
        text(
            LEFT + 34,
            below,
            row["label"][:80]
            + (f": Spearman {rho['rho']:.2f} (p = {rho['p']:.2g}, n = {rho['n']})" if rho else ""),
        )
    return image


def _ticks(span: Span, whole: bool = False) -> list[float]:
    """About five round numbers within a span."""
    raw = (span[1] - span[0]) / 7
    power = 10.0 ** float(np.floor(np.log10(raw)))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= raw * 0.99)
    step = max(1.0, step) if whole else step
    return [k * step for k in range(ceil(span[0] / step), floor(span[1] / step + 1e-9) + 1)]
