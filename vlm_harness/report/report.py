"""``vlm-harness report``: runs on one HTML page that opens from disk."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from vlm_harness.errors import InputError, listing, not_found, printable
from vlm_harness.files import to_json
from vlm_harness.logs.group_row import GroupRow
from vlm_harness.logs.labels import caveats, group_caveats, labels, shown_metrics, varying
from vlm_harness.logs.results import record, summarise
from vlm_harness.logs.run import Run, run_names
from vlm_harness.metrics.display import units_note
from vlm_harness.report import parts
from vlm_harness.report.gallery import Answers
from vlm_harness.report.page import Options, Written, facts, is_verified, write_page
from vlm_harness.types import Cell, ResultRow

SECTIONS = {
    "scores": "Scores",
    "breakdown": "Breakdown",
    "calibration": "Calibration",
    "agreement": "Agreement",
    "samples": "Samples",
    "runs": "Run details",
}


def write(folders: Sequence[Path], path: Path, options: Options) -> Written:
    """Write the report of some runs.

    Raises:
        InputError: a folder is not a run folder, no run has a requested task, a log cannot be
            read, or the page cannot be written or would exceed ``options.max_size``.
    """
    runs = [Run(f) for f in {folder.resolve(): folder for folder in folders}.values()]
    answers = _answers(runs, options.tasks)
    rows = _rows(answers)
    results = [row.result for row in rows]
    fields = varying(results)
    if "command" not in fields and any(map(_uses_other_command, answers)):
        fields = ["command", *fields]
    fields += [name for name in ("labels", "run") if len({row.fields[name] for row in rows}) > 1]
    breakdowns = list(parts.breakdowns(answers, rows))
    calibrations = list(parts.calibrations(answers))
    agreements, notes = parts.agreements(answers, options)
    models = dict.fromkeys(each.cell.model for each in answers)
    tasks = dict.fromkeys(each.task for each in answers)
    found = {"breakdown": breakdowns, "calibration": calibrations, "agreement": agreements}
    metrics = shown_metrics(results)
    groups = _groups(runs, options.tasks)
    return write_page(
        "report.html.j2",
        path,
        answers,
        options,
        charts=parts.charts(rows, breakdowns, calibrations, agreements),
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        lead=f"{listing(models, 8)} on {listing(tasks, 8)}",
        notes=[*_notes(runs, answers), *notes],
        sections=[(name, text) for name, text in SECTIONS.items() if found.get(name, True)],
        rows=rows,
        metrics=metrics,
        units=units_note(metrics),
        fields=fields,
        caveats=_caveats(answers, rows),
        groups=groups,
        group_fields=varying([row for row, _ in groups]),
        group_caveats=[
            f"{row.task} ({row.model}, {row.protocol}): {text}"
            for row, _ in groups
            for text in group_caveats(row)
        ],
        labels=listing({result.labels for result in results}),
        breakdowns=breakdowns,
        calibrations=calibrations,
        agreements=agreements,
        threshold=f"{options.threshold:g}",
        runs=[facts(run) for run in runs],
    )


# --- answers and results --------------------------------------------------------------------------


def _answers(runs: Sequence[Run], asked: Sequence[str]) -> list[Answers]:
    """The answers of the runs; different tasks of the same name also get the name of their run."""
    known = dict.fromkeys(cell.task for run in runs for cell in run.cells)
    for name in asked:
        if name not in known:
            raise not_found(f"no run has the task {name!r}", name, known, where="--task")
    names_of = run_names(runs)
    names: dict[tuple[str, str], str] = {}
    found = []
    for run in runs:
        wanted = [cell for cell in run.cells if not asked or cell.task in asked]
        lines = run.lines_by_cell(wanted)
        for cell in wanted:
            task = run.task(cell.task)
            content = to_json([cell.task, task.spec.version, task.data], sort_keys=True)
            taken = {name for (one, _), name in names.items() if one == cell.task}
            new = f"{cell.task} [{names_of[run.path]}]" if taken else cell.task
            name = names.setdefault((cell.task, content), new)
            found.append(Answers(run, cell, name, "", lines[cell]))
    found = [each for each in found if each.lines]
    if not found:
        raise InputError(
            "no samples are answered yet",
            where=listing(str(run.path) for run in runs),
            hint="Rerun the original command to resume it.",
        )
    named = labels([(names_of[each.run.path], each.cell) for each in found])
    return [each._replace(label=label) for each, label in zip(found, named, strict=True)]


def _rows(answers: Sequence[Answers]) -> list[parts.Row]:
    """The results of each cell: from ``results.json``, or from the log of an unfinished run."""
    recorded: dict[Path, dict[Cell, ResultRow]] = {}
    names = run_names(list({each.run.path: each.run for each in answers}.values()))
    found = []
    for each in answers:
        run = each.run
        if run.path not in recorded:
            rows = run.results if run.finished else ()
            recorded[run.path] = {row.cell: row for row in rows}
        result = recorded[run.path].get(each.cell) or _summarised(each)
        link = urlencode({"task": printable(each.task)})
        verified = is_verified(run, result.model)
        row = parts.Row(result, each.task, each.label, names[run.path], link, verified)
        found.append(row)
    return found


def _groups(runs: Sequence[Run], tasks: Sequence[str]) -> list[tuple[GroupRow, str]]:
    """The scores of groups of finished runs, with the name of their run.

    Args:
        tasks: the tasks that the report is restricted to; empty for all.
    """
    names = run_names(runs)
    return [
        (row, names[run.path])
        for run in runs
        if run.finished
        for row in run.results.groups
        if not tasks or {*row.members} <= {*tasks}
    ]


def _summarised(answers: Answers) -> ResultRow:
    run, task = answers.run, answers.run.spec(answers.cell.task)
    return summarise(
        task,
        answers.cell,
        (record(line, task.positive) for line in answers.lines),
        run.expected[answers.cell],
        limit=run.manifest.identity.limit,
        seed=run.manifest.identity.seed,
    )


def _notes(runs: Sequence[Run], answers: Sequence[Answers]) -> list[str]:
    """What readers need to know to interpret the page."""
    notes = []
    for run in runs:
        identity = run.manifest.identity
        if not run.finished:
            notes.append(f"{run.name} is not finished: scores cover the answers so far.")
        if identity.limit is not None:
            notes.append(f"{run.name} is a partial run (--limit {identity.limit}).")
        if identity.samples:
            n = len(identity.samples)
            notes.append(f"{run.name} covers only {n} selected samples (--samples).")
    modes = {each.cell.image_mode for each in answers}
    if "swapped" in modes:
        notes.append("Images swapped: the correct answer is that of the pair's other image.")
    if "none" in modes:
        notes.append("Images none: no image was shown.")
    if "original" in {each.cell.labels for each in answers}:
        notes.append("Labels original: correct answers are those published, errors included.")
    models = (each for run in runs for each in run.manifest.models.items())
    notes += dict.fromkeys(f"{name}: {note}." for name, model in models for note in model.notes)
    return notes


def _uses_other_command(answers: Answers) -> bool:
    """Whether a cell uses a command other than the first of its task."""
    cell = answers.cell
    return cell.command in list(answers.run.spec(cell.task).prompt.commands)[1:]


def _caveats(answers: Sequence[Answers], rows: Sequence[parts.Row]) -> list[str]:
    return [
        f"{each.label} on {each.task}: {'; '.join(found)}"
        for each, row in zip(answers, rows, strict=True)
        if (found := caveats(row.result))
    ]
