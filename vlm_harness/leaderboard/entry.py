"""A submitted result: one small JSON file a (run, model), as ``leaderboard/results/`` holds them.

Such a file comes from strangers and ends on a page: every value is bounded, text is plain, and an
unknown key is an error.
"""

from collections.abc import Iterable, Sequence
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
from vlm_harness.logs.lines import slug
from vlm_harness.metrics import METRICS
from vlm_harness.protocols.protocol import PROTOCOLS
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import MetricName, Name, Spec, TaskSpec
from vlm_harness.specs.validation import parse
from vlm_harness.specs.yamlfile import YamlFile
from vlm_harness.types import GRID

MAX_BYTES = 2**20
"""Of a file: a run of all tasks under all protocols is a fifth of it."""
ROUNDING = 1e-6
"""By which a mean of cosines in float32 may be above one."""
ASKED_BY = tuple(name for name in GRID if name != "model")
"""Fields of a result that tell it from other results of its model."""
BESIDE = ("README.md",)
"""Files of the results folder that are no entries."""


def _misfit(text: str) -> PydanticCustomError:
    return PydanticCustomError("misfit", "{message}", {"message": text})


def _plain(text: str) -> str:
    if "\n" in text or "\t" in text or printable(text) != text:
        raise _misfit("must be one line of plain text, without control characters")
    return text


def check_url(text: str) -> str:
    """
    Raises:
        PydanticCustomError: no address of a web page.
    """
    try:
        parts = urlsplit(_plain(text))
        fits = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        )
    except ValueError:
        fits = False
    if not fits or any(mark in text for mark in " \"'<>\\`{}|^"):
        raise _misfit("must be the address of a page: https://... (or http://...)")
    return text


def _time(text: str) -> str:
    try:
        known = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise _misfit("must be a time with its zone, as in 2025-01-31T12:00:00+00:00")
    if datetime.fromisoformat(text) > datetime.now(UTC) + timedelta(days=1):
        raise _misfit("must be a time that has been")
    return text


Text = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_plain)]
Url = Annotated[str, Field(max_length=500), AfterValidator(check_url)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class EntryModel(Spec):
    """The model that was run."""

    name: Name
    backend: Name = Field(description="`replay`: answers that were recorded elsewhere")
    checkpoint: Text = Field(description="hub name or architecture:tag; of a local one its folder")
    revision: Text | None
    parameters: Annotated[int, Field(ge=0, le=10**14)] | None
    dtype: Text | None
    encoder: Text | None = Field(description="what sees the image: models that share one say so")
    family: Literal["dual encoder", "mllm", "other"]


class EntryRun(Spec):
    """The run that it is from."""

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
            raise _misfit("command_line holds control characters")
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
            raise _misfit("an interval is a value with both ends, or neither end")
        if value is None or low is None or high is None:
            return self
        if not low - 1e-9 <= value <= high + 1e-9:
            raise _misfit(f"the value {value} lies outside its interval, {low} to {high}")
        return self


class EntryResult(Spec):
    """One row of the run's ``results.json``, complete."""

    task: Name
    task_version: int = Field(ge=1, le=10**6)
    protocol: Name
    command: Name
    order: Literal["fixed", "both", "cyclic", "random"]
    decoding: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=,+-]*$", max_length=200)
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
            raise _misfit(f"primary_metric {self.primary_metric!r} is not one of metrics")
        for name, metric in self.metrics.items():
            low, high = METRICS.declared(name).range
            for key in ("value", "ci_low", "ci_high", "chance"):
                number = getattr(metric, key)
                if number is not None and not low - ROUNDING <= number <= high + ROUNDING:
                    raise _misfit(
                        f"metrics.{name}.{key} is {number:g}, and must be {low:g} to {high:g}"
                    )
            if metric.n > self.n_samples:
                raise _misfit(f"metrics.{name}.n is {metric.n}, of {self.n_samples} n_samples")
        for part, whole in (
            ("n_incomplete", "n_groups"), ("n_unparsed", "n_samples"), ("n_tied", "n_samples"),
        ):  # fmt: skip
            if getattr(self, part) > getattr(self, whole):
                raise _misfit(f"{part} is {getattr(self, part)}, of {getattr(self, whole)} {whole}")
        return self

    @property
    def asked(self) -> tuple[str, ...]:
        """What tells it from other results of its model."""
        return tuple(getattr(self, name) for name in ASKED_BY)

    @property
    def primary(self) -> EntryMetric:
        return self.metrics[self.primary_metric]


class Entry(Spec):
    """All results of one model in one run."""

    schema_: Literal[1] = Field(alias="schema")
    model: EntryModel
    run: EntryRun
    results: list[EntryResult] = Field(min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _distinct(self) -> "Entry":
        seen = set()
        for result in self.results:
            if result.asked in seen:
                raise _misfit(f"two results are of {' / '.join(result.asked)}")
            seen.add(result.asked)
        return self

    @property
    def file_name(self) -> str:
        return f"{slug(self.model.name)}__{self.run.identity_sha256[:10]}.json"

    def plain(self) -> dict[str, Any]:
        """As the file has it."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True)
class Row:
    """One result of an entry, and whether a later run of the same model says it anew."""

    entry: Entry
    result: EntryResult
    newest: bool


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Every result. Of several of one model, asked in one way, the one last finished is newest."""
    last: dict[tuple[str, ...], Entry] = {}
    for entry in sorted(entries, key=_age):
        for result in entry.results:
            last[entry.model.name, *result.asked] = entry
    return [
        Row(entry, result, last[entry.model.name, *result.asked] is entry)
        for entry in entries
        for result in entry.results
    ]


def _age(entry: Entry) -> tuple[datetime, str]:
    return datetime.fromisoformat(entry.run.finished), entry.run.identity_sha256


# --- files ----------------------------------------------------------------------------------------


def results_folder() -> Path:
    """Where entries go: of the checkout, or of the working directory where there is none."""
    top = paths.bundled()
    return Path("leaderboard/results") if top.name == "_data" else top / "leaderboard" / "results"


def results_folders() -> list[Path]:
    """Where entries are read from: what the wheel brought, and ``results_folder``."""
    folders = [paths.bundled() / "leaderboard" / "results", results_folder()]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def load_entries(folders: Iterable[Path], registry: Registry) -> list[Entry]:
    """All entries below some folders, by file name.

    Raises:
        InputError: every file that is no entry, with file and field, what was seen and what is
            allowed.
    """
    files = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError("there is no such folder", where=folder)
        files += sorted(folder.glob("*.json"))
    return read_entries(files, registry)


def read_entries(files: Iterable[Path], registry: Registry) -> list[Entry]:
    """Entries of some files; raises as ``load_entries`` does."""
    found: dict[str, Entry] = {}
    problems = []
    for path in files:
        try:
            entry = read_entry(path)
            check_known(entry, registry, path)
        except InputError as error:
            problems.append(error)
        else:
            same = found.setdefault(path.name, entry)  # the wheel's own may be in a checkout too
            if same != entry:
                message = "another entry of this name, in another folder, holds something else"
                problems.append(InputError(message, where=path))
    raise_all(problems)
    return [found[name] for name in sorted(found)]


def read_entry(path: Path) -> Entry:
    """
    Raises:
        InputError: no entry, or one that is not called what it holds.
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
            f"its name does not fit what it holds: it must be {entry.file_name}", where=path
        )
    return entry


def entry_of(data: Any, path: Path) -> Entry:
    """An entry from plain data, of which ``path`` is where it was found.

    Raises:
        InputError: every violation, with its field.
    """
    if not isinstance(data, dict):
        raise InputError("expected a JSON object", where=path)
    return parse(Entry, YamlFile(path, data))


def check_known(entry: Entry, registry: Registry, where: Path) -> None:
    """Refuse tasks, versions, protocols and metrics that there are not.

    An earlier version of a task is none of those: its result was right once, and says so.
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
                f"task {result.task} has no version {result.task_version}; it is {spec.version}",
                where=at,
            )
        if result.task_version < spec.version:
            continue
        if result.protocol not in spec.protocols.declared:
            raise InputError(
                f"task {result.task} does not declare the protocol {result.protocol!r}",
                where=at,
                hint=f"It declares: {listing(spec.protocols.declared)}",
            )
        if not PROTOCOLS.get(result.protocol).uses_prompt:
            if result.command != "none":
                message = f"under {result.protocol} no command is asked, and here is one"
                raise InputError(message, where=f"{at}.command", hint="It is `none` then.")
            if entry.model.family == "mllm":
                message = f"under {result.protocol} no mllm answers"
                raise InputError(message, where=f"{where}: model.family")
        if set(result.metrics) != set(spec.metrics) or result.primary_metric != spec.primary_metric:
            raise InputError(
                f"the metrics are not those of task {result.task}",
                where=at,
                hint=f"It has: {listing(spec.metrics)}; primary: {spec.primary_metric}",
            )


def check_folder(folder: Path) -> None:
    """Refuse what is no entry and does not belong beside entries."""
    strangers = [
        path
        for path in sorted(folder.iterdir())
        if path.name not in BESIDE and (path.suffix != ".json" or not path.is_file())
    ]
    raise_all(
        [
            InputError(f"only entries (*.json) and {listing(BESIDE)} belong here", where=path)
            for path in strangers
        ]
    )


def raise_all(problems: Sequence[InputError]) -> None:
    """One error for all of them; what helps against several is said once, after the last."""
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
