"""``vlm-harness compare --html``: two sides on one page, with the samples that flipped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_harness.analysis.compare import Comparison
from vlm_harness.analysis.differences import Row
from vlm_harness.analysis.flips import Flips
from vlm_harness.analysis.sides import CHOOSABLE
from vlm_harness.metrics.display import short, signed, signed_interval, unit, units_note
from vlm_harness.report.gallery import Answers
from vlm_harness.report.page import Options, Written, facts, write_page
from vlm_harness.types import SETTINGS, Cell, Setting

Names = dict[tuple[Cell, Cell], str]
"""The name of each compared pair of cells on the page."""


def write(found: Comparison, path: Path, options: Options) -> Written:
    """Write a comparison as a page.

    Raises:
        InputError: the page cannot be written, or would exceed ``options.max_size``.
    """
    names = _names(found.flips)
    answers = [
        Answers(side.run, cell, names[flips.a, flips.b], f"{side.name}: {cell.model}", lines)
        for flips, pairs in zip(found.flips, found.pairs, strict=True)
        for side, cell, lines in (
            (found.a, flips.a, [x for x, _ in pairs]),
            (found.b, flips.b, [y for _, y in pairs]),
        )
    ]
    runs = {side.path: side.run for side in (found.a, found.b)}
    differences = _differences(found.rows, names)
    a, b = found.flips[0].a.model, found.flips[0].b.model
    sections = {"differences": "Differences", "flips": "Flips", "samples": "Samples"}
    return write_page(
        "comparison.html.j2",
        path,
        answers,
        options,
        charts={"differences": {"kind": "differences", "data": differences}} if differences else {},
        comparison=True,
        title=f"{a} vs. {b}" if a != b else f"{a}: two configurations",
        lead=" · ".join(
            f"{side.name}: {_configuration([getattr(f, side.name.lower()) for f in found.flips])}, "
            f"run {side.run.name}"
            for side in (found.a, found.b)
        ),
        notes=list(found.notes),
        sections={**sections, "runs": "Run details"}.items(),
        rows=[
            {"task": names[row.a, row.b], "clustered": row.n_clusters < row.n, "found": row}
            for row in found.rows
        ],
        flips=[_flip_counts(names[each.a, each.b], each) for each in found.flips],
        units=units_note(dict.fromkeys(row.metric for row in found.rows)),
        runs=[facts(run) for run in runs.values()],
    )


def _names(flips: Sequence[Flips]) -> Names:
    """Task names; with protocols if a task was compared under several."""
    tasks = [each.a.task for each in flips]
    return {
        (each.a, each.b): " / ".join(
            dict.fromkeys((each.a.task, each.a.protocol, each.b.protocol))
            if tasks.count(each.a.task) > 1
            else (each.a.task,)
        )
        for each in flips
    }


def _configuration(cells: Sequence[Cell]) -> str:
    """The model, and the settings that are the same in all cells and not the default."""
    same = {name: {cell.grid[name] for cell in cells} for name in CHOOSABLE}
    parts = []
    for name, values in same.items():
        setting = SETTINGS.get(name, Setting(""))
        usual = setting.usual if name == "image_mode" else setting.absent
        parts += [
            f"{setting.words}{value}" for value in values if len(values) == 1 and value != usual
        ]
    return ", ".join(parts)


def _differences(rows: Sequence[Row], names: Names) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        if unit(row.metric) == "share":
            ends = signed_interval(row.metric, row.ci_low, row.ci_high)
            found.append(
                {
                    "facet": names[row.a, row.b],
                    "label": short(row.metric),
                    "value": row.difference,
                    "low": row.ci_low,
                    "high": row.ci_high,
                    "text": signed(row.metric, row.difference) + (f" ({ends})" if ends else ""),
                }
            )
    return found


def _flip_counts(name: str, flips: Flips) -> dict[str, Any]:
    units = flips.counts()
    # The last unit is the largest: one card of the sample browser.
    return {"task": name, "units": units, "card_unit": list(units)[-1]}
