"""Published tables as data: columns, rows and their values."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from vlm_harness import paths
from vlm_harness.backends import decoding
from vlm_harness.backends.resolve import resolve
from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.metrics import METRICS
from vlm_harness.metrics.display import decimals
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.spec import Name, NamedSpec, Spec


class Column(Spec):
    """One value of every row."""

    task: Name
    metric: Name
    protocol: Name | None = Field(None, description="overrides the protocol of the row")
    chance: float | None = Field(None, description="random chance, as printed")


class Row(Spec):
    """One line of the table, as printed."""

    name: str = Field(description="the model, as printed")
    model: str | None = Field(
        description="as for --model; null if no public model reproduces the row"
    )
    encoder: str | None = Field(
        None, description="vision encoder, if no model file names it (model: null)"
    )
    family: Literal["dual encoder", "mllm", "other"] | None = Field(
        None, description="if the protocol does not determine it; a matching head is `other`"
    )
    protocol: Name | None = Field(None, description="required, here or in each column")
    decoding: str = Field("greedy", description="as for --decoding")
    cited: bool = Field(False, description="cited from another publication")
    note: str | None = None
    columns: list[Column] | None = Field(None, description="override the columns of the table")
    values: list[float | None] = Field(
        description="percent (cosines: raw); null if missing or illegible"
    )


class PublishedTable(NamedSpec):
    """A published table of results."""

    published: Name
    caption: str = ""
    reference: str | list[str] | None = None
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)


@dataclass(frozen=True)
class TableCell:
    """One value of a table, and the settings that reproduce it."""

    name: str
    model: str | None
    task: str
    metric: str
    protocol: str
    decoding: str
    value: float | None
    cited: bool
    note: str | None
    where: str
    encoder: str | None = None
    family: str | None = None

    @property
    def repeatable(self) -> bool:
        return self.model is not None and not self.cited

    @property
    def digits(self) -> int:
        """Printed decimals: one for percentages, three for cosines."""
        return decimals(self.metric)


def load(table: str) -> PublishedTable:
    """Load a table of the paper by its number, or a file in the same format.

    Raises:
        InputError: no such table, or a file that does not match the schema.
    """
    if not table.isdigit():
        return spec_check.parse(PublishedTable, yamlfile.load(Path(table).expanduser()))
    numbered = paper_tables()
    if int(table) not in numbered:
        raise InputError(
            f"the paper's Table {table} has no results; available: {_ranges(list(numbered))}",
            where="TABLE",
            hint="Alternatively, give the path of a YAML file in the same format.",
        )
    return spec_check.parse(PublishedTable, yamlfile.load(numbered[int(table)]))


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as text: ``1 to 7, 9``."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    found = zip(starts, ends, strict=True)
    return ", ".join(f"{i} to {j}" if i < j else f"{i}" for i, j in found) or "none"


def paper_tables() -> dict[int, Path]:
    """The paper's tables by number."""
    found = {}
    for path in _paper_folder().glob("table_*.yaml"):
        if match := re.fullmatch(r"table_(\d+)", path.stem):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _paper_folder() -> Path:
    return paths.bundled() / "leaderboard" / "paper"


def cells(table: PublishedTable, registry: Registry, models: Sequence[str] = ()) -> list[TableCell]:
    """The cells of a table, row by row; only those of ``models``, if given.

    Raises:
        InputError: wrong number of values, an unknown name, or a metric or protocol that a task
            does not have.
    """
    found = [cell for index in range(len(table.rows)) for cell in _row(table, index, registry)]
    known = list(dict.fromkeys(cell.model for cell in found if cell.model is not None))
    for model in models:
        if model not in known:
            raise not_found(
                f"the table has no model {model!r}",
                model,
                known,
                where="--model",
                hint=f"Models: {listing(known) or 'none that can be run'}",
            )
    return [cell for cell in found if not models or cell.model in models]


def _row(table: PublishedTable, index: int, registry: Registry) -> Iterator[TableCell]:
    row = table.rows[index]
    place: tuple[str | int, ...] = ("rows", index)
    columns = table.columns if row.columns is None else row.columns
    if len(columns) != len(row.values):
        raise InputError(
            f"row {row.name!r} has {len(row.values)} values, expected {len(columns)}",
            where=table.at(*place, "values"),
        )
    try:
        how = decoding.canonical(row.decoding)
    except InputError as error:
        where = table.at(*place, "decoding")
        raise InputError(error.message, where=where, hint=error.hint) from None
    if row.model is not None:
        _resolve(row.model, registry, table.at(*place, "model"))
    for number, (column, value) in enumerate(zip(columns, row.values, strict=True)):
        at = ("columns", number) if row.columns is None else (*place, "columns", number)
        protocol = column.protocol or row.protocol
        if protocol is None:
            raise InputError(f"row {row.name!r} has no protocol", where=table.at(*place))
        declared_at = at if column.protocol else place
        _check(column, protocol, registry, table.at(*at), table.at(*declared_at, "protocol"))
        generates = PROTOCOLS.get(protocol).kind == "generate"
        yield TableCell(
            row.name,
            row.model,
            column.task,
            column.metric,
            protocol,
            how if generates else "greedy",
            value,
            row.cited,
            row.note,
            table.at(*place, "values", number),
            row.encoder,
            row.family,
        )


def _check(column: Column, protocol: str, registry: Registry, at: str, protocol_at: str) -> None:
    registry.file("task", column.task, at)
    task = registry.task(column.task)
    METRICS.check(column.metric, at)
    if column.metric not in task.metrics:
        raise InputError(
            f"task {task.task} does not have the metric {column.metric!r}",
            where=at,
            hint=f"Metrics of the task: {listing(task.metrics)}",
        )
    PROTOCOLS.check(protocol, protocol_at)
    if protocol not in task.protocols.declared:
        raise InputError(
            f"task {task.task} does not declare the protocol {protocol!r}",
            where=protocol_at,
            hint=f"Protocols of the task: {listing(task.protocols.declared)}",
        )


def _resolve(model: str, registry: Registry, where: str) -> ModelSpec:
    try:
        return resolve(model, registry)
    except InputError as error:
        raise InputError(error.message, where=where, hint=error.hint) from None
