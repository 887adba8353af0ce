"""What two sides must have in common to be compared: samples, labels, options, groups and images.

Sides that differ in these are refused, since a difference would tell nothing of the models then;
what does not forbid the comparison, but must be known to read it, is noted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_harness.errors import InputError, listing
from vlm_harness.logs.run import Run
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.types import Cell, LogLine

SAME = ("dataset", "tables", "each", "fields", "where", "sample", "grouping")
"""What of a task makes its samples; its questions may differ, and that is noted."""

Key = tuple[str, int]
"""A sample and the number of its order."""


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    """``A`` or ``B``."""
    run: Run
    cells: Sequence[Cell]
    """Those of the run that were chosen."""

    @property
    def path(self) -> Path:
        return self.run.path


def paired(
    a: Side, b: Side, cell_a: Cell, cell_b: Cell, common: bool
) -> tuple[list[tuple[LogLine, LogLine]], list[str]]:
    """The lines of two cells of one task, side by side in the order of A's log, and notes.

    With ``common``, lines that only one side has are left out, where the other has none that it
    lacks.

    Raises:
        InputError: the same was not asked of both.
    """
    task, notes = cell_a.task, []
    _check_task(task, a, b)
    own_a, own_b = _lines(a, cell_a), _lines(b, cell_b)
    lines_a = _in_every_order(cell_a, own_a, own_b)
    lines_b = _in_every_order(cell_b, own_b, own_a)
    keys = _common(task, a, b, lines_a, lines_b, common)
    if len(keys) < max(len(lines_a), len(lines_b)):
        counts = f"{len(lines_a)} of A and {len(lines_b)} of B"
        notes.append(f"{task}: {len(keys)} common lines, out of {counts}")
    pairs = [(lines_a[key], lines_b[key]) for key in keys]
    _check_lines(task, a, b, pairs)
    return pairs, notes + _notes(cell_a, cell_b, pairs)


def both(a: Side, b: Side) -> str:
    """Where a message about two sides says that it is."""
    return str(a.run.path) if a.run.path == b.run.path else f"{a.run.path} and {b.run.path}"


def _check_task(name: str, a: Side, b: Side) -> None:
    mine, theirs = a.run.task(name), b.run.task(name)
    versions = mine.spec.version, theirs.spec.version
    again = "Run one of the two again"
    if versions[0] != versions[1]:
        raise InputError(
            f"task {name} is of version {versions[0]} on side A and of {versions[1]} on side B",
            where=both(a, b),
            hint=f"{again}, with the other's version of the task.",
        )
    if mine.data != theirs.data:
        files = {
            path
            for path in mine.data.keys() | theirs.data.keys()
            if mine.data.get(path) != theirs.data.get(path)
        }
        raise InputError(
            f"task {name} was read from other data: checksums differ of {listing(files, 3)}",
            where=both(a, b),
            hint=f"{again}, on the same data.",
        )
    one, other = a.run.spec(name).essence(), b.run.spec(name).essence()
    differing = [key for key in SAME if one[key] != other[key]]
    if differing:
        raise InputError(
            f"task {name} is of one version but was changed: {listing(differing)} differ",
            where=both(a, b),
            hint=f"{again}, with the other's task file.",
        )


def _lines(side: Side, cell: Cell) -> dict[Key, LogLine]:
    """The lines of a cell by sample and number of the order."""
    found = {(line.sample_id, line.order_index): line for line in side.run.lines([cell])}
    if not found:
        raise InputError(
            f"side {side.name} has answered nothing of {cell.task} under {cell.protocol}",
            where=side.run.path,
            hint="The command that began the run goes on with it; --task leaves tasks out.",
        )
    return found


def _in_every_order(
    cell: Cell, lines: Mapping[Key, LogLine], other: Mapping[Key, LogLine]
) -> Mapping[Key, LogLine]:
    """Lines of a dual encoder for every order that the other side was asked in.

    Captions are not shown in an order: an answer is the same in all of them.
    """
    if PROTOCOLS.get(cell.protocol).uses_prompt:
        return lines
    asked = {sample for sample, _ in other}
    return {
        **{key: line for key, line in lines.items() if key[0] not in asked},
        **{
            (sample, index): lines[sample, 0].model_copy(
                update={"order_index": index, "order": theirs.order}
            )
            for (sample, index), theirs in other.items()
            if (sample, 0) in lines
        },
    }


def _common(
    task: str,
    a: Side,
    b: Side,
    lines_a: Mapping[Key, LogLine],
    lines_b: Mapping[Key, LogLine],
    ok: bool,
) -> list[Key]:
    """What both sides were asked, in the order of A's log."""
    keys = [key for key in lines_a if key in lines_b]
    if len(keys) == len(lines_a) == len(lines_b):
        return keys
    message = (
        f"the sides were asked other samples of {task}, or in other orders: {len(lines_a)} lines "
        f"on side A, {len(lines_b)} on side B, {len(keys)} in common"
    )
    if len(keys) < min(len(lines_a), len(lines_b)):
        hint = "Neither is a part of the other: run one of the two again, on the other's samples."
        raise InputError(message, where=both(a, b), hint=hint)
    if not ok:
        hint = "Finish the smaller run, or compare what is common with --common."
        raise InputError(message, where=both(a, b), hint=hint)
    return keys


def _check_lines(task: str, a: Side, b: Side, pairs: Sequence[tuple[LogLine, LogLine]]) -> None:
    """That the same was asked: labels, options, groups, and images as far as both read them."""
    labels = pairs[0][0].labels, pairs[0][1].labels
    if labels[0] != labels[1]:
        raise InputError(
            f"{task}: labels are {labels[0]} on side A and {labels[1]} on side B",
            where=both(a, b),
            hint=f"Run one of the two again, with --labels {labels[0]} or --labels {labels[1]}.",
        )
    for field, meaning in (
        ("options", "options"), ("target", "labels"), ("pair", "pairs"), ("set", "sets"),
    ):  # fmt: skip
        differing = [x.sample_id for x, y in pairs if getattr(x, field) != getattr(y, field)]
        if differing:
            raise InputError(
                f"{task}: {meaning} differ in {len(differing)} of {len(pairs)} lines, the "
                f"first of sample {differing[0]}",
                where=both(a, b),
                hint="Run one of the two again, on the same data with the same labels.",
            )
    sums_a, sums_b = _image_checksums(x for x, _ in pairs), _image_checksums(y for _, y in pairs)
    changed = [path for path in sums_a if sums_a[path] != sums_b.get(path, sums_a[path])]
    if changed:
        raise InputError(
            f"{task}: {len(changed)} images are other files, the first {changed[0]}",
            where=both(a, b),
            hint="Run one of the two again, on the same images.",
        )


def _image_checksums(lines: Iterable[LogLine]) -> dict[str, str]:
    """Checksums by path, over a whole log: with swapped images a sample has another's."""
    return {
        image.path: image.sha256
        for line in lines
        for image in line.images or ()
        if image.sha256 is not None
    }


def _notes(a: Cell, b: Cell, pairs: Sequence[tuple[LogLine, LogLine]]) -> list[str]:
    """What does not forbid the comparison but must be known to read it."""
    notes = []
    label = f"{a.task} / {a.protocol}"
    reordered = sum(x.order != y.order for x, y in pairs)
    if reordered:
        notes.append(f"{label}: options shown in another order on {reordered} of {len(pairs)}")
    if (a.protocol, a.command) == (b.protocol, b.command):
        reworded = sum(x.prompt != y.prompt for x, y in pairs if x.order == y.order)
        if reworded:
            notes.append(f"{label}: asked in other words on {reworded} of {len(pairs)}")
    for name, index in (("A", 0), ("B", 1)):
        for status, text in (("unparsed", "unparsed"), ("error", "failed")):
            count = sum(pair[index].status == status for pair in pairs)
            if count:
                notes.append(f"{label}: {count} {text} on side {name} (count as wrong)")
    return notes
