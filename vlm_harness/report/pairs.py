"""Choose a few pairs of a run, with their images, questions and answers, for a contact sheet.

The log has everything except the pixels and the question. Both come from the task, which is
reloaded from the manifest. Labels are those of the log, so neither label corrections nor spec files
are needed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vlm_harness import images
from vlm_harness.errors import InputError, SampleError
from vlm_harness.logs.run import Run, check_paired
from vlm_harness.specs.schemas import TaskSpec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.types import Cell, ImageRef, LogLine, Manifest, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 800  # pixels; limits the memory that large photographs take
LONG = 60  # characters; in a longer text the decisive part may be cut off
Mark = Literal["correct", "incorrect", "missing"]


class Answer(NamedTuple):
    mark: Mark
    text: str


class Absent(NamedTuple):
    """An image that cannot be shown, and why."""

    reason: str
    path: str


@dataclass(frozen=True)
class TileSample:
    """One sample of a pair: its question, images and answers."""

    question: str
    images: Sequence["Image | Absent"]
    """Empty if no image was shown."""
    target: str
    """The correct option."""
    answers: Sequence[Answer]
    """One per row of the tile."""


@dataclass(frozen=True)
class Tile:
    """One pair."""

    task: str
    pair: str
    cosines: Mapping[str, float]
    """Pair cosine similarity by dual encoder."""
    rows: Sequence[str]
    """Who answered: the model, with its protocol if it has answers under several."""
    samples: Sequence[TileSample]


@dataclass(frozen=True)
class Sheet:
    run_id: str
    tiles: Sequence[Tile]
    n_pairs: int
    """Completely answered pairs of the run."""
    notes: Sequence[str]


Pair = Mapping[str, Mapping[Cell, LogLine]]
"""The lines of a pair, by sample and cell."""


class _Log(NamedTuple):
    """The answers to a task that a sheet can show."""

    spec: TaskSpec
    rows: Sequence[Cell]
    pairs: Mapping[str, Pair]


def collect(
    folder: Path, tasks: Sequence[str] = (), pairs: int = 6, data_dir: str | None = None
) -> Sheet:
    """Choose pairs of a run and collect what a sheet shows of them.

    Raises:
        InputError: not a run folder, a task that the run does not have, no complete pair, or
            missing data.
    """
    run = Run(folder)
    check_paired(folder, tasks, dict.fromkeys(cell.task for cell in run.paired))
    shown = [cell for cell in run.paired if not tasks or cell.task in tasks]
    logs = {
        name: _read(run, [cell for cell in shown if cell.task == name])
        for name in dict.fromkeys(cell.task for cell in shown)
    }
    chosen = _choose(logs, pairs, prefer_few_options=not tasks)
    if not chosen:
        raise InputError(
            "no pair is completely answered yet",
            where=folder,
            hint="Rerun the original command to resume it.",
        )
    root = run.data_root(data_dir)
    tiles = [tile for name, keys in chosen.items() for tile in _tiles(logs[name], run, keys, root)]
    n_pairs = sum(len(log.pairs) for log in logs.values())
    notes = _notes(run.manifest, [cell for cell in shown if cell.task in chosen])
    if len(tiles) < n_pairs and not all(
        _agree(p) for log in logs.values() for p in log.pairs.values()
    ):
        notes.append("Pairs on which the models differ come first.")
    return Sheet(run.name, tiles, n_pairs, notes)


def _read(run: Run, cells: Sequence[Cell]) -> _Log:
    """The answers of the first cell of each model and protocol, in the first option order."""
    task = run.spec(cells[0].task)
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.model, cell.protocol), cell)
    rows = list(first.values())
    pairs: dict[str, dict[str, dict[Cell, LogLine]]] = {}
    for line in run.lines(rows):
        pair = line.pair
        if pair is not None and line.order_index == 0:
            by_row = pairs.setdefault(pair, {}).setdefault(line.sample_id, {})
            by_row[line.cell] = line
    size = task.grouping.pair.size
    return _Log(task, rows, {key: pair for key, pair in pairs.items() if len(pair) == size})


# --- which pairs ----------------------------------------------------------------------------------


def _choose(logs: Mapping[str, _Log], count: int, prefer_few_options: bool) -> dict[str, list[str]]:
    """Choose pairs on which the models differ first, alternating between tasks."""
    ranked = []
    for name, log in logs.items():
        n_options = _n_options(log) if prefer_few_options else 0
        # By length, then name: "10" comes after "9", whatever the order of the log.
        agreed = sorted((_agree(pair), len(key), key) for key, pair in log.pairs.items())
        for turn, (agree, _, key) in enumerate(agreed):
            ranked.append(((n_options, agree, turn), name, key))
    chosen: dict[str, list[str]] = {}
    for _, name, key in sorted(ranked, key=itemgetter(0))[:count]:
        chosen.setdefault(name, []).append(key)
    return chosen


def _agree(pair: Pair) -> bool:
    """Whether, on each sample of a pair, all models are correct or all are incorrect."""
    return all(len({line.correct for line in by.values()}) == 1 for by in pair.values())


def _n_options(log: _Log) -> int:
    lines = (line for pair in log.pairs.values() for by in pair.values() for line in by.values())
    return max((len(line.options) for line in lines), default=0)


# --- what was shown and answered ------------------------------------------------------------------


def _tiles(log: _Log, run: Run, chosen: Iterable[str], root: Path) -> Iterator[Tile]:
    spec = log.spec
    task = run.load_task(spec.task, root)
    samples = {sample.id: sample for sample in task.samples}
    refs = {ref.path: ref for sample in task.samples for ref in sample.images}
    position = {name: index for index, name in enumerate(samples)}
    cells = [each for each in run.manifest.identity.cells if each.cell.task == spec.task]
    # Of the first cell that has one: captions are scored without a question.
    question = next((each.question for each in cells if each.question), spec.prompt.question)
    n_protocols = Counter(row.model for row in log.rows)
    for key in chosen:
        # Lines are logged in a cache-friendly order; show samples in the order of the task.
        pair = sorted(log.pairs[key].items(), key=lambda m: position.get(m[0], len(position)))
        yield Tile(
            task=spec.task,
            pair=key,
            cosines={
                row.model: line.pair_cosine
                for _, lines in pair
                for row, line in lines.items()
                if line.pair_cosine is not None
            },
            rows=[
                row.model if n_protocols[row.model] == 1 else f"{row.model} / {row.protocol}"
                for row in log.rows
            ],
            samples=[
                _tile_sample(question, samples.get(name), lines, log.rows, refs)
                for name, lines in pair
            ],
        )


def _tile_sample(
    question: str,
    sample: Sample | None,
    lines: Mapping[Cell, LogLine],
    rows: Iterable[Cell],
    refs: Mapping[str, ImageRef],
) -> TileSample:
    some = next(iter(lines.values()))
    logged = [line.images or [] for line in lines.values()]
    # Some backends read no images and log no checksums; another model's line may have them.
    shown = max(logged, key=lambda entry: sum(image.sha256 is not None for image in entry))
    return TileSample(
        question=_question(question, sample, some),
        # As logged: with --images swapped, these are the images of the other sample.
        images=[_image(image.path, image.sha256, refs.get(image.path)) for image in shown],
        target=some.options[some.target],
        answers=[answer(lines.get(row)) for row in rows],
    )


def _question(template: str, sample: Sample | None, line: LogLine) -> str:
    options = [line.options[index] for index in line.order]
    with suppress(TemplateError):  # the data may have changed since
        if sample is not None and template:
            return str(compile_template(template)({**sample.fields, "options": options}))
    return line.prompt or " / ".join(options)


def _image(path: str, sha256: str | None, ref: ImageRef | None) -> "Image | Absent":
    if ref is None or not ref.exists():
        return Absent("Image not found", path)
    try:
        image = images.load(ref)
    except SampleError:
        return Absent("The image cannot be read", path)
    if sha256 not in (None, image.sha256):
        return Absent("The image file has changed since the run (checksum mismatch)", path)
    image.pixels.thumbnail((LARGEST, LARGEST))
    return image.pixels


def answer(line: LogLine | None) -> Answer:
    """The answer of a line, as text."""
    if line is None:
        return Answer("missing", "not answered yet")
    mark: Mark = "correct" if line.correct is True else "incorrect"
    text, prediction = line.response.text, line.prediction
    if line.status == "error":
        return Answer(mark, f"error: {line.error}")
    if line.status == "unparsed":
        return Answer(mark, f'unparsed: "{text or ""}"')
    if line.tied or prediction is None:
        return Answer(mark, "tied")
    option = line.options[prediction]
    if text is None:
        return Answer(mark, option)
    return Answer(mark, text if len(text) <= LONG else f'{option}: "{text}"')


def _notes(manifest: Manifest, cells: Sequence[Cell]) -> list[str]:
    """What readers need to know to interpret the sheet."""
    mode, labels = cells[0].image_mode, cells[0].labels
    several = len({(cell.model, cell.task, cell.protocol) for cell in cells}) < len(cells)
    orders = any(cell.order_mode in ("both", "cyclic") for cell in cells)
    notes = [
        (
            mode == "swapped",
            "Images swapped: the correct answer is that of the pair's other image.",
        ),
        (mode == "none", "No images were shown."),
        (labels == "original", "Original labels, as published."),
        (several or orders, "Only the first command and the first option order of each model."),
        (manifest.finished is None, "The run is not finished."),
    ]
    return [text for holds, text in notes if holds]
