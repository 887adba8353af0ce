"""Batches of requests prepared for ``hf_vlm``: prompt text, images, and the processor's outputs.

On a GPU, the processor of some families takes as long as the model. The inputs of the next batch
are therefore made in a thread while the model runs the current one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.errors import SampleError
from vlm_harness.images import ImageLoader
from vlm_harness.types import Request


@dataclass(frozen=True, eq=False)
class Query:
    """A request with its formatted prompt and its decoded images."""

    request: Request
    text: str
    images: Sequence[Image.Image]


@dataclass(frozen=True)
class Batch:
    """The prepared and the failed requests of a batch, by their index in it."""

    size: int
    ready: dict[int, Query] = field(default_factory=dict)
    """Equal requests share one query."""
    failures: dict[int, str] = field(default_factory=dict)
    inputs: dict[tuple[Query, ...], Any] = field(default_factory=dict)
    """Processor outputs that were made in advance."""

    def parts(self) -> list[list[Query]]:
        """Queries by number of images: one processor call cannot mix prompts with and without."""
        parts: dict[int, list[Query]] = {}
        for query in dict.fromkeys(self.ready.values()):
            parts.setdefault(len(query.images), []).append(query)
        return [parts[count] for count in sorted(parts)]


def make_batch(
    requests: Sequence[Request],
    loader: ImageLoader,
    formatter: PromptFormatter,
    check: Callable[[int], None],
) -> Batch:
    """Load images and format prompts.

    ``check`` takes a number of images and raises a SampleError if the model does not support it.
    """
    batch = Batch(len(requests))
    queries: dict[Request, Query] = {}
    for index, request in enumerate(requests):
        # These models ignore the partner image and the order in which options were shown.
        key = replace(request, partner=None, order=())
        try:
            if key not in queries:
                check(len(request.images))
                images = [loader.get(ref).pixels for ref in request.images]
                queries[key] = Query(request, formatter.text(request), images)
            batch.ready[index] = queries[key]
        except SampleError as error:
            batch.failures[index] = str(error)
    return batch


def inputs_of(formatter: PromptFormatter, queries: Sequence[Query]) -> Any:
    """Processor outputs for queries. Raises a SampleError if the processor rejects them."""
    return formatter.inputs([q.text for q in queries], [q.images for q in queries])
