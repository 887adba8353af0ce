"""The paper's tables (``leaderboard/paper/``) as rows of the leaderboard. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from vlm_harness.backends.resolve import resolve
from vlm_harness.metrics.display import scale
from vlm_harness.published.tables import TableCell, cells, load, paper_tables
from vlm_harness.specs.registry import Registry

Key = tuple[str, str | None, str, str, str, bool]


@dataclass(frozen=True)
class PublishedRow:
    """Published results of one model on one task, protocol and decoding."""

    name: str
    """As printed."""
    model: str | None
    """As for ``--model``; None if no public model reproduces the row."""
    encoder: str | None
    """The vision encoder according to the table or the model file; None if neither names it."""
    family: str | None
    """Model family as in leaderboard entries, if the table names it."""
    task: str
    protocol: str
    decoding: str
    values: Mapping[str, float]
    """By metric: fractions, or raw cosines."""
    tables: tuple[int, ...]
    """Numbers of the tables that contain the row, or part of it."""
    reference: str | None
    cited: bool
    """Cited by the paper from another publication."""
    note: str | None

    @property
    def repeatable(self) -> bool:
        return self.model is not None and not self.cited


def published_rows(registry: Registry) -> list[PublishedRow]:
    """Every number in the paper's tables, in their order.

    Rows that several tables have in common are merged if their values agree; otherwise they stay
    separate rows.

    Raises:
        InputError: a table does not match its schema or the known tasks.
    """
    found: dict[Key, list[PublishedRow]] = {}
    for number in paper_tables():
        for row in _rows_of(number, registry):
            same = found.setdefault(
                (row.name, row.model, row.task, row.protocol, row.decoding, row.cited), []
            )
            for index, other in enumerate(same):
                if _agree(row, other):
                    same[index] = _merged(other, row)
                    break
            else:
                same.append(row)
    return [row for rows in found.values() for row in rows]


def _rows_of(number: int, registry: Registry) -> Iterator[PublishedRow]:
    """The rows of one table, without numbers that are missing or illegible in print."""
    table = load(str(number))
    given = table.reference
    reference = "; ".join(given) if isinstance(given, list) else given
    by_row: dict[Key, list[TableCell]] = {}
    for cell in cells(table, registry):
        key = (cell.name, cell.model, cell.task, cell.protocol, cell.decoding, cell.cited)
        if cell.value is not None:
            by_row.setdefault(key, []).append(cell)

    @cache
    def encoder(model: str | None) -> str | None:
        return None if model is None else resolve(model, registry).vision_encoder

    for (name, model, task, protocol, how, cited), members in by_row.items():
        yield PublishedRow(
            name=name,
            model=model,
            encoder=members[0].encoder or encoder(model),
            family=members[0].family,
            task=task,
            protocol=protocol,
            decoding=how,
            values={cell.metric: _fraction(cell) for cell in members},
            tables=(number,),
            reference=reference,
            cited=cited,
            note=members[0].note,
        )


def _fraction(cell: TableCell) -> float:
    assert cell.value is not None
    factor = scale(cell.metric)
    return cell.value if factor == 1 else round(cell.value / factor, 6)


def _agree(one: PublishedRow, other: PublishedRow) -> bool:
    return all(one.values[name] == other.values[name] for name in one.values.keys() & other.values)


def _merged(one: PublishedRow, other: PublishedRow) -> PublishedRow:
    """Merge two rows that agree on the metrics they share."""
    notes = dict.fromkeys(note for note in (one.note, other.note) if note)
    references = dict.fromkeys(each for each in (one.reference, other.reference) if each)
    return replace(
        one,
        values={**one.values, **other.values},
        tables=tuple(sorted({*one.tables, *other.tables})),
        reference="; ".join(references) or None,
        note=" ".join(notes) or None,
    )
