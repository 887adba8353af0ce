"""The samples of runs as data for a page: what was shown, asked and answered, by group.

A task's samples stand in groups (sets, else pairs, else alone) and carry one line for every
answerer (a model, and how it was asked) and order of the options. Texts that many lines share,
prompts and captions, are kept once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vlm_harness.errors import InputError, printable
from vlm_harness.recorded import RecordedRun
from vlm_harness.report.thumbnails import Shown
from vlm_harness.runlog import Line
from vlm_harness.types import ImageRef, Variant

Data = dict[str, Any]
LONG = 20_000
"""Characters of a text that a page shows; the log has them all."""
VERDICTS = {"unparsed": "u", "error": "e"}


class Cell(NamedTuple):
    """What a run answered to a task in one way."""

    run: RecordedRun
    variant: Variant
    task: str
    """What the task is called on the page; cells of one name were asked the same."""
    label: str
    """What tells it from the others of the task."""
    lines: Sequence[Line]


@dataclass
class _Interned:
    """Values that are written once and referred to by number."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    @property
    def values(self) -> list[Any]:
        return list(self.numbers)


@dataclass
class _Task:
    """One task as some answerers were asked it: the same samples, whatever run they are in."""

    cells: list[Cell] = field(default_factory=list)
    _samples: dict[str, Data] = field(default_factory=dict)
    _prompts: _Interned = field(default_factory=_Interned)
    _candidates: _Interned = field(default_factory=_Interned)

    def take(self, number: int, line: Line, images: _Interned) -> None:
        """A line of the answerer of that number."""
        name = line["sample_id"]
        if name not in self._samples:
            self._samples[name] = {
                "id": printable(name),
                "pair": line["pair"],
                "set": line["set"],
                "category": line["category"],
                "options": [printable(option) for option in line["options"]],
                "target": line["target"],
                "images": [],
                "lines": [],
            }
        sample = self._samples[name]
        # Some backends read no image, and log no checksum; another model's line may have it.
        shown = [Shown(each["path"], each["sha256"]) for each in line.get("images") or ()]
        if len(shown) > len(sample["images"]) or (
            sample["images"] and shown and images.values[sample["images"][0]].sha256 is None
        ):
            sample["images"] = [images.number(each) for each in shown]
        if line["pair_cosine"] is not None:
            sample.setdefault("cosines", {})[number] = round(line["pair_cosine"], 4)
        sample["lines"].append(self._line(number, line, sample["target"]))

    def _line(self, number: int, line: Line, target: int) -> Data:
        """With short names, and without what is as it mostly is: a page may have many."""
        response = line["response"]
        text = response.get("text")
        found: Data = {"a": number, "v": _verdict(line), "p": line["prediction"]}
        if line.get("prompt"):
            found["q"] = self._prompts.number(printable(line["prompt"][:LONG]))
        elif line.get("candidates"):
            found["c"] = self._candidates.number(tuple(map(printable, line["candidates"])))
        if text is not None:
            found["t"] = printable(text[:LONG])
            if len(text) > LONG:
                found["x"] = len(text)
        for short, name in (("s", "scores"), ("l", "sum_logprobs")):
            if response.get(name):
                found[short] = [None if v is None else float(f"{v:.5g}") for v in response[name]]
        if line["order"] != sorted(line["order"]):
            found["o"] = line["order"]
        if line["order_index"]:
            found["i"] = line["order_index"]
        for short, name in (("d", "extraction"), ("e", "error")):
            if line.get(name):
                found[short] = printable(line[name][:LONG])
        if line["target"] != target:
            found["g"] = line["target"]
        return found

    def data(self, position: Mapping[str, int]) -> Data:
        """As the page gets it; samples in the order of ``position``, as far as it is known."""
        samples = sorted(
            self._samples.items(), key=lambda item: position.get(item[0], len(position))
        )
        groups: dict[tuple[str, str], list[int]] = {}
        for number, (_, sample) in enumerate(samples):
            kind = next((kind for kind in ("set", "pair") if sample[kind] is not None), "sample")
            key = sample["id" if kind == "sample" else kind]
            groups.setdefault((kind, key), []).append(number)
        categories = dict.fromkeys(sample["category"] for _, sample in samples)
        return {
            "name": printable(self.cells[0].task),
            "answerers": [printable(cell.label) for cell in self.cells],
            "samples": [sample for _, sample in samples],
            "groups": [
                {"kind": kind, "key": printable(key), "members": members}
                for (kind, key), members in groups.items()
            ],
            "categories": sorted(printable(each) for each in categories if each is not None),
            "prompts": self._prompts.values,
            "candidates": self._candidates.values,
        }


def _verdict(line: Line) -> str:
    """r(ight), w(rong), t(ied), u(nparsed), e(rror)."""
    if line["correct"]:
        return "r"
    return VERDICTS.get(line["status"]) or ("t" if line["prediction"] is None else "w")


@dataclass(frozen=True)
class Gallery:
    tasks: Sequence[Data]
    shown: Sequence[Shown]
    """Images, as samples refer to them by number."""
    refs: Mapping[str, ImageRef]
    """Where they are, by path, as far as it is known."""
    notes: Sequence[str]
    """What could not be looked for, and why."""

    @property
    def n_samples(self) -> int:
        return sum(len(task["samples"]) for task in self.tasks)


def collect(cells: Sequence[Cell], data_dir: str | None) -> Gallery:
    """The samples of some cells of runs, and where their images are."""
    tasks: dict[str, _Task] = {}
    images = _Interned()
    for cell in cells:
        task = tasks.setdefault(cell.task, _Task())
        task.cells.append(cell)
        for line in cell.lines:
            task.take(len(task.cells) - 1, line, images)
    refs: dict[str, ImageRef] = {}
    read: dict[tuple[Path, str], dict[str, int]] = {}
    notes: dict[str, None] = {}
    found = []
    for task in tasks.values():
        run, name = task.cells[0].run, task.cells[0].variant.task
        if (run.folder, name) not in read:
            try:
                again = run.read_again(name, run.data_root(data_dir)).samples
            except InputError as error:
                notes[f"{name}: shown without images, since {error.message}"] = None
                again = []
            read[run.folder, name] = {sample.id: n for n, sample in enumerate(again)}
            refs.update({ref.path: ref for sample in again for ref in sample.images})
        found.append(task.data(read[run.folder, name]))
    return Gallery(found, images.values, refs, list(notes))
