"""What a run folder must hold to be read again: manifest and log lines, checked as they are read.

A log may have been cut by a crash, edited by hand, or written by another program; what is computed
from it should fail with the line's number, not somewhere within a metric.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA = 1


class _Read(BaseModel):
    """Fields that are read; others may stand beside them."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Response(_Read):
    text: str | None = None
    scores: list[float | None] | None = None
    sum_logprobs: list[float | None] | None = None


class _Image(_Read):
    path: str
    sha256: str | None


class _Line(_Read):
    schema_: Literal[1] = Field(alias="schema")
    model: str
    task: str
    protocol: str
    command: str
    order_mode: str
    decoding: str
    image_mode: str
    labels: str
    sample_id: str
    pair: str | None
    set: str | None
    category: str | None
    options: list[str] = Field(min_length=1)
    shown: list[str]
    order: list[int]
    order_index: int
    target: int
    target_original: int
    prediction: int | None
    correct: bool
    tied: bool
    status: Literal["ok", "unparsed", "error"]
    error: str | None
    pair_cosine: float | None
    images: list[_Image] | None = None
    response: _Response

    @model_validator(mode="after")
    def _fits(self) -> "_Line":
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


class _Variant(_Read):
    model: str
    task: str
    protocol: str
    command: str
    order: str
    decoding: str
    image_mode: str
    labels: str


class _Expected(_Variant):
    n_lines: int
    n_available: int
    n_pairs: int
    n_sets: int


class _Spec(_Read):
    task: str
    version: int


class _Task(_Read):
    spec: _Spec
    data: dict[str, Any]
    overlay: dict[str, Any] | None


class _Cell(_Read):
    variant: _Variant


class _Identity(_Read):
    models: dict[str, dict[str, Any]] = {}
    checkpoints: dict[str, str | None] = {}
    cells: list[_Cell] = []
    tasks: dict[str, _Task]
    seed: int
    limit: int | None


class _Config(_Read):
    labels: Literal["corrected", "original"]


class _Model(_Read):
    checkpoint: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    parameters: int | None = None


class _Environment(_Read):
    platform: str | None = None
    cpu_count: int | None = None
    git_commit: str | None = None
    packages: dict[str, str] = {}
    gpus: list[str] = []


class _Manifest(_Read):
    schema_: Literal[1] = Field(alias="schema")
    identity_sha256: str
    identity: _Identity
    expected: list[_Expected]
    models: dict[str, _Model] = {}
    environment: _Environment = _Environment()
    command_line: str = ""
    started: str | None = None
    finished: str | None = None
    config: _Config
    logs: dict[str, str] | None = None


class _Metric(_Read):
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    chance: float | None


class _Group(_Read):
    n: int
    n_incomplete: int


class _Row(_Variant):
    task_version: int
    limit: int | None
    primary_metric: str
    metrics: dict[str, _Metric]
    categories: dict[str, dict[str, _Metric]]
    n_samples: int
    n_expected: int
    n_incomplete: int
    groups: dict[str, _Group]
    n_unparsed: int
    n_errors: int
    n_tied: int
    complete: bool

    @model_validator(mode="after")
    def _fits(self) -> "_Row":
        for metrics in (self.metrics, *self.categories.values()):
            if self.primary_metric not in metrics:
                raise ValueError(f"primary_metric {self.primary_metric!r} is not one of metrics")
        return self


class _Results(_Read):
    results: list[_Row]


def check_results(results: Any) -> None:
    """
    Raises:
        ValueError: they are not those of a run, with the field and why.
    """
    _check(_Results, results)


def check_line(line: Any) -> None:
    """
    Raises:
        ValueError: the line cannot be read, with the field and why.
    """
    _check(_Line, line)


def check_manifest(manifest: Any) -> None:
    """
    Raises:
        ValueError: it is not that of a run, with the field and why.
    """
    _check(_Manifest, manifest)


def _check(schema: type[_Read], data: Any) -> None:
    try:
        schema.model_validate(data)
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(map(str, detail["loc"]))
        reason = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "missing":
            reason = f"there is no {field!r}"
        elif field:
            reason = f"{field}: {reason[0].lower()}{reason[1:]}"
        raise ValueError(reason) from None
