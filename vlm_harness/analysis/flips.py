"""Which samples two sides answered differently, and which pairs and sets that decided.

A difference of two accuracies is what was gained less what was lost; of two wrong answers that
differ it shows nothing. All three are here by name.
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
"""Right on side B alone, on side A alone, on neither and not alike."""


@dataclass(frozen=True)
class Flip:
    """A sample, in one of its orders, that the sides did not answer alike."""

    kind: Kind
    sample_id: str
    order_index: int
    pair: str | None
    set: str | None
    category: str | None
    options: Sequence[str]
    target: int
    prediction_a: int | None
    """None for what is no answer: tied, unparsed or failed. Two of those are alike."""
    prediction_b: int | None
    status_a: Status
    status_b: Status
    text_a: str | None
    """What was generated; None where options were scored."""
    text_b: str | None


@dataclass(frozen=True)
class GroupFlip:
    """A whole pair or set, in one of its orders, that one side alone has right."""

    kind: Literal["gained", "lost"]
    unit: Literal["pair", "set"]
    name: str
    order_index: int
    sample_ids: Sequence[str]


@dataclass(frozen=True)
class Flips:
    """All that differs between two cells on the same samples."""

    a: Cell
    b: Cell
    samples: Sequence[Flip]
    """In the order of A's log."""
    groups: Sequence[GroupFlip]
    """Pairs before sets."""
    n: Mapping[str, int]
    """What was compared, by unit: samples (in each of their orders), and whole pairs and sets where
    there are any."""

    def counts(self) -> dict[str, dict[str, int]]:
        """How many of each unit were gained, lost, ..., and are the same."""
        kinds = {unit: Counter[str]() for unit in self.n}
        kinds["sample"].update(flip.kind for flip in self.samples)
        for group in self.groups:
            kinds[group.unit][group.kind] += 1
        return {
            unit: {
                "gained": found["gained"],
                "lost": found["lost"],
                # A pair is right or wrong, and no more.
                **({"other wrong answer": found["other wrong answer"]} if unit == "sample" else {}),
                "same": self.n[unit] - found.total(),
            }
            for unit, found in kinds.items()
        }


def flips(a: Cell, b: Cell, pairs: Sequence[tuple[LogLine, LogLine]], rules: GroupRules) -> Flips:
    """``pairs`` are lines of both sides about the same, with the same options and label."""
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
    """One entry a whole group, as in the accuracies: None where both sides agree on it."""
    sides = zip(*((record(x), record(y)) for x, y in pairs), strict=True)
    # Both sides have the same groups in the same order, since their lines have the same keys.
    whole = (groups(records, unit, getattr(rules, unit).size)[0] for records in sides)
    for mine, theirs in zip(*whole, strict=True):
        right_a, right_b = (all(each.correct for each in group) for group in (mine, theirs))
        if right_a == right_b:
            yield None
            continue
        yield GroupFlip(
            "gained" if right_b else "lost",
            unit,
            getattr(mine[0], unit),
            mine[0].order_index,
            [each.sample_id for each in mine],
        )
