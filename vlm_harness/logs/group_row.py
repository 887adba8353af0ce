"""The scores of a group of tasks, as in ``results.json``."""

from pydantic import Field, model_validator

from vlm_harness.types import Estimate, GridFields

PER_TASK = "per task"
"""A setting of a group whose tasks have different values, each its own default."""


class AggregateEstimate(Estimate):
    """A score of a group of tasks. ``n`` is the total of its tasks."""

    of: list[str] = Field(min_length=1)
    """The metrics of the tasks; they have the same unit."""
    how: str
    """``mean``, ``weighted_mean`` or ``sum``."""


class GroupRow(GridFields):
    """The scores of a group of tasks in one configuration: one entry of ``groups``.

    Its ``task`` is the name of the group. A setting can be ``PER_TASK``.
    """

    task: str = Field(alias="group")
    group_version: int
    limit: int | None
    seed: int = 0
    headline: str
    """Name of the score that the group is quoted by."""
    aggregates: dict[str, AggregateEstimate]
    """Scores by name. Without a value if a task is missing."""
    members: list[str]
    """The tasks of the group."""
    missing: list[str]
    """Tasks that the run does not have in this configuration."""
    incomplete: list[str]
    """Tasks with a limit, or with samples that are missing or failed."""
    n_samples: int
    n_unparsed: int
    n_errors: int
    n_tied: int
    complete: bool

    def includes(self, cell: GridFields) -> bool:
        """Whether the row is computed from this cell."""
        settings = ((name, value) for name, value in self.grid.items() if name != "task")
        return cell.task in self.members and all(
            value in (cell.grid[name], PER_TASK) for name, value in settings
        )

    @property
    def primary_metric(self) -> str:
        return self.headline

    @property
    def primary(self) -> AggregateEstimate:
        return self.aggregates[self.headline]

    @property
    def metrics(self) -> dict[str, AggregateEstimate]:
        """The scores by name, like the metrics of a task."""
        return self.aggregates

    @model_validator(mode="after")
    def _check_headline(self) -> "GroupRow":
        if self.headline not in self.aggregates:
            raise ValueError(f"headline {self.headline!r} is not one of aggregates")
        return self
