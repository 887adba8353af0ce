"""Backends: code that runs a family of models.

A family declares here what it can do, without importing what it needs to do it; its module is
loaded with the first model of the family.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlm_harness.images import Pictures as Pictures
from vlm_harness.types import Model, Request, Response

PROMPTS_A_ROW = 32


@dataclass(frozen=True)
class LoadOptions:
    """What the run asks of every model."""

    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    data_dir: Path = Path()


class Backend(Protocol):
    """A loaded model.

    ``respond`` gets requests of one kind (and, for ``generate``, of one decoding and length); those
    that share a prefix lie together. It returns one response a request, in order: an error as a
    value where one request fails, ``None`` where there is no answer to be had (recorded answers).

    More methods are used where they are there. ``row_of(request)``, of a backend that computes
    several requests as one, gives what is equal for those: a batch is then so many rows, each of
    ``PROMPTS_A_ROW`` at most. ``preprocess(pixels)`` is called in the threads that read images
    ahead; what it gives is ``Picture.prepared``. ``prepare(requests, pictures)`` is called in a
    thread with the batch that comes next, and ``respond_to`` gets what it gave, in place of
    ``respond``. ``recall(known, requests, pictures)``, under ``--cache``, takes up what earlier
    runs computed; of a backend without it, whole responses are kept.
    """

    def info(self) -> Model: ...

    def respond(
        self, requests: Sequence[Request], pictures: Pictures
    ) -> Sequence[Response | None]: ...
