"""Requests made ready for a model of ``hf_vlm``: text, images, and the processor's inputs.

On a GPU the processor of some families takes as long as the model: the inputs of the next batch are
made in a thread while the model works on this one.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image

from vlm_harness.backends import Pictures
from vlm_harness.backends.prompt_format import PromptFormatter
from vlm_harness.errors import SampleError
from vlm_harness.types import Request


@dataclass(frozen=True, eq=False)
class Query:
    request: Request
    text: str
    images: Sequence[Image.Image]


@dataclass(frozen=True)
class Batch:
    """What became of the requests of a batch, by place in it."""

    ready: dict[int, Query] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    inputs: dict[tuple[Query, ...], Any] = field(default_factory=dict)
    """Outputs of the processor that were made ahead."""

    def parts(self) -> list[dict[int, Query]]:
        """By number of images: a processor cannot mix prompts with and without in one call."""
        counts = sorted({len(query.images) for query in self.ready.values()})
        return [
            {index: query for index, query in self.ready.items() if len(query.images) == count}
            for count in counts
        ]


def made_ready(
    requests: Sequence[Request],
    pictures: Pictures,
    formatter: PromptFormatter,
    check: Callable[[int], None],
) -> Batch:
    """``check`` raises a SampleError where a model cannot take so many images."""
    batch = Batch()
    for index, request in enumerate(requests):
        try:
            check(len(request.images))
            images = [pictures.get(ref).pixels for ref in request.images]
            batch.ready[index] = Query(request, formatter.text(request), images)
        except SampleError as error:
            batch.failures[index] = str(error)
    return batch


def inputs_of(formatter: PromptFormatter, queries: Sequence[Query]) -> Any:
    """Raises a SampleError where the processor refuses."""
    return formatter.inputs([q.text for q in queries], [q.images for q in queries])


class Ahead:
    """The batch to come, put by one thread and taken by another."""

    def __init__(self, formatter: PromptFormatter) -> None:
        self._formatter = formatter
        self._batches: dict[tuple[Request, ...], Batch] = {}

    @cached_property
    def formatter(self) -> PromptFormatter:
        """One of its own: a tokenizer keeps its padding, and is not for two threads at once."""
        return copy.deepcopy(self._formatter)

    def put(self, requests: Sequence[Request], batch: Batch) -> None:
        self._batches.clear()  # of one that was never asked for: out of memory makes other batches
        self._batches[tuple(requests)] = batch

    def take(self, requests: Sequence[Request]) -> Batch | None:
        return self._batches.pop(tuple(requests), None)
