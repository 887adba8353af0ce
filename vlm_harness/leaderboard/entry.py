"""A submitted result: one small JSON file per run and model, stored in ``leaderboard/results/``.

These files come from untrusted sources and are shown on a page. So every value is bounded, text is
plain, and unknown keys are errors.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from vlm_harness import paths
from vlm_harness.errors import InputError, listing, printable, suggest
from vlm_harness.files import read_json, to_json
from vlm_harness.logs.group_row import PER_TASK
from vlm_harness.logs.lines import slug
from vlm_harness.metrics import METRICS
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.groups import Group, tree
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import Aggregate, MetricName, TaskSpec
from vlm_harness.specs.spec import Name, Spec
from vlm_harness.specs.validation import parse
from vlm_harness.specs.yamlfile import YamlFile
from vlm_harness.types import GRID

MAX_BYTES = 2**20
"""Maximum size of a file; a run of all tasks and protocols takes a fifth of it."""
ROUNDING = 1e-6
"""How far a mean of cosines in float32 may exceed one."""
CONFIGURATION = tuple(name for name in GRID if name != "model")
"""Fields that distinguish a result from other results of its model."""
DECODING = r"^[A-Za-z0-9][A-Za-z0-9_.:=,+-]*$"
OTHER_FILES = ("README.md",)
"""Allowed files in the results folder that are not entries."""


def _misfit(text: str) -> PydanticCustomError:
    return PydanticCustomError("misfit", "{message}", {"message": text})


def _plain(text: str) -> str:
    if "\n" in text or "\t" in text or printable(text) != text:
        raise _misfit("must be one line of plain text, without control characters")
    return text


def check_url(text: str) -> str:
    """Check the URL of a web page.

    Raises:
        PydanticCustomError: not such a URL.
    """
    try:
        parts = urlsplit(_plain(text))
        fits = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        )
    except ValueError:
        fits = False
    if not fits or any(mark in text for mark in " \"'<>\\`{}|^"):
        raise _misfit("must be the URL of a page: https://... (or http://...)")
    return text


def _time(text: str) -> str:
    try:
        known = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise _misfit("must be a time with a time zone, as in 2025-01-31T12:00:00+00:00")
    if datetime.fromisoformat(text) > datetime.now(UTC) + timedelta(days=1):
        raise _misfit("must not be in the future")
    return text


Text = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_plain)]
Url = Annotated[str, Field(max_length=500), AfterValidator(check_url)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class EntryModel(Spec):
    """The model that was run."""

    name: Name
    backend: Name = Field(description="`replay`: answers recorded elsewhere")
    checkpoint: Text = Field(
        description="hub name or architecture:tag; for a local checkpoint, the name of its folder"
    )
    revision: Text | None
    parameters: Annotated[int, Field(ge=0, le=10**14)] | None
    dtype: Text | None
    encoder: Text | None = Field(
        description="image encoder; the same text for models that share one"
    )
    family: Literal["dual encoder", "mllm", "other"]
    verified: bool = Field(
        True, description="false: the project has not run this checkpoint name and revision"
    )


class EntryRun(Spec):
    """The run that produced the results."""

    id: Text
    identity_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    vlm_harness: str = Field(pattern=r"^[0-9A-Za-z.+!_-]{1,40}$", description="version")
    git_commit: str | None = Field(pattern=r"^[0-9a-f]{40,64}(-dirty)?$")
    finished: Annotated[str, Field(max_length=40), AfterValidator(_time)]
    seed: int = Field(ge=-(2**63), lt=2**63)
    command_line: Annotated[str, Field(max_length=20_000)]
    report_url: Url | None

    @model_validator(mode="after")
    def _printable(self) -> "EntryRun":
        if printable(self.command_line) != self.command_line:
            raise _misfit("command_line contains control characters")
        return self


class EntryMetric(Spec):
    """A value with its 95% interval; shares are fractions."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: Count
    chance: float | None

    @model_validator(mode="after")
    def _ordered(self) -> "EntryMetric":
        low, value, high = self.ci_low, self.value, self.ci_high
        if (low is None) != (high is None) or (value is None and low is not None):
            raise _misfit("an interval needs a value and both of its ends")
        if value is None or low is None or high is None:
            return self
        if not low - 1e-9 <= value <= high + 1e-9:
            raise _misfit(f"the value {value} is outside its interval, {low} to {high}")
        return self


class EntryResult(Spec):
    """One row of the run's ``results.json``; partial results are not accepted."""

    task: Name
    task_version: int = Field(ge=1, le=10**6)
    protocol: Name
    command: Name
    order: Literal["fixed", "both", "cyclic", "random"]
    decoding: str = Field(pattern=DECODING, max_length=200)
    image_mode: Literal["normal", "none", "swapped"]
    labels: Literal["corrected", "original"]
    primary_metric: MetricName
    metrics: dict[MetricName, EntryMetric] = Field(min_length=1, max_length=100)
    n_samples: int = Field(ge=1, le=10**9)
    n_groups: Count
    n_incomplete: Count
    n_unparsed: Count
    n_tied: Count

    @model_validator(mode="after")
    def _fits(self) -> "EntryResult":
        if self.primary_metric not in self.metrics:
            raise _misfit(f"primary_metric {self.primary_metric!r} is not among the metrics")
        for name, metric in self.metrics.items():
            low, high = METRICS.declared(name).range
            for key in ("value", "ci_low", "ci_high", "chance"):
                number = getattr(metric, key)
                if number is not None and not low - ROUNDING <= number <= high + ROUNDING:
                    raise _misfit(
                        f"metrics.{name}.{key} is {number:g}, expected {low:g} to {high:g}"
                    )
            if metric.n > self.n_samples:
                raise _misfit(
                    f"metrics.{name}.n is {metric.n}, more than n_samples ({self.n_samples})"
                )
        for part, total in (
            ("n_incomplete", "n_groups"), ("n_unparsed", "n_samples"), ("n_tied", "n_samples"),
        ):  # fmt: skip
            n, most = getattr(self, part), getattr(self, total)
            if n > most:
                raise _misfit(f"{part} is {n}, more than {total} ({most})")
        return self

    @property
    def configuration(self) -> tuple[str, ...]:
        """The values that distinguish it from other results of its model."""
        return tuple(getattr(self, name) for name in CONFIGURATION)

    @property
    def primary(self) -> EntryMetric:
        return self.metrics[self.primary_metric]


class EntryScore(EntryMetric):
    """A score of a group of tasks."""

    of: list[MetricName] = Field(min_length=1, max_length=100)
    how: Literal["mean", "weighted_mean", "sum"]


class EntryGroup(Spec):
    """One entry of ``groups`` in the run's ``results.json``. All of its tasks are in the entry."""

    group: Name
    group_version: int = Field(ge=1, le=10**6)
    protocol: Name
    command: Name | Literal["per task"]
    order: Literal["fixed", "both", "cyclic", "random", "per task"]
    decoding: str = Field(pattern=DECODING, max_length=200)
    image_mode: Literal["normal", "none", "swapped"]
    labels: Literal["corrected", "original"]
    headline: Name
    aggregates: dict[Name, EntryScore] = Field(min_length=1, max_length=100)
    members: list[Name] = Field(min_length=1, max_length=1000)
    n_samples: int = Field(ge=1, le=10**9)
    n_unparsed: Count
    n_tied: Count

    @model_validator(mode="after")
    def _fits(self) -> "EntryGroup":
        if self.headline not in self.aggregates:
            raise _misfit(f"headline {self.headline!r} is not among the aggregates")
        for part in ("n_unparsed", "n_tied"):
            if getattr(self, part) > self.n_samples:
                raise _misfit(f"{part} is more than n_samples ({self.n_samples})")
        for name, score in self.aggregates.items():
            # A sum over all tasks has the widest range.
            widest = len(score.of) * len(self.members)
            low, high = (widest * end for end in METRICS.declared(score.of[0]).range)
            for key in ("value", "ci_low", "ci_high", "chance"):
                number = getattr(score, key)
                if number is not None and not low - ROUNDING <= number <= high + ROUNDING:
                    raise _misfit(
                        f"aggregates.{name}.{key} is {number:g}, expected {low:g} to {high:g}"
                    )
        return self

    @property
    def configuration(self) -> tuple[str, ...]:
        """The values that distinguish it from other results of its model."""
        return (self.group, *(getattr(self, name) for name in CONFIGURATION[1:]))

    def of(self, results: Iterable[EntryResult]) -> dict[str, EntryResult]:
        """The results that it is computed from, by task."""
        return {
            result.task: result
            for result in results
            if result.task in self.members
            and all(getattr(self, n) in (PER_TASK, getattr(result, n)) for n in CONFIGURATION[1:])
        }


class Entry(Spec):
    """All results of one model in one run."""

    schema_: Literal[1] = Field(alias="schema")
    model: EntryModel
    run: EntryRun
    results: list[EntryResult] = Field(min_length=1, max_length=2000)
    groups: list[EntryGroup] = Field(
        [], max_length=1000, description="scores of groups of tasks; optional"
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Entry":
        seen = set()
        for result in self.all_results:
            if result.configuration in seen:
                raise _misfit(f"duplicate result: {' / '.join(result.configuration)}")
            seen.add(result.configuration)
        for group in self.groups:
            if missing := set(group.members) - group.of(self.results).keys():
                raise _misfit(f"group {group.group}: no result of {listing(missing)}")
        return self

    @property
    def all_results(self) -> "list[EntryResult | EntryGroup]":
        return [*self.results, *self.groups]

    @property
    def file_name(self) -> str:
        return f"{slug(self.model.name)}__{self.run.identity_sha256[:10]}.json"

    def plain(self) -> dict[str, Any]:
        """The content of its file. ``verified`` is only written if false, ``groups`` if any."""
        content = self.model_dump(mode="json", by_alias=True)
        if self.model.verified:
            del content["model"]["verified"]
        if not self.groups:
            del content["groups"]
        return content


@dataclass(frozen=True)
class Row:
    """One result of an entry; ``newest`` is false if a later run of the model replaces it."""

    entry: Entry
    result: EntryResult
    newest: bool


@dataclass(frozen=True)
class GroupRow:
    """The scores of a group in an entry; ``newest`` as for ``Row``."""

    entry: Entry
    result: EntryGroup
    newest: bool


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Every result. Of several with the same model and configuration, the last run is newest."""
    last = _last(entries)
    return [
        Row(entry, result, last[entry.model.name, *result.configuration] is entry)
        for entry in entries
        for result in entry.results
    ]


def group_rows(entries: Sequence[Entry]) -> list[GroupRow]:
    """The scores of every group, as ``rows``."""
    last = _last(entries)
    return [
        GroupRow(entry, result, last[entry.model.name, *result.configuration] is entry)
        for entry in entries
        for result in entry.groups
    ]


def _last(entries: Sequence[Entry]) -> dict[tuple[str, ...], Entry]:
    """The entry of the last run, by model and configuration."""
    last: dict[tuple[str, ...], Entry] = {}
    for entry in sorted(entries, key=_age):
        for result in entry.all_results:
            last[entry.model.name, *result.configuration] = entry
    return last


def _age(entry: Entry) -> tuple[datetime, str]:
    return datetime.fromisoformat(entry.run.finished), entry.run.identity_sha256


# --- files ----------------------------------------------------------------------------------------


def results_folder() -> Path:
    """The folder for new entries: in the checkout, else in the working directory."""
    top = paths.bundled()
    return Path("leaderboard/results") if top.name == "_data" else top / "leaderboard" / "results"


def results_folders() -> list[Path]:
    """The folders with entries: that of the installed package, and ``results_folder``."""
    folders = [paths.bundled() / "leaderboard" / "results", results_folder()]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def load_entries(folders: Iterable[Path], registry: Registry) -> list[Entry]:
    """Read all entries in some folders, sorted by file name.

    Raises:
        InputError: lists all invalid files, with the field, the value found and what is allowed.
    """
    files = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError("there is no such folder", where=folder)
        files += sorted(folder.glob("*.json"))
    return read_entries(files, registry)


def read_entries(files: Iterable[Path], registry: Registry) -> list[Entry]:
    """Read entries from some files; raises as ``load_entries`` does."""
    found: dict[str, Entry] = {}
    problems = []
    for path in files:
        try:
            entry = read_entry(path)
            check_known(entry, registry, path)
        except InputError as error:
            problems.append(error)
        else:
            same = found.setdefault(path.name, entry)  # package and checkout may both have it
            if same != entry:
                message = "an entry of the same name in another folder has different content"
                problems.append(InputError(message, where=path))
    raise_all(problems)
    return [found[name] for name in sorted(found)]


def read_entry(path: Path) -> Entry:
    """Read one entry.

    Raises:
        InputError: not an entry, or the file name does not match the content.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"too large: an entry has at most {MAX_BYTES} bytes", where=path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from None
    data = read_json(path)
    entry = entry_of(data, path)
    if path.name != entry.file_name:
        raise InputError(
            f"the file name does not match the content: it must be {entry.file_name}", where=path
        )
    return entry


def entry_of(data: Any, path: Path) -> Entry:
    """Make an entry from plain data that was read from ``path``.

    Raises:
        InputError: every violation, with its field.
    """
    if not isinstance(data, dict):
        raise InputError("expected a JSON object", where=path)
    return parse(Entry, YamlFile(path, data))


def check_known(entry: Entry, registry: Registry, where: Path) -> None:
    """Refuse unknown tasks, versions, protocols and metrics.

    Results for an earlier version of a task are accepted, since they state their version.
    """
    known = registry.names("task")
    specs: dict[str, TaskSpec] = {}
    for number, result in enumerate(entry.results):
        at = f"{where}: results.{number}"
        if result.task not in known:
            raise InputError(f"unknown task {result.task!r}{suggest(result.task, known)}", where=at)
        spec = specs.get(result.task) or registry.task(result.task)
        specs[result.task] = spec
        if result.task_version > spec.version:
            raise InputError(
                f"task {result.task} has no version {result.task_version}; the current version is "
                f"{spec.version}",
                where=at,
            )
        if result.task_version < spec.version:
            continue
        if result.protocol not in spec.protocols.declared:
            raise InputError(
                f"task {result.task} does not declare the protocol {result.protocol!r}",
                where=at,
                hint=f"Declared protocols: {listing(spec.protocols.declared)}",
            )
        if not PROTOCOLS.get(result.protocol).uses_prompt:
            if result.command != "none":
                message = f"protocol {result.protocol} uses no command, got {result.command!r}"
                raise InputError(message, where=f"{at}.command", hint="Set it to `none`.")
            if entry.model.family == "mllm":
                message = f"mllm models cannot be evaluated under protocol {result.protocol}"
                raise InputError(message, where=f"{where}: model.family")
        if set(result.metrics) != set(spec.metrics) or result.primary_metric != spec.primary_metric:
            raise InputError(
                f"the metrics do not match task {result.task}",
                where=at,
                hint=f"Expected: {listing(spec.metrics)}; primary: {spec.primary_metric}",
            )
    for number, group in enumerate(entry.groups):
        current = all(each.task_version == specs[each.task].version for each in entry.results)
        _check_group(group, entry.results, registry, f"{where}: groups.{number}", current)


def _check_group(
    entry: EntryGroup, results: Sequence[EntryResult], registry: Registry, at: str, current: bool
) -> None:
    """Refuse an unknown group, and scores that do not follow from the results of its tasks.

    Args:
        current: whether all tasks have their current version.
    """
    known = registry.names("group")
    if entry.group not in known:
        raise InputError(f"unknown group {entry.group!r}{suggest(entry.group, known)}", where=at)
    group = tree(entry.group, registry.group_specs([entry.group]))
    if entry.group_version > group.spec.version:
        raise InputError(
            f"group {entry.group} has no version {entry.group_version}; the current version is "
            f"{group.spec.version}",
            where=at,
        )
    if entry.group_version < group.spec.version or not current:
        return
    scores = {each.name: each for each in group.spec.aggregates}
    described = {name: (each.of, each.how) for name, each in entry.aggregates.items()}
    expected = {name: (each.metrics, each.how) for name, each in scores.items()}
    if (set(entry.members), entry.headline, described) != (
        set(group.tasks),
        group.spec.aggregates[0].name,
        expected,
    ):
        raise InputError(
            f"the tasks or scores do not match group {entry.group}",
            where=at,
            hint=f"Expected tasks: {listing(group.tasks)}; scores: {listing(scores)} "
            f"({group.spec.at('aggregates')}).",
        )
    for name, score in entry.aggregates.items():
        value = _value(group, scores[name], entry.of(results))
        same = value == score.value
        if value is not None and score.value is not None:
            same = math.isclose(value, score.value, abs_tol=ROUNDING)
        if not same:
            raise InputError(
                f"{name} is {score.value}, but the results of its tasks give {value}",
                where=f"{at}.aggregates",
            )


def _value(group: Group, score: Aggregate, results: Mapping[str, EntryResult]) -> float | None:
    """A score, from the results of its tasks."""
    found = {task: [each.metrics[m] for m in score.metrics] for task, each in results.items()}
    values = {task: [each.value for each in own] for task, own in found.items()}
    if any(value is None for own in values.values() for value in own):
        return None
    weights = group.weights(score, {task: own[0].n for task, own in found.items()})
    return math.fsum(weights[task] * (value or 0) for task in values for value in values[task])


def check_folder(folder: Path) -> None:
    """Refuse files and folders that do not belong in the results folder."""
    others = [
        path
        for path in sorted(folder.iterdir())
        if path.name not in OTHER_FILES and (path.suffix != ".json" or not path.is_file())
    ]
    raise_all(
        [
            InputError(f"only entries (*.json) and {listing(OTHER_FILES)} belong here", where=path)
            for path in others
        ]
    )


def raise_all(problems: Sequence[InputError]) -> None:
    """Raise one error for all problems; a hint that several share is given once, after the last."""
    by_hint: dict[str | None, list[str]] = {}
    for problem in problems:
        text = f"{problem.where}: {problem.message}" if problem.where else problem.message
        by_hint.setdefault(problem.hint, []).append(text)
    if by_hint:
        parts = [
            "\n".join([*dict.fromkeys(texts), *([hint] if hint else [])])
            for hint, texts in by_hint.items()
        ]
        raise InputError("\n".join(parts))


def dump(entry: Entry) -> str:
    return to_json(entry.plain(), indent=1, allow_nan=False) + "\n"
