"""The core types on one page: the data from a task file to a log line, and back.

    Sample -> Prompt -> Request -> (backend) -> Response -> Outcome -> LogLine -> ResultRow

All types are frozen and none needs torch. Option indices refer to the canonical order (the order in
the task file) unless a name contains ``shown``. Types that are read back from a run folder are
validated, and keep unknown fields.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ImageMode = Literal["normal", "none", "swapped"]
Status = Literal["ok", "unparsed", "error"]
Kind = Literal["similarity", "score", "generate"]
"""What a request asks a backend to compute; each protocol needs exactly one kind."""
Labels = Literal["corrected", "original"]
"""Whether published label corrections are applied."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that has not been read yet: its path, and a function that reads its bytes."""

    path: str
    """The path in the log: relative to the data directory, or ``dataset#row/column``."""
    read: Callable[[], bytes] = field(compare=False, repr=False)
    exists: Callable[[], bool] = field(compare=False, repr=False, default=lambda: True)
    size: Callable[[], int | None] = field(compare=False, repr=False, default=lambda: None)
    """File size in bytes; None if it is expensive to determine."""
    upright: bool = False
    """Whether the EXIF orientation is applied when the image is decoded."""

    def pixels(self, sha256: str) -> str:
        """Key for the decoded pixels of a file with this checksum."""
        return f"{sha256} upright" if self.upright else sha256


def cluster(sample_id: str, pair: str | None, set: str | None) -> str:
    """The largest unit that is scored together: the set, else the pair, else the sample."""
    if set is not None:
        return f"set {set}"
    return f"sample {sample_id}" if pair is None else f"pair {pair}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A question on one or more images, its options, and the index of the correct option."""

    id: str
    images: tuple[ImageRef, ...]
    options: tuple[str, ...]
    target: int
    target_original: int
    """The published label, before label corrections; equal to ``target`` if none applies."""
    captions: tuple[str, ...] | None = None
    pair: str | None = None
    set: str | None = None
    category: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields of the task and columns of the row, for prompts and for joining recorded answers."""

    @property
    def group(self) -> str:
        """The unit that statistics and ``--limit`` never split."""
        return cluster(self.id, self.pair, self.set)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text of the user's turn, before the model's prompt format is applied."""

    text: str
    order: tuple[int, ...]
    """``order[p]`` is the canonical index of the option shown at position ``p``."""
    shown: tuple[str, ...]
    """The options as the prompt shows them (with letters if the template adds them)."""
    command: str
    question: str = ""
    """The question alone, without options and command."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a backend. Requests with equal ``images`` and ``prompt`` share a prefix."""

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
    command: str = field(default="", compare=False)
    """Name of the command in the prompt; for backends that look up recorded answers."""
    sample: Sample | None = field(default=None, compare=False, repr=False)
    """For backends that look up recorded answers instead of computing them."""
    partner: ImageRef | None = None
    """The other image of the pair; ``similarity`` logs the pair cosine similarity."""

    @property
    def all_images(self) -> tuple[ImageRef, ...]:
        """All images that the response depends on."""
        if self.kind == "similarity" and self.partner is not None:
            return (*self.images, self.partner)
        return self.images


@dataclass(frozen=True, slots=True)
class OptionScore:
    """The score of one candidate; higher is better.

    ``score`` is a cosine similarity, or the mean log-probability (natural log) of the candidate's
    tokens. In the second case ``sum_logprob`` and ``n_tokens`` (EOS included) are set as well.
    """

    score: float
    sum_logprob: float | None = None
    n_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A backend's response to one request: text, one score per candidate, or an error."""

    text: str | None = None
    scores: tuple[OptionScore, ...] | None = None
    pair_cosine: float | None = None
    error: str | None = None
    finish_reason: str | None = None
    """``length`` if the text was cut at ``max_new_tokens``; ``stop`` or None if it ended itself."""
    over_limit: bool = False
    """Whether the prompt or a caption is longer than the model's limit.

    Dual encoders truncate captions there. A generative VLM gets the complete prompt, of which a
    part is beyond the context length it was made for.
    """


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer extracted from a response. A failure is a value, never a guess."""

    status: Status
    prediction: int | None = None
    tied: bool = False
    detail: str | None = None
    """The extractor and the text it matched, or the reason why there is no prediction."""

    def verdict(self, target: int) -> dict[str, Any]:
        """The fields of a log line that depend on the outcome and the label."""
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
    """Description of a loaded model, as written to the manifest."""

    name: str
    backend: str
    checkpoint: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    parameters: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What is needed to interpret the model's scores, such as weights that were not loaded."""

    def to_dict(self) -> dict[str, Any]:
        """The description as in the manifest; without ``notes`` if it has no notes."""
        found = asdict(self)
        if not self.notes:
            del found["notes"]
        return found


# --- contents of a run folder ---------------------------------------------------------------------


class Recorded(BaseModel):
    """Base class of data read from a run folder: frozen and strict. Unknown fields are kept."""

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, populate_by_name=True, protected_namespaces=(),
        defer_build=True,
    )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The data as in the JSON file, including unknown fields."""
        return self.model_dump(by_alias=True)

    def __getitem__(self, name: str) -> Any:
        """A field by its name in the JSON file, including unknown fields."""
        for attribute, each in type(self).model_fields.items():
            if name == (each.alias or attribute):
                return getattr(self, attribute)
        return (self.model_extra or {})[name]


@dataclass(frozen=True)
class Setting:
    """How one setting of a run (how models are prompted or scored) is displayed."""

    usual: str
    """The default value, which is not displayed."""
    words: str = ""
    """Prefix for values that are ambiguous by themselves, as in ``images none``."""
    absent: str | None = None
    """The value for protocols that do not have the setting."""
    asks: bool = True
    """Whether the setting changes what a model is asked; False if it only affects scoring."""


class GridFields(Recorded):
    """The fields that identify a cell of the grid: model, task, protocol and settings.

    This is the only list of these fields. Log lines, result rows and the manifest contain them, and
    all code that distinguishes cells iterates over ``GRID`` and ``SETTINGS``. A field that has its
    default value is omitted from JSON, so adding a field does not change older logs.
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
        """The grid fields by attribute name."""
        return {name: getattr(self, name) for name in GRID.values()}

    @property
    def grid(self) -> dict[str, Any]:
        """The grid fields by their name in JSON, tables and options."""
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
"""Attribute name by the name in JSON, tables and options."""
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
"""Settings by name, in order: the grid fields besides model, task and protocol."""
ASKED = tuple(name for name, setting in SETTINGS.items() if setting.asks)
"""Names of the settings that change what a model is asked."""


class Cell(GridFields):
    """One cell of the grid: a configuration of model, task, protocol and settings. Hashable."""

    def replace(self, **changes: Any) -> "Cell":
        """A copy with some fields changed."""
        return self.model_copy(update=changes)

    def __hash__(self) -> int:
        return hash(_key(self))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Cell) and _key(self) == _key(other))


_key = attrgetter(*GRID.values())


class ImageRecord(Recorded):
    path: str
    sha256: str | None
    """Checksum of the file that was shown; None if the backend did not read it."""


class AnswerRecord(Recorded):
    """The logged part of a response: text, or one number per option in canonical order."""

    text: str | None = None
    scores: list[float | None] | None = None
    """Cosine similarities or mean log-probabilities; higher is better. None if not finite."""
    sum_logprobs: list[float | None] | None = None
    n_tokens: list[int | None] | None = None
    finish_reason: str | None = None
    """``length``: the text was cut at ``max_new_tokens``. Left out if it ended itself."""
    over_limit: bool | None = None
    """True: the prompt or a caption is longer than the model's limit. Else left out."""

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class LogLine(GridFields):
    """One sample in one cell, with its answer. Contains everything needed to score it again."""

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
    """The texts that were scored, in canonical order."""
    order: list[int]
    """``order[p]`` is the canonical index of the option shown at position ``p``."""
    order_index: int
    """Index of the option order for this sample; groups are scored within one order."""
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
        """Unique key of the line within its run."""
        return line_key(self, self.sample_id, self.order)

    @property
    def cluster(self) -> str:
        return cluster(self.sample_id, self.pair, self.set)

    @model_validator(mode="after")
    def _check_options(self) -> "LogLine":
        n = len(self.options)
        for name in ("target", "target_original", "prediction"):
            index = getattr(self, name)
            if index is not None and not 0 <= index < n:
                raise ValueError(f"{name} is {index}, but there are {n} options")
        if sorted(self.order) != list(range(n)):
            raise ValueError(f"order is {self.order}, but there are {n} options")
        for name in ("scores", "sum_logprobs"):
            values = getattr(self.response, name)
            if values is not None and len(values) != n:
                raise ValueError(f"response.{name} has {len(values)} values for {n} options")
        return self


def line_key(of: GridFields, sample_id: str, order: Sequence[int]) -> tuple[Any, ...]:
    """Unique key of a log line within its run.

    The labels are not part of the key, since the same line can be scored under several labels.
    """
    settings = (getattr(of, attribute) for name, attribute in GRID.items() if name != "labels")
    return (*settings, sample_id, tuple(order))


class Estimate(Recorded):
    """A metric's value, its 95% confidence interval, and its chance level (uniform guessing)."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    """Number of samples, pairs or sets the value is computed over."""
    chance: float | None


class GroupCount(Recorded):
    """Number of pairs or sets, and how many of them lack a sample."""

    n: int
    n_incomplete: int


class ResultRow(GridFields):
    """The metrics of one cell of the grid: one entry of ``results.json``."""

    task_version: int
    limit: int | None
    seed: int = 0
    primary_metric: str
    metrics: dict[str, Estimate]
    categories: dict[str, dict[str, Estimate]]
    n_samples: int
    """Number of log lines: a sample shown in two orders counts twice."""
    n_expected: int
    n_groups: int = 0
    n_incomplete: int
    groups: dict[str, GroupCount]
    """Counts by kind: ``pair``, ``set``."""
    readings: dict[str, dict[str, Estimate]] = {}
    """Metrics under other readings of the texts, by name. Left out if the task declares none."""
    n_unparsed: int
    n_errors: int
    n_tied: int
    n_texts_cut: int = 0
    """Number of texts cut at ``max_new_tokens``. Left out if it is zero."""
    n_over_limit: int = 0
    """Number of prompts and captions longer than the model's limit. Left out if it is zero."""
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        for name in ("readings", "n_texts_cut", "n_over_limit"):
            if not found[name]:
                del found[name]
        return found

    @property
    def primary(self) -> Estimate:
        return self.metrics[self.primary_metric]

    @model_validator(mode="after")
    def _check_primary_metric(self) -> "ResultRow":
        for metrics in (self.metrics, *self.categories.values()):
            if self.primary_metric not in metrics:
                raise ValueError(f"primary_metric {self.primary_metric!r} is not one of metrics")
        return self


class ExpectedCell(GridFields):
    """Number of lines and groups of a complete cell."""

    n_lines: int
    n_available: int
    """Number of samples in the task, before ``--limit`` and ``--samples``."""
    n_pairs: int
    n_sets: int


class RecordedSpec(Recorded):
    """A task file with includes resolved; only its name and version are validated here."""

    task: str
    version: int


class RecordedTask(Recorded):
    """A task as it was when the run was started."""

    spec: RecordedSpec
    data: dict[str, Any]
    """Checksums by path."""
    overlay: dict[str, Any] | None


class RecordedCell(Recorded):
    """A cell with the text of its prompt."""

    cell: Cell = Field(alias="variant")
    question: str | None = None
    template: dict[str, Any] = {}
    command: str | None = None


class Identity(Recorded):
    """Everything that the scores of a run depend on."""

    models: dict[str, dict[str, Any]] = {}
    checkpoints: dict[str, str | None] = {}
    commits: dict[str, dict[str, str]] = {}
    """By model: the commit of each repository of the Hub for which no commit is given."""
    tasks: dict[str, RecordedTask]
    cells: list[RecordedCell] = []
    seed: int
    limit: int | None
    samples: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        """Only the recorded fields, which the checksum covers."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class RecordedModel(Recorded):
    """Description of a loaded model."""

    backend: str | None = None
    checkpoint: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    parameters: int | None = None
    details: dict[str, Any] = {}
    notes: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        if not self.notes:
            found.pop("notes", None)
        return found


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
    """Inputs, options and environment of a run: ``manifest.json``."""

    schema_: Literal[1] = Field(1, alias="schema")
    run_id: str | None = None
    vlm_harness: str | None = None
    """Version of vlm-harness that wrote the manifest."""
    identity_sha256: str
    identity: Identity
    expected: list[ExpectedCell]
    config: RecordedConfig
    command_line: str = ""
    started: str | None = None
    finished: str | None = None
    logs: dict[str, str] | None = None
    """SHA-256 of each sample log by its path in the run folder; None until the run finishes."""
    models: dict[str, RecordedModel] = {}
    data_dir: str | None = None
    data_revision: dict[str, str] = {}
    groups: list[dict[str, Any]] = []
    """Groups with scores of which the run has tasks. Optional."""
    environment: Environment = Environment()

    def to_dict(self) -> dict[str, Any]:
        """Only the recorded fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
