"""Validates data read from a run folder; errors name the invalid field and the reason.

A log may have been truncated by a crash, edited by hand, or written by another program. Reading it
should then fail with a line number, rather than with an error inside a metric.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from vlm_harness.logs.group_row import GroupRow
from vlm_harness.types import GRID, Estimate, Recorded, ResultRow

if TYPE_CHECKING:
    import pandas

R = TypeVar("R", bound=Recorded)


def parse(kind: type[R], data: Any) -> R:
    """Validate ``data`` as ``kind``.

    Raises:
        ValueError: the data is invalid; the message names the field and the reason.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        detail: Mapping[str, Any] = error.errors()[0]
        field = ".".join(map(str, detail["loc"]))
        reason = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "missing":
            reason = f"{field!r} is missing"
        elif field:
            reason = f"{field}: {reason[0].lower()}{reason[1:]}"
        raise ValueError(reason) from None


class Groups(list[GroupRow]):
    """The entries of ``groups`` in ``results.json``."""

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per group, configuration and score: value, interval, n, chance."""
        import pandas

        names = ["group" if name == "task" else name for name in GRID]
        return pandas.DataFrame(
            [
                {
                    **dict(zip(names, row.grid.values(), strict=True)),
                    "aggregate": name,
                    **{key: getattr(estimate, key) for key in Estimate.model_fields},
                    "complete": row.complete,
                }
                for row in self
                for name, estimate in row.aggregates.items()
            ],
            columns=None if self else [*names, "aggregate", *Estimate.model_fields, "complete"],
        )


class Results(list[ResultRow]):
    """The rows of ``results.json``.

    Attributes:
        groups: the scores of groups of tasks; empty if the run has no group with declared scores.
    """

    def __init__(self, rows: Iterable[ResultRow] = (), groups: Iterable[GroupRow] = ()) -> None:
        super().__init__(rows)
        self.groups = Groups(groups)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        found = {"schema": 1, "results": [row.to_dict() for row in self]}
        return {**found, "groups": [row.to_dict() for row in self.groups]} if self.groups else found

    def to_pandas(self) -> "pandas.DataFrame":
        """One row per cell of the grid and metric: value, interval, n, chance."""
        import pandas

        return pandas.DataFrame(
            [
                {**row.grid, "metric": name, **estimate.to_dict(), "complete": row.complete}
                for row in self
                for name, estimate in row.metrics.items()
            ],
            columns=None if self else [*GRID, "metric", *Estimate.model_fields, "complete"],
        )

    def _repr_html_(self) -> str:
        """The results as a table, for notebooks."""
        from vlm_harness.logs.labels import groups_table, results_table

        return results_table(self) + groups_table(self.groups)


class _Content(Recorded):
    results: list[ResultRow]
    groups: list[GroupRow] = Field(default_factory=list)


def parse_results(data: Any) -> Results:
    """Validate the content of ``results.json``.

    Raises:
        ValueError: the data is invalid.
    """
    content = parse(_Content, data)
    return Results(content.results, content.groups)
