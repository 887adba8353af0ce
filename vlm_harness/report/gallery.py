"""The samples of runs as data for a page: images, prompts and answers, by group.

Samples are grouped by set, else by pair, else each one is its own group. A sample has one line per
answerer (a model in one configuration) and option order. Texts that many lines share (prompts and
captions) are stored once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vlm_harness.errors import InputError
from vlm_harness.logs.run import Run
from vlm_harness.report.thumbnails import Shown
from vlm_harness.types import Cell, ImageRef, LogLine

Data = dict[str, Any]
LONG = 20_000
"""Maximum characters of a text on a page; the log has the complete text."""
VERDICTS = {"unparsed": "u", "error": "e"}


class Answers(NamedTuple):
    """The answers of a run in one cell of its grid."""

    run: Run
    cell: Cell
    task: str
    """Name of the task on the page; equal names mean the same task."""
    label: str
    """What distinguishes these answers from others to the same task."""
    lines: Sequence[LogLine]


@dataclass
class _Interned:
    """Values that are stored once and referred to by number."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    @property
    def values(self) -> list[Any]:
        return list(self.numbers)


@dataclass
class _Task:
    """One task with the answers of all runs to it."""

    answers: list[Answers] = field(default_factory=list)
    _samples: dict[str, Data] = field(default_factory=dict)
    _prompts: _Interned = field(default_factory=_Interned)
    _candidates: _Interned = field(default_factory=_Interned)

    def add(self, answers: Answers, root: str) -> None:
        """Add answers; ``root`` is the folder where the run found its images."""
        self.answers.append(answers)
        for line in answers.lines:
            self._add_line(len(self.answers) - 1, line, root)

    def _add_line(self, number: int, line: LogLine, root: str) -> None:
        """Add a line of answerer ``number``."""
        sample = self._samples.setdefault(
            line.sample_id,
            {
                "id": line.sample_id,
                "pair": line.pair,
                "set": line.set,
                "category": line.category,
                "options": line.options,
                "target": line.target,
                "lines": [],
            },
        )
        if line.pair_cosine is not None:
            sample.setdefault("cosines", {})[number] = round(line.pair_cosine, 4)
        found = self._line_data(number, line, sample["target"])
        found["images"] = [Shown(each.path, each.sha256, root) for each in line.images or ()]
        found["normal"] = line.image_mode == "normal"
        sample["lines"].append(found)

    def _line_data(self, number: int, line: LogLine, target: int) -> Data:
        """One line, with short keys and without defaults, because a page may have many lines."""
        response = line.response
        text = response.text
        found: Data = {"a": number, "v": _verdict(line), "p": line.prediction}
        if line.prompt:
            found["q"] = self._prompts.number(line.prompt[:LONG])
        elif line.candidates:
            found["c"] = self._candidates.number(tuple(line.candidates))
        if text is not None:
            found["t"] = text[:LONG]
            if len(text) > LONG:
                found["x"] = len(text)
        for short, values in (("s", response.scores), ("l", response.sum_logprobs)):
            if values:
                found[short] = [None if v is None else float(f"{v:.5g}") for v in values]
        if line.order != sorted(line.order):
            found["o"] = line.order
        if line.shown != [line.options[index] for index in line.order]:
            # The options with their letters in this order: (a) differs between orders.
            found["w"] = self._candidates.number(tuple(line.shown))
        if line.order_index:
            found["i"] = line.order_index
        for short, note in (("d", line.extraction), ("e", line.error)):
            if note:
                found[short] = note[:LONG]
        if line.target != target:
            found["g"] = line.target
        return found

    def data(self, position: Mapping[str, int], images: _Interned) -> Data:
        """The task as page data, with samples in the order of ``position`` where it is known."""
        samples = sorted(
            self._samples.items(), key=lambda item: position.get(item[0], len(position))
        )
        groups: dict[tuple[str, str], list[int]] = {}
        for number, (_, sample) in enumerate(samples):
            sample["lines"].sort(key=lambda line: (line["a"], line.get("i", 0)))
            _share_images(sample, images)
            kind = next((kind for kind in ("set", "pair") if sample[kind] is not None), "sample")
            key = sample["id" if kind == "sample" else kind]
            groups.setdefault((kind, key), []).append(number)
        categories = dict.fromkeys(sample["category"] for _, sample in samples)
        return {
            "name": self.answers[0].task,
            "answerers": [each.label for each in self.answers],
            "samples": [sample for _, sample in samples],
            "groups": [
                {"kind": kind, "key": key, "members": members}
                for (kind, key), members in groups.items()
            ],
            "categories": sorted(each for each in categories if each is not None),
            "prompts": self._prompts.values,
            "candidates": self._candidates.values,
        }


def _share_images(sample: Data, images: _Interned) -> None:
    """Store the images of a sample once; a line that was shown other images lists them (``m``).

    Checksums come from any line that has them: some backends read no images and log none.
    """
    lines = sample["lines"]
    known = {each.path: each for line in lines for each in line["images"] if each.sha256}
    own = [[known.get(each.path, each) for each in line["images"]] for line in lines]
    usual: list[Shown] = next(
        (found for line, found in zip(lines, own, strict=True) if line["normal"] and found),
        next(filter(None, own), []),
    )
    sample["images"] = [images.number(each) for each in usual]
    paths = [each.path for each in usual]
    for line, found in zip(lines, own, strict=True):
        del line["images"], line["normal"]
        if [each.path for each in found] != paths:
            line["m"] = [images.number(each) for each in found]


def _verdict(line: LogLine) -> str:
    """``r`` (correct), ``w`` (incorrect), ``t`` (tied), ``u`` (unparsed) or ``e`` (error)."""
    if line.correct:
        return "r"
    return VERDICTS.get(line.status) or ("t" if line.prediction is None else "w")


@dataclass(frozen=True)
class Gallery:
    tasks: Sequence[Data]
    shown: Sequence[Shown]
    """Images; samples refer to them by position."""
    refs: Mapping[tuple[str, str], ImageRef]
    """Image files by root and path, where known."""
    notes: Sequence[str]
    """Tasks whose images could not be looked up, and why."""

    @property
    def n_samples(self) -> int:
        return sum(len(task["samples"]) for task in self.tasks)


def collect(answers: Sequence[Answers], data_dir: str | None) -> Gallery:
    """Collect the samples of some cells and locate their images."""
    tasks: dict[str, _Task] = {}
    for each in answers:
        tasks.setdefault(each.task, _Task()).add(each, str(each.run.data_root(data_dir)))
    images = _Interned()
    refs: dict[tuple[str, str], ImageRef] = {}
    notes: dict[str, None] = {}
    found = []
    for task in tasks.values():
        positions: dict[str, int] = {}
        # Runs may have read the same task from different folders: look up the images of each.
        by_root = {str(each.run.data_root(data_dir)): each for each in reversed(task.answers)}
        for each in by_root.values():
            root = each.run.data_root(data_dir)
            try:
                samples = each.run.load_task(each.cell.task, root).samples
            except InputError as error:
                notes[f"{each.task}: shown without images: {error.message}"] = None
                continue
            positions = {sample.id: number for number, sample in enumerate(samples)}
            refs.update({(str(root), r.path): r for sample in samples for r in sample.images})
        found.append(task.data(positions, images))
    return Gallery(found, images.values, refs, list(notes))
