"""``vlm-harness report``: runs as one HTML page that opens from disk."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from vlm_harness.errors import InputError, listing, printable, suggest
from vlm_harness.files import to_json
from vlm_harness.logs.labels import caveats, labels, run_names, shown_metrics, varying
from vlm_harness.logs.results import read_results, summarise
from vlm_harness.logs.run import RecordedRun
from vlm_harness.metrics.display import SHORT
from vlm_harness.report import parts
from vlm_harness.report.gallery import Cell
from vlm_harness.report.page import Data, Options, Written, facts, write_page
from vlm_harness.types import Variant

SECTIONS = {
    "scores": "Scores",
    "breakdown": "Categories",
    "calibration": "Calibration",
    "agreement": "Agreement",
    "samples": "Samples",
    "runs": "How it was run",
}


def write(folders: Sequence[Path], path: Path, options: Options) -> Written:
    """Write the report of some runs.

    Raises:
        InputError: no run folder, a task that is in none, a log that cannot be read, a file that
            cannot be written or would be larger than it may.
    """
    runs = [RecordedRun(f) for f in {folder.resolve(): folder for folder in folders}.values()]
    cells = _cells(runs, options.tasks)
    rows = _results(cells)
    fields = varying(rows)
    if "command" not in fields and any(map(_commanded, cells)):
        fields = ["command", *fields]
    fields += [name for name in ("labels", "run") if len({row[name] for row in rows}) > 1]
    breakdowns, calibrations = list(parts.breakdowns(cells, rows)), list(parts.calibrations(cells))
    agreements, notes = parts.agreements(cells, options)
    models = dict.fromkeys(cell.variant.model for cell in cells)
    tasks = dict.fromkeys(cell.task for cell in cells)
    found = {"breakdown": breakdowns, "calibration": calibrations, "agreement": agreements}
    return write_page(
        "report.html.j2",
        path,
        cells,
        options,
        charts=parts.charts(rows, breakdowns, calibrations, agreements),
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        lead=f"{listing(models, 8)} on {listing(tasks, 8)}",
        notes=[*_notes(runs, cells), *notes],
        sections=[(name, text) for name, text in SECTIONS.items() if found.get(name, True)],
        rows=rows,
        metrics=shown_metrics(rows),
        fields=fields,
        caveats=_caveats(cells, rows),
        labels=listing({row["labels"] for row in rows}),
        short=SHORT,
        breakdowns=breakdowns,
        calibrations=calibrations,
        agreements=agreements,
        threshold=f"{options.threshold:g}",
        runs=[facts(run) for run in runs],
    )


# --- what is read ---------------------------------------------------------------------------------


def _cells(runs: Sequence[RecordedRun], asked: Sequence[str]) -> list[Cell]:
    """What the runs answered; tasks of one name that are not the same are told apart by theirs."""
    known = dict.fromkeys(variant.task for run in runs for variant in run.variants)
    for name in asked:
        if name not in known:
            raise InputError(
                f"no run has the task {name!r}{suggest(name, known)}",
                where="--task",
                hint=f"There are: {listing(known)}",
            )
    names_of = run_names(runs)
    names: dict[tuple[str, str], str] = {}
    cells = []
    for run in runs:
        wanted = [each for each in run.variants if not asked or each.task in asked]
        lines = run.lines_by_variant(wanted)
        for variant in wanted:
            task = run.task(variant.task)
            what = to_json([variant.task, task["spec"]["version"], task["data"]], sort_keys=True)
            taken = {name for (one, _), name in names.items() if one == variant.task}
            new = f"{variant.task} [{names_of[run.folder]}]" if taken else variant.task
            name = names.setdefault((variant.task, what), new)
            cells.append(Cell(run, variant, name, "", lines[variant]))
    cells = [cell for cell in cells if cell.lines]
    if not cells:
        raise InputError(
            "nothing is answered yet",
            where=listing(str(run.folder) for run in runs),
            hint="The command that began a run goes on with it.",
        )
    named = labels([(names_of[cell.run.folder], cell.variant) for cell in cells])
    return [cell._replace(label=label) for cell, label in zip(cells, named, strict=True)]


def _results(cells: Sequence[Cell]) -> list[Data]:
    """The row of each cell, from ``results.json``; of an unfinished run, from its log."""
    recorded: dict[Path, dict[Variant, Data]] = {}
    names = run_names(list({cell.run.folder: cell.run for cell in cells}.values()))
    found = []
    for cell in cells:
        folder = cell.run.folder
        if folder not in recorded:
            done = cell.run.manifest.get("finished") is not None
            rows = read_results(cell.run) if done else []
            recorded[folder] = {Variant.of(row): row for row in rows}
        row = recorded[folder].get(cell.variant) or _summarised(cell)
        link = urlencode({"task": printable(cell.task)})
        found.append(
            {**row, "name": cell.task, "label": cell.label, "run": names[folder], "link": link}
        )
    return found


def _summarised(cell: Cell) -> Data:
    manifest = cell.run.manifest
    expected = manifest["expected"][cell.run.variants.index(cell.variant)]
    identity = manifest["identity"]
    return summarise(
        cell.run.spec(cell.variant.task),
        cell.variant,
        cell.lines,
        expected,
        limit=identity["limit"],
        seed=identity["seed"],
    )


def _notes(runs: Sequence[RecordedRun], cells: Sequence[Cell]) -> list[str]:
    """What must be known to read the page rightly."""
    notes = []
    for run in runs:
        identity = run.manifest["identity"]
        if run.manifest.get("finished") is None:
            notes.append(f"{run.name} is not finished: scores are of what is answered so far.")
        if identity["limit"] is not None:
            notes.append(f"{run.name} was limited to {identity['limit']} samples a task.")
        if identity.get("samples"):
            notes.append(f"{run.name} was of {len(identity['samples'])} chosen samples alone.")
    modes = {cell.variant.image_mode for cell in cells}
    if "swapped" in modes:
        notes.append("Under images swapped, right is what holds for the pair's other image.")
    if "none" in modes:
        notes.append("Under images none, no image was shown.")
    if "original" in {cell.variant.labels for cell in cells}:
        notes.append("Under labels original, right is what was published, errors included.")
    return notes


def _commanded(cell: Cell) -> bool:
    """Whether a cell was asked by another command than the first of its task."""
    return cell.variant.command in list(cell.run.spec(cell.variant.task).prompt.commands)[1:]


def _caveats(cells: Sequence[Cell], rows: Sequence[Data]) -> list[str]:
    return [
        f"{cell.label} on {cell.task}: {', '.join(found)}"
        for cell, row in zip(cells, rows, strict=True)
        if (found := caveats(row))
    ]
