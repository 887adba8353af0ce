"""A few pairs of a run: which ones, what was shown, what was answered. From the log and the data.

Everything but the pixels and the question is in the log. Both come from the task, loaded again as
the manifest has it; labels are those of the log, so no overlay is needed and no spec file.
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

LARGEST = 800  # pixels; photographs of many megapixels would otherwise fill the memory
LONG = 60  # characters; of a longer text the part that was decisive may be cut off
Mark = Literal["right", "wrong", "missing"]


class Answer(NamedTuple):
    mark: Mark
    text: str


class Absent(NamedTuple):
    """An image that cannot be shown, and why."""

    reason: str
    path: str


@dataclass(frozen=True)
class Asked:
    """One sample of a pair, as it was asked."""

    question: str
    images: Sequence["Image | Absent"]
    """Empty where none was shown."""
    gold: str
    answers: Sequence[Answer]
    """One for each row of the tile."""


@dataclass(frozen=True)
class Tile:
    """One pair."""

    task: str
    pair: str
    cosines: Mapping[str, float]
    """Of the two image embeddings, by dual encoder."""
    rows: Sequence[str]
    """Who answered: the model, and the protocol where it was asked under several."""
    samples: Sequence[Asked]


@dataclass(frozen=True)
class Sheet:
    run_id: str
    tiles: Sequence[Tile]
    n_pairs: int
    """Of the run, as far as they are answered."""
    notes: Sequence[str]


Pair = Mapping[str, Mapping[Cell, LogLine]]
"""The lines of a pair, by sample and row."""


class _Log(NamedTuple):
    """What was answered to a task, as far as it can be shown."""

    spec: TaskSpec
    rows: Sequence[Cell]
    pairs: Mapping[str, Pair]


def collect(
    folder: Path, tasks: Sequence[str] = (), pairs: int = 6, data_dir: str | None = None
) -> Sheet:
    """Choose pairs of a run and gather all that is to be drawn of them.

    Raises:
        InputError: no run folder, a task that is not in it, no pair, or data that are not there.
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
            "no pair is answered yet, of both its images",
            where=folder,
            hint="The command that began the run goes on with it.",
        )
    root = run.data_root(data_dir)
    tiles = [tile for name, keys in chosen.items() for tile in _tiles(logs[name], run, keys, root)]
    n_pairs = sum(len(log.pairs) for log in logs.values())
    notes = _notes(run.manifest, [cell for cell in shown if cell.task in chosen])
    if len(tiles) < n_pairs and not all(
        _agree(p) for log in logs.values() for p in log.pairs.values()
    ):
        notes.append("Pairs that tell the models apart come first.")
    return Sheet(run.name, tiles, n_pairs, notes)


def _read(run: Run, cells: Sequence[Cell]) -> _Log:
    """What the first cell of each model and protocol answered in the first order of the options."""
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
    """Pairs by task: first those that tell the models apart, by turns from all tasks."""
    ranked = []
    for name, log in logs.items():
        n_options = _n_options(log) if prefer_few_options else 0
        # By length and name: "10" after "9", whatever order the run was in.
        agreed = sorted((_agree(pair), len(key), key) for key, pair in log.pairs.items())
        for turn, (agree, _, key) in enumerate(agreed):
            ranked.append(((n_options, agree, turn), name, key))
    chosen: dict[str, list[str]] = {}
    for _, name, key in sorted(ranked, key=itemgetter(0))[:count]:
        chosen.setdefault(name, []).append(key)
    return chosen


def _agree(pair: Pair) -> bool:
    """Whether each image of a pair was got right by all who were asked, or by none."""
    return all(len({line.correct for line in by.values()}) == 1 for by in pair.values())


def _n_options(log: _Log) -> int:
    lines = (line for pair in log.pairs.values() for by in pair.values() for line in by.values())
    return max((len(line.options) for line in lines), default=0)


# --- what was shown and answered ------------------------------------------------------------------


def _tiles(log: _Log, run: Run, chosen: Iterable[str], root: Path) -> Iterator[Tile]:
    spec = log.spec
    task = run.read_again(spec.task, root)
    samples = {sample.id: sample for sample in task.samples}
    refs = {ref.path: ref for sample in task.samples for ref in sample.images}
    position = {name: index for index, name in enumerate(samples)}
    cells = [each for each in run.manifest.identity.cells if each.cell.task == spec.task]
    # That of the first cell which has one: captions are scored without.
    question = next((each.question for each in cells if each.question), spec.prompt.question)
    n_protocols = Counter(row.model for row in log.rows)
    for key in chosen:
        # A run logs its lines in an order that is good for caches; the task's is that of the pair.
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
                _asked(question, samples.get(name), lines, log.rows, refs) for name, lines in pair
            ],
        )


def _asked(
    question: str,
    sample: Sample | None,
    lines: Mapping[Cell, LogLine],
    rows: Iterable[Cell],
    refs: Mapping[str, ImageRef],
) -> Asked:
    some = next(iter(lines.values()))
    logged = [line.images or [] for line in lines.values()]
    # Some backends read no image, and log no checksum; another model's line may have it.
    shown = max(logged, key=lambda entry: sum(image.sha256 is not None for image in entry))
    return Asked(
        question=_question(question, sample, some),
        # Those that the log names: under --images swapped they are the other sample's.
        images=[_image(image.path, image.sha256, refs.get(image.path)) for image in shown],
        gold=some.options[some.target],
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
        return Absent("The image is not there", path)
    try:
        picture = images.load(ref)
    except SampleError:
        return Absent("The image cannot be read", path)
    if sha256 not in (None, picture.sha256):
        return Absent("The file is not the one that was shown: its checksum differs", path)
    picture.pixels.thumbnail((LARGEST, LARGEST))
    return picture.pixels


def answer(line: LogLine | None) -> Answer:
    """What a line says was answered, in words."""
    if line is None:
        return Answer("missing", "not answered yet")
    mark: Mark = "right" if line.correct is True else "wrong"
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
    """What must be known to read the sheet rightly."""
    mode, labels = cells[0].image_mode, cells[0].labels
    several = len({(cell.model, cell.task, cell.protocol) for cell in cells}) < len(cells)
    orders = any(cell.order_mode in ("both", "cyclic") for cell in cells)
    notes = [
        (mode == "swapped", "Images swapped: right is what holds for the pair's other image."),
        (mode == "none", "Asked without images."),
        (labels == "original", "Labels as published."),
        (several or orders, "Of each model the first command and first order of the options."),
        (manifest.finished is None, "The run is not finished."),
    ]
    return [text for holds, text in notes if holds]
