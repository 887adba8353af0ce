"""The core types, on one page: what flows from a task file to a line in the log.

    Sample -> Prompt -> Request -> (backend) -> Response -> Outcome -> log line

All are frozen, none needs torch. Indexes into options are in canonical order (the order of the
task) unless a name says ``shown``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

ImageMode = Literal["normal", "none", "swapped"]
Status = Literal["ok", "unparsed", "error"]
Kind = Literal["similarity", "score", "generate"]
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


class Variant(NamedTuple):
    """The cell of the grid that a line belongs to, beside its sample."""

    model: str
    task: str
    protocol: str
    command: str
    order: str
    decoding: str
    image_mode: str
    labels: str

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Variant":
        """That of a row of results, or of the manifest: both have its fields by name."""
        return cls(*(fields[name] for name in cls._fields))


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
    def looked_at(self) -> tuple[ImageRef, ...]:
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
