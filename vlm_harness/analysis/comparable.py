"""Checks that two sides are comparable: same samples, labels, options, groups and images.

Sides that differ in these are rejected, since a difference in scores would not be due to the
models. Other differences that matter for the interpretation become notes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_harness.errors import InputError, listing
from vlm_harness.logs.labels import MANY_UNPARSED
from vlm_harness.logs.run import Run
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.types import Cell, LogLine

SAME = ("dataset", "tables", "each", "fields", "where", "sample", "grouping")
"""Keys of a task that define its samples. Prompts may differ; a note reports it."""

Key = tuple[str, int]
"""Sample id and order index."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    """``A`` or ``B``."""
    run: Run
    cells: Sequence[Cell]
    """The selected cells of the run."""

    @property
    def path(self) -> Path:
        return self.run.path


def paired(
    a: Side, b: Side, cell_a: Cell, cell_b: Cell, common: bool
) -> tuple[list[tuple[LogLine, LogLine]], list[str]]:
    """The paired lines of two cells of one task, in the order of A's log, and notes.

    With ``common``, the samples of one side may be a subset of the other's; only these are paired.

    Raises:
        InputError: the two cells are not comparable.
    """
    task, notes = cell_a.task, []
    _check_task(task, a, b)
    own_a, own_b = _lines(a, cell_a), _lines(b, cell_b)
    lines_a = _in_every_order(cell_a, own_a, own_b)
    lines_b = _in_every_order(cell_b, own_b, own_a)
    for name, repeated, own, other in (("A", lines_a, own_a, "B"), ("B", lines_b, own_b, "A")):
        if len(repeated) > len(own):
            notes.append(
                f"{task}: {name} has one order; each of its answers is compared with every order "
                f"of {other}."
            )
    keys = _common(task, a, b, lines_a, lines_b, common)
    if len(keys) < max(len(lines_a), len(lines_b)):
        counts = f"{len(lines_a)} of A and {len(lines_b)} of B"
        notes.append(f"{task}: {len(keys)} answers in common, out of {counts}")
    pairs = [(lines_a[key], lines_b[key]) for key in keys]
    _check_lines(task, a, b, pairs)
    return pairs, notes + _notes(cell_a, cell_b, pairs)


def both(a: Side, b: Side) -> str:
    """The location that a message about both sides names."""
    return str(a.run.path) if a.run.path == b.run.path else f"{a.run.path} and {b.run.path}"


def _check_task(name: str, a: Side, b: Side) -> None:
    mine, theirs = a.run.task(name), b.run.task(name)
    versions = mine.spec.version, theirs.spec.version
    again = "Rerun one of the two"
    if versions[0] != versions[1]:
        raise InputError(
            f"task {name} has version {versions[0]} on side A and version {versions[1]} on side B",
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
            f"task {name} was read from different data: checksums differ for {listing(files, 3)}",
            where=both(a, b),
            hint=f"{again}, on the same data.",
        )
    one, other = a.run.spec(name).essence(), b.run.spec(name).essence()
    differing = [key for key in SAME if one[key] != other[key]]
    if differing:
        raise InputError(
            f"task {name} was changed without a new version: {listing(differing)} differ",
            where=both(a, b),
            hint=f"{again}, with the other's task file.",
        )


def _lines(side: Side, cell: Cell) -> dict[Key, LogLine]:
    """The lines of a cell by sample and order index."""
    found = {(line.sample_id, line.order_index): line for line in side.run.lines([cell])}
    if not found:
        raise InputError(
            f"side {side.name} has no answers for {cell.task} with protocol {cell.protocol}",
            where=side.run.path,
            hint="Rerun the original command to resume it, or choose other tasks with --task.",
        )
    return found


def _in_every_order(
    cell: Cell, lines: Mapping[Key, LogLine], other: Mapping[Key, LogLine]
) -> Mapping[Key, LogLine]:
    """The lines of a cell, repeated for every option order of the other side if it has no prompt.

    A dual encoder sees no option order, so its answer is the same in all of them.
    """
    if PROTOCOLS.get(cell.protocol).uses_prompt:
        return lines
    repeated = {sample for sample, _ in other}
    return {
        **{key: line for key, line in lines.items() if key[0] not in repeated},
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
    allow_subset: bool,
) -> list[Key]:
    """The samples and orders that both sides have, in the order of A's log."""
    keys = [key for key in lines_a if key in lines_b]
    if len(keys) == len(lines_a) == len(lines_b):
        return keys
    message = (
        f"A and B were evaluated on different samples or option orders of {task}: {len(lines_a)} "
        f"answers on side A, {len(lines_b)} on side B, {len(keys)} in common"
    )
    if len(keys) < min(len(lines_a), len(lines_b)):
        hint = "Neither is a subset of the other. Rerun one of the two on the other's samples."
        raise InputError(message, where=both(a, b), hint=hint)
    if not allow_subset:
        hint = "Rerun the smaller one with a larger --limit, or use --common."
        raise InputError(message, where=both(a, b), hint=hint)
    return keys


def _check_lines(task: str, a: Side, b: Side, pairs: Sequence[tuple[LogLine, LogLine]]) -> None:
    """Check that labels, options and groups are equal, and images if both sides read them."""
    labels = pairs[0][0].labels, pairs[0][1].labels
    if labels[0] != labels[1]:
        raise InputError(
            f"{task}: labels are {labels[0]} on side A and {labels[1]} on side B",
            where=both(a, b),
            hint=f"Rerun one of the two, with --labels {labels[0]} or --labels {labels[1]}.",
        )
    for field, meaning in (
        ("options", "options"), ("target", "labels"), ("pair", "pairs"), ("set", "sets"),
    ):  # fmt: skip
        differing = [x.sample_id for x, y in pairs if getattr(x, field) != getattr(y, field)]
        if differing:
            raise InputError(
                f"{task}: {meaning} differ in {len(differing)} of {len(pairs)} lines, e.g. "
                f"sample {differing[0]}",
                where=both(a, b),
                hint="Rerun one of the two on the same data with the same labels.",
            )
    checksums_a, checksums_b = (
        _image_checksums(x for x, _ in pairs),
        _image_checksums(y for _, y in pairs),
    )
    changed = [path for path, each in checksums_a.items() if checksums_b.get(path, each) != each]
    if changed:
        raise InputError(
            f"{task}: {len(changed)} images differ between A and B, e.g. {changed[0]}",
            where=both(a, b),
            hint="Rerun one of the two on the same images.",
        )


def _image_checksums(lines: Iterable[LogLine]) -> dict[str, str]:
    """Checksums by path, over all lines: with swapped images, a sample has another one's image."""
    return {
        image.path: image.sha256
        for line in lines
        for image in line.images or ()
        if image.sha256 is not None
    }


def _notes(a: Cell, b: Cell, pairs: Sequence[tuple[LogLine, LogLine]]) -> list[str]:
    """Differences that do not prevent the comparison but matter for reading it."""
    notes = []
    label = f"{a.task} / {a.protocol}"
    reordered = sum(x.order != y.order for x, y in pairs)
    if reordered:
        notes.append(f"{label}: option order differs in {reordered} of {len(pairs)} lines")
    if (a.protocol, a.command) == (b.protocol, b.command):
        reworded = sum(x.prompt != y.prompt for x, y in pairs if x.order == y.order)
        if reworded:
            notes.append(f"{label}: prompts differ in {reworded} of {len(pairs)} lines")
    n_unparsed = [sum(pair[index].status == "unparsed" for pair in pairs) for index in (0, 1)]
    shares = [n / len(pairs) for n in n_unparsed]
    if abs(shares[0] - shares[1]) >= MANY_UNPARSED:
        notes.append(
            f"{label}: {shares[0]:.1%} of the answers of side A are unparsed, {shares[1]:.1%} of "
            "side B: the difference may lie in reading them (`extraction-report` shows them)"
        )
    for name, index in (("A", 0), ("B", 1)):
        for status, text in (("unparsed", "unparsed"), ("error", "failed")):
            count = sum(pair[index].status == status for pair in pairs)
            if count:
                notes.append(f"{label}: {count} {text} on side {name} (count as wrong)")
    return notes
