"""Requests made ready for a model of ``hf_vlm``: text, images, and the processor's inputs.

On a GPU the processor of some families takes as long as the model: the inputs of the next batch are
made in a thread while the model works on this one.
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
    request: Request
    text: str
    images: Sequence[Image.Image]


@dataclass(frozen=True)
class Batch:
    """What became of the requests of a batch, by place in it."""

    size: int
    ready: dict[int, Query] = field(default_factory=dict)
    """Equal requests are one query."""
    failures: dict[int, str] = field(default_factory=dict)
    inputs: dict[tuple[Query, ...], Any] = field(default_factory=dict)
    """Outputs of the processor that were made ahead."""

    def parts(self) -> list[list[Query]]:
        """By number of images: a processor cannot mix prompts with and without in one call."""
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
    """``check`` raises a SampleError where a model cannot take so many images."""
    batch = Batch(len(requests))
    queries: dict[Request, Query] = {}
    for index, request in enumerate(requests):
        # The other image of the pair, and how options were shown, are nothing to these models.
        asked = replace(request, partner=None, order=())
        try:
            if asked not in queries:
                check(len(request.images))
                images = [loader.get(ref).pixels for ref in request.images]
                queries[asked] = Query(request, formatter.text(request), images)
            batch.ready[index] = queries[asked]
        except SampleError as error:
            batch.failures[index] = str(error)
    return batch


def inputs_of(formatter: PromptFormatter, queries: Sequence[Query]) -> Any:
    """Raises a SampleError where the processor refuses."""
    return formatter.inputs([q.text for q in queries], [q.images for q in queries])
