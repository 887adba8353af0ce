"""``vlm-harness report``: runs as one HTML page that opens from disk."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from vlm_harness import agreement
from vlm_harness.atomic import to_json, write_bytes
from vlm_harness.calibration import calibration
from vlm_harness.errors import InputError, listing, printable, suggest
from vlm_harness.metrics.accuracy import individual_accuracy
from vlm_harness.recorded import RecordedRun, labels
from vlm_harness.report import html, thumbnails
from vlm_harness.report.gallery import Cell, collect
from vlm_harness.report.thumbnails import NO_ROOM, Thumbnails
from vlm_harness.results import read_results, record, summarise
from vlm_harness.runlog import Line, variant_of
from vlm_harness.stats import estimate
from vlm_harness.types import Variant
from vlm_harness.wording import (
    SHORT,
    caveats,
    common_prefix,
    interval,
    is_cosine,
    number,
    varying,
    words,
)

Data = dict[str, Any]
Measure = Callable[[Any], list[agreement.Similarity]]
MB = 1_000_000
FEW = 12
"""Right answers that are told apart; more, as captions have, are no kinds of questions."""
SECTIONS = {
    "scores": "Scores",
    "breakdown": "Categories",
    "calibration": "Calibration",
    "agreement": "Agreement",
    "samples": "Samples",
    "runs": "How it was run",
}
MOST = 60
"""Categories that are shown."""


@dataclass(frozen=True)
class Options:
    """
    Attributes:
        max_size: of the page in MB; images are made smaller, and in the end left out, to fit.
        image_size: longer side of an image in pixels, at most; 0 for a page without images.
        measure: where cosines of pairs come from, as for ``agreement.analyse``.
        progress: told of the images that are made small.
    """

    tasks: Sequence[str] = ()
    data_dir: str | None = None
    max_size: float = 50
    image_size: int = 320
    threshold: float = 0.95
    measure: Measure = agreement.from_log
    progress: thumbnails.Progress = lambda done, total: None


@dataclass(frozen=True)
class Written:
    """A page on disk."""

    path: Path
    n_bytes: int
    n_samples: int
    n_images: int
    image_size: int
    notes: Sequence[str]

    def __str__(self) -> str:
        images = f"{self.n_images:,} images of at most {self.image_size} px"
        return (
            f"{self.path} ({self.n_bytes / MB:.1f} MB: {self.n_samples:,} samples, "
            f"{images if self.n_images else 'no images'})"
        )


def write(folders: Sequence[Path], path: Path, options: Options) -> Written:
    """Write the report of some runs.

    Raises:
        InputError: no run folder, a task that is in none, a log that cannot be read, a file that
            cannot be written or would be larger than it may.
    """
    runs = [RecordedRun(f) for f in {folder.resolve(): folder for folder in folders}.values()]
    cells = _cells(runs, options.tasks)
    rows = _results(cells)
    fields = varying(rows) + [
        name for name in ("labels", "run") if len({row[name] for row in rows}) > 1
    ]
    breakdowns, calibrations = list(_breakdowns(cells, rows)), list(_calibrations(cells))
    agreements, notes = _agreements(cells, options)
    models = dict.fromkeys(cell.variant.model for cell in cells)
    tasks = dict.fromkeys(cell.task for cell in cells)
    parts = {"breakdown": breakdowns, "calibration": calibrations, "agreement": agreements}
    return write_page(
        "report.html.j2",
        path,
        cells,
        options,
        charts=_charts(rows, breakdowns, calibrations, agreements),
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        lead=f"{listing(models, 8)} on {listing(tasks, 8)}",
        notes=[*_notes(runs, cells), *notes],
        sections=[(name, text) for name, text in SECTIONS.items() if parts.get(name, True)],
        rows=rows,
        metrics=_columns(rows),
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


def _charts(
    rows: Sequence[Data],
    breakdowns: Sequence[Data],
    calibrations: Sequence[Data],
    agreements: Sequence[agreement.Report],
) -> dict[str, Data]:
    """What ``charts.js`` draws, by the name of its place on the page."""
    return {
        "scores": {"kind": "dots", "name": "Scores", "data": _dots(rows)},
        **{
            f"breakdown-{index}": {
                "kind": "dots",
                "name": f"{part['task']}: {part['title']}",
                "data": part["chart"],
            }
            for index, part in enumerate(breakdowns)
        },
        "calibration": {"kind": "reliability", "data": _bins(calibrations)},
        **{
            f"agreement-{index}": {"kind": "agreement", "data": _cosines(each)}
            for index, each in enumerate(agreements)
        },
    }


def write_page(
    template: str,
    path: Path,
    cells: Sequence[Cell],
    options: Options,
    *,
    charts: Data,
    comparison: bool = False,
    **context: Any,
) -> Written:
    """A page with the samples of some cells, in at most ``options.max_size`` MB.

    Raises:
        InputError: it would be larger even without images, or cannot be written.
    """
    most = int(options.max_size * MB)
    gallery = collect(cells, options.data_dir)

    def page(images: Thumbnails) -> bytes:
        data = {
            "comparison": comparison,
            "chunk": thumbnails.CHUNK,
            "charts": charts,
            "tasks": gallery.tasks,
            "images": images.entries,
        }
        said = f"{images.n} images of at most {images.size} px." if images.n else "No images."
        return html.render(
            template,
            (*html.SCRIPTS, "gallery.js", "report.js"),
            data,
            images.chunks,
            styles=["gallery.css"],
            gallery_notes=gallery.notes,
            images_said=said,
            **context,
        ).encode()

    unseen = Thumbnails(0, [], [{"path": image.path, "note": NO_ROOM} for image in gallery.shown])
    content = page(unseen)
    room = most - len(content) - 20_000
    if room < 0:
        raise InputError(
            f"the page takes {len(content) / MB:.1f} MB without any image, and may take "
            f"{options.max_size:g} MB",
            where="--max-size",
            hint="Allow more, or choose fewer tasks with --task.",
        )
    images = unseen
    if options.image_size:
        images = thumbnails.make(
            gallery.shown, gallery.refs, room, options.image_size, options.progress
        )
        content = page(images)
    write_bytes(path, content)
    notes = [*context["notes"], *gallery.notes]
    return Written(path, len(content), gallery.n_samples, images.n, images.size, notes)


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
    names_of = _names(runs)
    names: dict[tuple[str, str], str] = {}
    cells = []
    for run in runs:
        wanted = [each for each in run.variants if not asked or each.task in asked]
        lines: dict[Variant, list[Line]] = {variant: [] for variant in wanted}
        for line in run.lines(wanted):
            lines[variant_of(line)].append(line)
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


def _names(runs: Sequence[RecordedRun]) -> dict[Path, str]:
    """What runs are called: by their folders where several have one name."""
    names = Counter(run.name for run in runs)
    return {r.folder: r.name if names[r.name] == 1 else str(r.folder) for r in runs}


def _results(cells: Sequence[Cell]) -> list[Data]:
    """The row of each cell, from ``results.json``; of an unfinished run, from its log."""
    recorded: dict[Path, dict[Variant, Data]] = {}
    names = _names(list({cell.run.folder: cell.run for cell in cells}.values()))
    found = []
    for cell in cells:
        folder = cell.run.folder
        if folder not in recorded:
            done = cell.run.manifest.get("finished") is not None
            rows = read_results(cell.run) if done else []
            recorded[folder] = {Variant(*(row[n] for n in Variant._fields)): row for row in rows}
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


def _caveats(cells: Sequence[Cell], rows: Sequence[Data]) -> list[str]:
    return [
        f"{cell.label} on {cell.task}: {', '.join(found)}"
        for cell, row in zip(cells, rows, strict=True)
        if (found := caveats(row))
    ]


def facts(run: RecordedRun) -> Data:
    """What the manifest says of a run, in words."""
    manifest = run.manifest
    environment = manifest.get("environment") or {}
    cores = environment.get("cpu_count")
    hardware = environment.get("gpus") or [f"{cores} CPU cores" if cores else None]
    found = {
        "finished": manifest.get("finished") or "not yet",
        "vlm-harness": _joined(
            " ", manifest.get("vlm_harness"), "commit", environment.get("git_commit")
        ),
        "hardware": _joined(", ", *hardware, environment.get("platform")),
        "seed": manifest["identity"]["seed"],
        "identity": manifest["identity_sha256"],
        "libraries": ", ".join(
            f"{name} {version}" for name, version in environment.get("packages", {}).items()
        ),
    }
    for name, model in manifest.get("models", {}).items():
        size = model.get("parameters")
        found[name] = _joined(
            ", ",
            model.get("checkpoint"),
            model.get("revision"),
            model.get("dtype"),
            model.get("device"),
            f"{size / 1e6:,.1f} million parameters" if size else None,
        )
    return {
        "name": run.name,
        "command_line": manifest.get("command_line", ""),
        "facts": {name: value for name, value in found.items() if value not in ("", None)},
    }


def _joined(separator: str, *parts: object) -> str:
    return separator.join(str(part) for part in parts if part)


# --- scores ---------------------------------------------------------------------------------------


def _columns(rows: Sequence[Data]) -> list[str]:
    """Those that have a value somewhere; official formulas where they differ from the plain."""
    names = dict.fromkeys(
        name for row in rows for name, found in row["metrics"].items() if found["value"] is not None
    )
    incomplete = any(row["n_incomplete"] for row in rows)
    return [name for name in names if incomplete or "official" not in name]


def _dot(facet: str, label: str, name: str, metric: Mapping[str, Any]) -> Data:
    ends = interval(name, metric["ci_low"], metric["ci_high"], "–")
    return {
        "facet": _brief(facet),
        "label": _brief(label),
        "value": metric["value"],
        "low": metric["ci_low"],
        "high": metric["ci_high"],
        "chance": metric["chance"],
        "text": number(name, metric["value"]) + (f" ({ends})" if ends else ""),
    }


def _brief(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _dots(rows: Sequence[Data]) -> list[Data]:
    """The score to quote of each task; its name without what those of all tasks begin with."""
    prefix = common_prefix(row["name"] for row in rows)
    return [
        _dot(
            f"{row['name'].removeprefix(prefix)}: {SHORT.get(name, name)}",
            row["label"],
            name,
            row["metrics"][name],
        )
        for row in rows
        for name in [row["primary_metric"]]
        if row["metrics"][name]["value"] is not None and not is_cosine(name)
    ]


# --- parts of it ----------------------------------------------------------------------------------


def _breakdowns(cells: Sequence[Cell], rows: Sequence[Data]) -> Iterator[Data]:
    """Of each task by category, and by what the right answer was."""
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [(cell, row) for cell, row in zip(cells, rows, strict=True) if cell.task == task]
        # Pairs of two categories are in neither: samples are, then.
        for metric in (own[0][1]["primary_metric"], "individual_accuracy"):
            found = [
                {"value": category, "label": cell.label, "n": each["n"], "metric": each}
                for cell, row in own
                for category, metrics in row["categories"].items()
                for each in [metrics.get(metric)]
                if each is not None and each["value"] is not None
            ]
            if found:
                yield _breakdown(task, "category", metric, found)
                break
        found = [{**each, "label": cell.label} for cell, _ in own for each in _by_answer(cell)]
        if found:
            yield _breakdown(task, "right answer", "individual_accuracy", found)


def _breakdown(task: str, by: str, metric: str, rows: Sequence[Data]) -> Data:
    n = Counter[str]()
    for row in rows:
        n[row["value"]] = max(n[row["value"]], row["n"])
    most = {value for value, _ in n.most_common(MOST)}
    rows = [row for row in rows if row["value"] in most]
    caption = f"{words(metric).capitalize()} in percent, with 95% intervals; dashed: chance."
    if len(n) > MOST:
        caption += f" Of {len(n):,} the {MOST} with most samples."
    return {
        "task": task,
        "title": f"by {by}",
        "by": by,
        "metric": metric,
        "rows": rows,
        "said": "said" in rows[0],
        "caption": caption,
        "chart": [
            _dot(str(row["value"]), row["label"], metric, row["metric"])
            for row in rows
            if row["metric"]["value"] is not None
        ],
    }


def _by_answer(cell: Cell) -> list[Data]:
    """Accuracy where each option was right, and how often the model said it, right or not."""
    options = {tuple(sorted(line["options"])) for line in cell.lines}
    if len(options) != 1 or len(min(options)) > FEW:
        return []
    rules = cell.run.spec(cell.variant.task).grouping
    seed = cell.run.manifest["identity"]["seed"]
    said = Counter(
        line["options"][line["prediction"]] for line in cell.lines if line["prediction"] is not None
    )
    found = []
    for option in min(options):
        records = [record(line) for line in cell.lines if line["options"][line["target"]] == option]
        metric = dataclasses.asdict(estimate(individual_accuracy(records, rules), seed=seed))
        share = said[option] / len(cell.lines)
        found.append({"value": option, "n": len(records), "metric": metric, "said": share})
    return found


def _calibrations(cells: Sequence[Cell]) -> Iterator[Data]:
    for cell in cells:
        found = calibration(cell.lines, seed=cell.run.manifest["identity"]["seed"])
        if found is not None:
            yield {"task": cell.task, "label": cell.label, **dataclasses.asdict(found)}


def _bins(calibrations: Sequence[Data]) -> list[Data]:
    return [
        {
            "facet": _brief(row["task"]),
            "label": _brief(row["label"]),
            "confidence": each["confidence"],
            "accuracy": each["accuracy"],
            "low": each["ci_low"],
            "high": each["ci_high"],
            "n": each["n"],
        }
        for row in calibrations
        for each in row["bins"]
        if each["n"]
    ]


def _agreements(
    cells: Sequence[Cell], options: Options
) -> tuple[list[agreement.Report], list[str]]:
    """Of tasks whose samples come in pairs; where it cannot be made, a note says why."""
    paired = {variant.task for cell in cells for variant in cell.run.paired}
    tasks = dict.fromkeys(cell.variant.task for cell in cells if cell.variant.task in paired)
    found, notes = [], []
    for task in tasks:
        folders = [cell.run.folder for cell in cells if cell.variant.task == task]
        try:
            reports = agreement.analyse(
                list(dict.fromkeys(folders)), options.measure, [task], options.threshold
            )
        except InputError as error:
            # Without a dual encoder there are no cosines: nothing is wrong then.
            if not error.message.startswith("no pair has a cosine") or "left out" in error.message:
                notes.append(f"No analysis of agreement for {task}: {error.message}.")
            continue
        found += [report for report in reports if report["n_pairs"]]
    return found, notes


def _cosines(report: agreement.Report) -> Data:
    bins = [
        {
            "label": _brief(row["label"]),
            "text": number("", found["value"]),
            "cosine": bounds["median"],
            "n": found["n"],
            "value": found["value"],
            "low": found["ci_low"],
            "high": found["ci_high"],
        }
        for row in report["rows"]
        for bounds, each in zip(report["bins"], row["bins"], strict=True)
        for found in [each["pair_accuracy"]]
        if found["value"] is not None
    ]
    chances = {
        each["pair_accuracy"]["chance"] for row in report["rows"] for each in row["bins"]
    } - {None}
    return {
        "threshold": report["threshold"],
        "cosines": [float(f"{each['cosine']:.5f}") for each in report["pairs"]],
        "bins": bins,
        "chance": chances.pop() if len(chances) == 1 else None,
    }
