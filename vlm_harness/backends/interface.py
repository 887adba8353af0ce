"""What a loaded model must provide (``Backend``), and one Protocol per optional ability.

The evaluator checks for an ability with ``isinstance``. No method is looked up by name, so a type
checker can verify that a backend implements what it claims.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from vlm_harness.errors import InputError
from vlm_harness.images import ImageLoader
from vlm_harness.types import Cell, Model, Request, Response

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PROMPTS_PER_ROW = 32
"""Maximum number of requests per row of a batch, for backends whose requests share rows."""


@dataclass(frozen=True)
class LoadOptions:
    """Loading options of a run, the same for all models."""

    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    data_dir: Path = Path()


@dataclass(frozen=True)
class Question:
    """What a run asks about a sample."""

    request: Request
    question: str
    """The question alone, without options and command."""
    reordered: bool
    """Whether the prompt shows the options in another order than that of the task."""


@dataclass(frozen=True)
class Asked:
    """What a run asks a model in one cell."""

    cell: Cell
    questions: Sequence[Question]


def check_device(name: str) -> None:
    """Raise an InputError if ``name`` is not written like a device (without importing torch)."""
    if not re.fullmatch(r"(cpu|mps|cuda|xpu)(:\d+)?", name):
        raise InputError(
            f"{name!r} is not a device; use cpu, cuda, cuda:1 or mps", where="--device"
        )


@runtime_checkable
class Backend(Protocol):
    """A loaded model."""

    def info(self) -> Model:
        """The model's description, which is written to the manifest."""
        ...

    def respond(
        self, requests: Sequence[Request], loader: ImageLoader, /
    ) -> Sequence[Response | None]:
        """One response per request, in order.

        Args:
            requests: all of one kind and, for ``generate``, of one decoding and length. Requests
                that share a prefix are adjacent.
            loader: reads and decodes images on demand.

        Returns:
            A ``Response`` per request; its ``error`` is set if the request failed. ``None`` if no
            answer was recorded for the request.
        """
        ...


@runtime_checkable
class SharesRows(Protocol):
    """Processes several requests as one row of a batch, such as all questions about an image."""

    def row_of(self, request: Request, /) -> Hashable:
        """Equal for requests that share a row; a row has up to ``MAX_PROMPTS_PER_ROW`` requests."""
        ...


@runtime_checkable
class PreprocessesImages(Protocol):
    """Preprocesses single images; the image-loading threads call it while prefetching."""

    def preprocess(self, image: "Image", /) -> Any:
        """Turn an RGB image into ``LoadedImage.prepared``, any object. Called in threads."""
        ...


@runtime_checkable
class PreparesBatches(Protocol):
    """Prepares the inputs of the next batch in a thread while the model runs the current one."""

    def prepare(self, requests: Sequence[Request], loader: ImageLoader, /) -> Any:
        """Prepare the argument of ``respond_to`` for these requests."""
        ...

    def respond_to(self, prepared: Any, /) -> Sequence[Response | None]:
        """Like ``respond``, but takes the result of ``prepare``."""
        ...


class KnownValues(Protocol):
    """Cached values that a model computed in earlier runs (``--cache``)."""

    def key(self, *parts: Any) -> bytes: ...

    def get(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]: ...

    def put(self, entries: Mapping[bytes, bytes], /) -> None: ...


@runtime_checkable
class RecallsValues(Protocol):
    """Caches parts of its responses, such as embeddings, under ``--cache``.

    For backends without this ability, complete responses are cached.
    """

    def recall(
        self, known: KnownValues, requests: Sequence[Request], loader: ImageLoader, /
    ) -> None:
        """Load what earlier runs cached for these requests, and cache new values from now on."""
        ...


class PromptFormat(Protocol):
    """A model's own format around the user's turn, and its tokens. Needs no weights."""

    tokenizer: Any

    def text(self, request: Request, /) -> str:
        """The complete prompt, with a placeholder for each image of the request."""
        ...

    def inputs(self, texts: Sequence[str], images: "Sequence[Sequence[Image]]", /) -> Any:
        """The model's inputs; ``input_ids`` holds the tokens, [prompts, length]."""
        ...

    def answer_tokens(
        self, text: str, answers: Sequence[str], prompt_ids: Sequence[int], /
    ) -> list[list[int]]:
        """The tokens of each answer as it follows the prompt, without EOS."""
        ...
