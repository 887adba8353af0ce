"""The core types, on one page: what flows from a task file to a line in the log, and back.

    Sample -> Prompt -> Request -> (backend) -> Response -> Outcome -> LogLine -> ResultRow

All are frozen, none needs torch. Indexes into options are in canonical order (the order of the
task) unless a name says ``shown``. What is read back from a run folder is checked by its type, and
keeps fields that are not known here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ImageMode = Literal["normal", "none", "swapped"]
Status = Literal["ok", "unparsed", "error"]
Kind = Literal["similarity", "score", "generate"]
Labels = Literal["corrected", "original"]
"""Whether published label corrections are applied."""
"""What a backend is asked for; a protocol needs exactly one of them."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that has not been read yet: where it comes from, and how to get its bytes."""

    path: str
    """As logged: relative to the data directory, or ``dataset#row/column``."""
    read: Callable[[], bytes] = field(compare=False, repr=False)
    exists: Callable[[], bool] = field(compare=False, repr=False, default=lambda: True)
    size: Callable[[], int | None] = field(compare=False, repr=False, default=lambda: None)
    """Of the file in bytes, where it is cheap to know."""
    upright: bool = False
    """Whether it is turned as its EXIF orientation says before anything sees it."""

    def pixels(self, sha256: str) -> str:
        """What names the pixels, of a file of this checksum."""
        return f"{sha256} upright" if self.upright else sha256


def cluster(sample_id: str, pair: str | None, set: str | None) -> str:
    """The largest unit that is scored together: the set, else the pair, else the sample."""
    if set is not None:
        return f"set {set}"
    return f"sample {sample_id}" if pair is None else f"pair {pair}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One question on one image (or a few, in order), its options, the index of the right one."""

    id: str
    images: tuple[ImageRef, ...]
    options: tuple[str, ...]
    target: int
    target_original: int
    """The label as published, before any overlay; equal to ``target`` where none applies."""
    captions: tuple[str, ...] | None = None
    pair: str | None = None
    set: str | None = None
    category: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The task's fields and the row's columns, for prompts and for joining recorded answers."""

    @property
    def group(self) -> str:
        """What statistics and limits never split."""
        return cluster(self.id, self.pair, self.set)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked in words: the user's turn, before the model's own format goes around it."""

    text: str
    order: tuple[int, ...]
    """``order[p]`` is the canonical index of the option shown at position ``p``."""
    shown: tuple[str, ...]
    """The options as the prompt shows them (with letters where the template adds them)."""
    command: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call on a backend. Requests with equal ``images`` and ``prompt`` share a prefix."""

    kind: Kind
    images: tuple[ImageRef, ...]
    prompt: str = ""
    """The user's turn. Unused by ``similarity``."""
    candidates: tuple[str, ...] = ()
    """Captions (similarity) or answers (score), in canonical order."""
    max_new_tokens: int = 0
    decoding: str = "greedy"
    order: tuple[int, ...] = ()
    """Canonical index of the option shown at each position."""
    sample: Sample | None = field(default=None, compare=False, repr=False)
    """For backends that look answers up instead of computing them."""
    partner: ImageRef | None = None
    """The other image of the pair: similarity logs the cosine of the two embeddings."""

    @property
    def all_images(self) -> tuple[ImageRef, ...]:
        """All images that the response depends on."""
        if self.kind == "similarity" and self.partner is not None:
            return (*self.images, self.partner)
        return self.images


@dataclass(frozen=True, slots=True)
class OptionScore:
    """How well one candidate fits: higher is better.

    ``score`` is a cosine, or the mean log-probability (natural log) of the candidate's tokens;
    ``sum_logprob`` and ``n_tokens`` (EOS included) stand beside it for the latter.
    """

    score: float
    sum_logprob: float | None = None
    n_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What a backend gave back for one request: text, or one score a candidate, or an error."""

    text: str | None = None
    scores: tuple[OptionScore, ...] | None = None
    pair_cosine: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A response turned into an answer. A failure is a value here, never a guess."""

    status: Status
    prediction: int | None = None
    tied: bool = False
    detail: str | None = None
    """What decided: the extractor and what it matched, or why nothing was."""

    def verdict(self, target: int) -> dict[str, Any]:
        """The fields of a log line that follow from an outcome and a label."""
        failed = self.status == "error"
        return {
            "prediction": self.prediction,
            "tied": self.tied,
            "extraction": None if failed else self.detail,
            "target": target,
            "correct": self.status == "ok" and self.prediction == target,
            "status": self.status,
            "error": self.detail if failed else None,
        }


@dataclass(frozen=True, slots=True)
class Model:
    """What a backend tells of itself once loaded; goes into the manifest."""

    name: str
    backend: str
    checkpoint: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    parameters: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


# --- what a run folder holds ----------------------------------------------------------------------


class Recorded(BaseModel):
    """Base of what is read from a run folder: frozen and strict. Unknown fields are kept."""

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, populate_by_name=True, protected_namespaces=(),
        defer_build=True,
    )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, unknown fields included."""
        return self.model_dump(by_alias=True)

    def __getitem__(self, name: str) -> Any:
        """A field by the name that it has in JSON, unknown ones included."""
        for attribute, each in type(self).model_fields.items():
            if name == (each.alias or attribute):
                return getattr(self, attribute)
        return (self.model_extra or {})[name]


@dataclass(frozen=True)
class Setting:
    """One way in which the models of a run can be asked or scored, as people are told of it."""

    usual: str
    """The value that goes without saying."""
    words: str = ""
    """Before a value that does not say itself what it is of: ``images none``."""
    absent: str | None = None
    """The value where a protocol has no such setting."""
    asks: bool = True
    """False for what concerns scoring alone."""


class GridFields(Recorded):
    """What names a cell of the grid: a model on a task, under a protocol and settings.

    This is the one list of these fields. Log lines, rows of results and the manifest have them, and
    all that tells cells apart goes over ``GRID`` and ``SETTINGS``. A field with a default is left
    out of JSON where it has that value, so that a field that is added later leaves older logs as
    they are.
    """

    model: str
    task: str
    protocol: str
    command: Annotated[str, Setting("default", "command ", absent="none")]
    order_mode: Annotated[str, Setting("fixed", "order "), Field(alias="order")]
    decoding: Annotated[str, Setting("greedy", absent="none")]
    image_mode: Annotated[str, Setting("normal", "images ")]
    labels: Annotated[str, Setting("corrected", "labels ", asks=False)]

    @property
    def fields(self) -> dict[str, Any]:
        """These fields by attribute."""
        return {name: getattr(self, name) for name in GRID.values()}

    @property
    def grid(self) -> dict[str, Any]:
        """These fields by the names that they have in JSON, tables and options."""
        return {name: getattr(self, attribute) for name, attribute in GRID.items()}

    @property
    def cell(self) -> "Cell":
        return Cell.model_construct(**self.fields)

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        for name, default in DEFAULTS.items():
            if found[name] == default:
                del found[name]
        return found


GRID = {each.alias or name: name for name, each in GridFields.model_fields.items()}
"""Attribute by name in JSON, tables and options."""
DEFAULTS = {
    each.alias or name: each.default
    for name, each in GridFields.model_fields.items()
    if not each.is_required()
}
SETTINGS: Mapping[str, Setting] = {
    each.alias or name: setting
    for name, each in GridFields.model_fields.items()
    for setting in each.metadata
    if isinstance(setting, Setting)
}
"""By name, in order: what beside model, task and protocol tells cells apart."""
ASKED = tuple(name for name, setting in SETTINGS.items() if setting.asks)
"""Settings that a model is asked under."""


class Cell(GridFields):
    """One cell of the grid. Hashable, to be a key."""

    def replace(self, **changes: Any) -> "Cell":
        """The same but for some fields."""
        return self.model_copy(update=changes)

    def __hash__(self) -> int:
        return hash(_key(self))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Cell) and _key(self) == _key(other))


_key = attrgetter(*GRID.values())


class ImageRecord(Recorded):
    path: str
    sha256: str | None
    """Of the file as it was shown; None where the backend read none."""


class AnswerRecord(Recorded):
    """What of a response is logged: text, or one number per option, in canonical order."""

    text: str | None = None
    scores: list[float | None] | None = None
    """Cosines, or mean log-probabilities; higher is better. None for what was no finite number."""
    sum_logprobs: list[float | None] | None = None
    n_tokens: list[int | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class LogLine(GridFields):
    """One sample, asked in one way, and what was answered: enough to score it again."""

    schema_: Literal[1] = Field(1, alias="schema")
    task_version: int | None = None
    sample_id: str
    pair: str | None
    set: str | None
    category: str | None
    images: list[ImageRecord] | None = None
    prompt: str | None = None
    options: list[str] = Field(min_length=1)
    shown: list[str]
    """The options as the prompt showed them, in the order shown."""
    candidates: list[str] | None = None
    """What was scored, in canonical order."""
    order: list[int]
    """``order[p]`` is the canonical index of the option shown at position ``p``."""
    order_index: int
    """Which of its orders the sample was asked in; groups are scored within one."""
    order_mode: str
    response: AnswerRecord
    pair_cosine: float | None
    target_original: int
    prediction: int | None
    tied: bool
    extraction: str | None = None
    target: int
    correct: bool
    status: Status
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        found["response"] = self.response.to_dict()
        return {"schema": found.pop("schema"), **found}

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this line from all others of a run."""
        return line_key(self, self.sample_id, self.order)

    @property
    def cluster(self) -> str:
        return cluster(self.sample_id, self.pair, self.set)

    @model_validator(mode="after")
    def _fits(self) -> "LogLine":
        n = len(self.options)
        for name in ("target", "target_original", "prediction"):
            index = getattr(self, name)
            if index is not None and not 0 <= index < n:
                raise ValueError(f"{name} is {index}, and there are {n} options")
        if sorted(self.order) != list(range(n)):
            raise ValueError(f"order is {self.order}, and there are {n} options")
        for name in ("scores", "sum_logprobs"):
            values = getattr(self.response, name)
            if values is not None and len(values) != n:
                raise ValueError(f"response.{name} are {len(values)}, and there are {n} options")
        return self


def line_key(of: GridFields, sample_id: str, order: Sequence[int]) -> tuple[Any, ...]:
    """What tells a log line from all others of a run. The labels are not part of it: a line is
    scored under several.
    """
    settings = (getattr(of, attribute) for name, attribute in GRID.items() if name != "labels")
    return (*settings, sample_id, tuple(order))


class Estimate(Recorded):
    """A metric's value with its 95% interval and what a uniform guess would give."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    """Samples, pairs or sets that the value is over."""
    chance: float | None


class GroupCount(Recorded):
    """How many pairs or sets there are, and of how many a sample is missing."""

    n: int
    n_incomplete: int


class ResultRow(GridFields):
    """The scores of one cell of the grid: an entry of ``results.json``."""

    task_version: int
    limit: int | None
    seed: int = 0
    primary_metric: str
    metrics: dict[str, Estimate]
    categories: dict[str, dict[str, Estimate]]
    n_samples: int
    """Lines: a sample asked in two orders counts twice."""
    n_expected: int
    n_groups: int = 0
    n_incomplete: int
    groups: dict[str, GroupCount]
    """By kind: pair, set."""
    n_unparsed: int
    n_errors: int
    n_tied: int
    complete: bool

    @property
    def primary(self) -> Estimate:
        return self.metrics[self.primary_metric]

    @model_validator(mode="after")
    def _fits(self) -> "ResultRow":
        for metrics in (self.metrics, *self.categories.values()):
            if self.primary_metric not in metrics:
                raise ValueError(f"primary_metric {self.primary_metric!r} is not one of metrics")
        return self


class ExpectedCell(GridFields):
    """How many lines and groups a cell has when it is complete."""

    n_lines: int
    n_available: int
    """Samples of the task, before ``--limit`` and ``--samples``."""
    n_pairs: int
    n_sets: int


class RecordedSpec(Recorded):
    """A task's file with includes resolved; only what names it is checked here."""

    task: str
    version: int


class RecordedTask(Recorded):
    """A task as a run had it."""

    spec: RecordedSpec
    data: dict[str, Any]
    """Checksum by path."""
    overlay: dict[str, Any] | None


class AskedCell(Recorded):
    """A cell with the words that it was asked in."""

    cell: Cell = Field(alias="variant")
    question: str | None = None
    template: dict[str, Any] = {}
    command: str | None = None


class Identity(Recorded):
    """All that the scores of a run depend on."""

    models: dict[str, dict[str, Any]] = {}
    checkpoints: dict[str, str | None] = {}
    tasks: dict[str, RecordedTask]
    cells: list[AskedCell] = []
    seed: int
    limit: int | None
    samples: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        """Just what was recorded: the checksum is over it."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class RecordedModel(Recorded):
    """What a model said of itself once loaded."""

    backend: str | None = None
    checkpoint: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    parameters: int | None = None
    details: dict[str, Any] = {}


class Environment(Recorded):
    """Versions and hardware."""

    platform: str | None = None
    cpu_count: int | None = None
    git_commit: str | None = None
    packages: dict[str, str] = {}
    gpus: list[str] = []


class RecordedConfig(Recorded):
    """The options of a run."""

    labels: Labels
    include_path: list[str] = []
    batch_size: int | str | None = None


class Manifest(Recorded):
    """What a run was made from, and how: ``manifest.json``."""

    schema_: Literal[1] = Field(1, alias="schema")
    run_id: str | None = None
    vlm_harness: str | None = None
    """The version that wrote it."""
    identity_sha256: str
    identity: Identity
    expected: list[ExpectedCell]
    config: RecordedConfig
    command_line: str = ""
    started: str | None = None
    finished: str | None = None
    logs: dict[str, str] | None = None
    """SHA-256 by path in the folder, of a finished run."""
    models: dict[str, RecordedModel] = {}
    data_dir: str | None = None
    data_revision: dict[str, str] = {}
    environment: Environment = Environment()

    def to_dict(self) -> dict[str, Any]:
        """Just what was recorded."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
