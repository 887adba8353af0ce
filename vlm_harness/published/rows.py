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
    """What was published of one model on one task, asked in one way."""

    name: str
    """As printed."""
    model: str | None
    """As for ``--model``; None where nothing that is public gives the row again."""
    encoder: str | None
    """What sees the image, as the table or the model's file says; None where neither does."""
    family: str | None
    """As of an entry's model, where the table says it."""
    task: str
    protocol: str
    decoding: str
    values: Mapping[str, float]
    """By metric: fractions, and cosines as they are."""
    tables: tuple[int, ...]
    """Numbers of the tables that print it, or part of it."""
    reference: str | None
    cited: bool
    """Quoted by the paper from another publication."""
    note: str | None

    @property
    def repeatable(self) -> bool:
        return self.model is not None and not self.cited


def published_rows(registry: Registry) -> list[PublishedRow]:
    """Every number of the paper's tables, in their order.

    What several tables print alike is one row with all their numbers; where they differ, each value
    has a row of its own.

    Raises:
        InputError: a table that does not fit its schema or the tasks that there are.
    """
    found: dict[Key, list[PublishedRow]] = {}
    for number in paper_tables():
        for row in _rows_of(number, registry):
            same = found.setdefault(
                (row.name, row.model, row.task, row.protocol, row.decoding, row.cited), []
            )
            for index, other in enumerate(same):
                if _agree(row, other):
                    same[index] = _joined(other, row)
                    break
            else:
                same.append(row)
    return [row for rows in found.values() for row in rows]


def _rows_of(number: int, registry: Registry) -> Iterator[PublishedRow]:
    """The rows of one table; numbers that are not printed, or not legible, are left out."""
    table = load(str(number))
    says = table.reference
    reference = "; ".join(says) if isinstance(says, list) else says
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


def _joined(one: PublishedRow, other: PublishedRow) -> PublishedRow:
    """Two rows that agree where both have a value."""
    notes = dict.fromkeys(note for note in (one.note, other.note) if note)
    references = dict.fromkeys(each for each in (one.reference, other.reference) if each)
    return replace(
        one,
        values={**one.values, **other.values},
        tables=tuple(sorted({*one.tables, *other.tables})),
        reference="; ".join(references) or None,
        note=" ".join(notes) or None,
    )
