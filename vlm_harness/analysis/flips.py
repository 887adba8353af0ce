"""Samples that two sides answered differently, and the pairs and sets affected.

A difference of two accuracies is the number gained minus the number lost, and hides changes from
one incorrect answer to another. This module lists all three kinds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlm_harness.logs.results import record
from vlm_harness.metrics.metric import groups
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import Cell, LogLine, Status

Kind = Literal["gained", "lost", "other wrong answer"]
"""Correct on side B only; correct on side A only; incorrect on both, with different answers."""


@dataclass(frozen=True)
class Flip:
    """A sample, in one of its orders, that the sides answered differently."""

    kind: Kind
    sample_id: str
    order_index: int
    pair: str | None
    set: str | None
    category: str | None
    options: Sequence[str]
    target: int
    prediction_a: int | None
    """None if there is no answer (tied, unparsed or failed). Two of these count as the same."""
    prediction_b: int | None
    status_a: Status
    status_b: Status
    text_a: str | None
    """The generated text; None if options were scored."""
    text_b: str | None


@dataclass(frozen=True)
class GroupFlip:
    """A complete pair or set, in one of its orders, that only one side got correct."""

    kind: Literal["gained", "lost"]
    unit: Literal["pair", "set"]
    name: str
    order_index: int
    sample_ids: Sequence[str]


@dataclass(frozen=True)
class Flips:
    """All differences between two cells on the same samples."""

    a: Cell
    b: Cell
    samples: Sequence[Flip]
    """In the order of A's log."""
    groups: Sequence[GroupFlip]
    """Pairs before sets."""
    n: Mapping[str, int]
    """Number of compared units: samples (in each of their orders), and complete pairs and sets if
    there are any."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of gained, lost, ... and unchanged samples, pairs and sets."""
        kinds = {unit: Counter[str]() for unit in self.n}
        kinds["sample"].update(flip.kind for flip in self.samples)
        for group in self.groups:
            kinds[group.unit][group.kind] += 1
        return {
            unit: {
                "gained": found["gained"],
                "lost": found["lost"],
                # A pair or set is either correct or incorrect.
                **({"other wrong answer": found["other wrong answer"]} if unit == "sample" else {}),
                "same": self.n[unit] - found.total(),
            }
            for unit, found in kinds.items()
        }


def flips(a: Cell, b: Cell, pairs: Sequence[tuple[LogLine, LogLine]], rules: GroupRules) -> Flips:
    """Find the flips in ``pairs``: the lines of both sides for the same samples."""
    found = []
    n = {"sample": len(pairs)}
    for unit in ("pair", "set"):
        compared = list(_groups(pairs, unit, rules))
        if compared:
            n[unit] = len(compared)
        found += [group for group in compared if group is not None]
    samples = [flip for x, y in pairs if (flip := _flip(x, y)) is not None]
    return Flips(a, b, samples, found, n)


def _flip(a: LogLine, b: LogLine) -> Flip | None:
    kind = _kind(a, b)
    if kind is None:
        return None
    return Flip(
        kind,
        a.sample_id,
        a.order_index,
        a.pair,
        a.set,
        a.category,
        a.options,
        a.target,
        a.prediction,
        b.prediction,
        a.status,
        b.status,
        a.response.text,
        b.response.text,
    )


def _kind(a: LogLine, b: LogLine) -> Kind | None:
    if a.correct != b.correct:
        return "gained" if b.correct else "lost"
    return None if a.prediction == b.prediction else "other wrong answer"


def _groups(
    pairs: Iterable[tuple[LogLine, LogLine]], unit: Literal["pair", "set"], rules: GroupRules
) -> Iterator[GroupFlip | None]:
    """One entry per complete group; None if both sides agree on it."""
    sides = zip(*((record(x), record(y)) for x, y in pairs), strict=True)
    # Both sides have the same groups in the same order, since their lines have the same keys.
    complete = (groups(records, unit, getattr(rules, unit).size)[0] for records in sides)
    for mine, theirs in zip(*complete, strict=True):
        correct_a, correct_b = (all(each.correct for each in group) for group in (mine, theirs))
        if correct_a == correct_b:
            yield None
            continue
        yield GroupFlip(
            "gained" if correct_b else "lost",
            unit,
            getattr(mine[0], unit),
            mine[0].order_index,
            [each.sample_id for each in mine],
        )
