"""What a loaded model must provide (``Backend``), and what it may: one Protocol per ability.

The evaluator asks with ``isinstance`` whether a backend has an ability. No method is looked up by
name, so a type checker sees whether a backend has what it claims.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from vlm_harness.images import ImageLoader
from vlm_harness.types import Model, Request, Response

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTS_A_ROW = 32
"""Requests that one row of a batch has at most, where requests share rows."""


@dataclass(frozen=True)
class LoadOptions:
    """What the run asks of every model."""

    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    data_dir: Path = Path()


@runtime_checkable
class Backend(Protocol):
    """A loaded model."""

    def info(self) -> Model:
        """What the model says of itself; goes into the manifest."""
        ...

    def respond(
        self, requests: Sequence[Request], loader: ImageLoader, /
    ) -> Sequence[Response | None]:
        """One response per request, in order.

        Args:
            requests: of one kind and, for ``generate``, of one decoding and length. Requests that
                share a prefix are adjacent.
            loader: reads and decodes an image when asked for it.

        Returns:
            Responses. A request that failed has a ``Response`` with an error; one that no answer
            was recorded for has ``None``.
        """
        ...


@runtime_checkable
class SharesRows(Protocol):
    """Computes several requests as one row of a batch, such as all questions about an image."""

    def row_of(self, request: Request, /) -> Hashable:
        """Equal for requests that share a row. A row has at most ``PROMPTS_A_ROW`` of them."""
        ...


@runtime_checkable
class PreprocessesImages(Protocol):
    """Preprocesses single images, which the threads that read images then do ahead of need."""

    def preprocess(self, image: "Image", /) -> Any:
        """Any object made of an RGB image; becomes ``LoadedImage.prepared``. Called in threads."""
        ...


@runtime_checkable
class PreparesBatches(Protocol):
    """Makes the inputs of the next batch in a thread while the model computes the current one."""

    def prepare(self, requests: Sequence[Request], loader: ImageLoader, /) -> Any:
        """What ``respond_to`` needs for these requests."""
        ...

    def respond_to(self, prepared: Any, /) -> Sequence[Response | None]:
        """As ``respond``, for what ``prepare`` gave."""
        ...


class KnownValues(Protocol):
    """Values that a model computed in earlier runs (``--cache``)."""

    def key(self, *parts: Any) -> bytes: ...

    def get(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]: ...

    def put(self, entries: Mapping[bytes, bytes], /) -> None: ...


@runtime_checkable
class RecallsValues(Protocol):
    """Keeps parts of its responses under ``--cache``, such as embeddings.

    Of a backend without this ability, whole responses are kept.
    """

    def recall(
        self, known: KnownValues, requests: Sequence[Request], loader: ImageLoader, /
    ) -> None:
        """Load what earlier runs computed for these requests, and keep what is computed now."""
        ...


class PromptFormat(Protocol):
    """A model's own format around the user's turn, and the tokens of both. Needs no weights."""

    tokenizer: Any

    def text(self, request: Request, /) -> str:
        """The whole prompt, with the placeholders of the request's images."""
        ...

    def inputs(self, texts: Sequence[str], images: "Sequence[Sequence[Image]]", /) -> Any:
        """What the model gets; ``input_ids`` are its tokens, [prompts, length]."""
        ...

    def answer_tokens(
        self, text: str, answers: Sequence[str], prompt_ids: Sequence[int], /
    ) -> list[list[int]]:
        """Tokens of each answer behind a prompt, without EOS."""
        ...
