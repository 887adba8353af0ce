"""Checks what is read from a run folder, and says which field does not fit and why.

A log may have been truncated by a crash, edited by hand, or written by another program; what is
computed from it should fail with the line's number, not somewhere within a metric.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from vlm_harness.types import GRID, Estimate, Recorded, ResultRow

if TYPE_CHECKING:
    import pandas

R = TypeVar("R", bound=Recorded)


def parse(kind: type[R], data: Any) -> R:
    """
    Raises:
        ValueError: it is not of that kind, with the field and why.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        detail: Mapping[str, Any] = error.errors()[0]
        field = ".".join(map(str, detail["loc"]))
        reason = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "missing":
            reason = f"there is no {field!r}"
        elif field:
            reason = f"{field}: {reason[0].lower()}{reason[1:]}"
        raise ValueError(reason) from None


class Results(list[ResultRow]):
    """The rows of ``results.json``."""

    def to_dict(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return {"schema": 1, "results": [row.to_dict() for row in self]}

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
        """In a notebook: a table as the command prints it."""
        from vlm_harness.logs.labels import results_table

        return results_table(self)


class _Content(Recorded):
    results: list[ResultRow]


def parse_results(data: Any) -> Results:
    """
    Raises:
        ValueError: it is not the content of ``results.json``.
    """
    return Results(parse(_Content, data).results)
