"""Protocols: how a model is asked, and what of its reply counts.

Each says which kind of request it makes, and how a response becomes an answer.
``outcome`` needs nothing but the response and the task, so that a log can be rescored alone.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from vlm_harness.plugins import Plugins
from vlm_harness.tasks.orders import Order
from vlm_harness.types import Kind, OptionScore, Outcome, Prompt, Request, Response, Sample


class EvaluationProtocol(Protocol):
    """What a protocol has."""

    name: str
    description: str
    """A line for ``vlm-harness list protocols``."""
    kind: Kind
    uses_prompt: bool
    """False where order and command cannot matter, as for captions scored by a dual encoder."""

    def request(self, sample: Sample, prompt: Prompt, use: Any, /) -> Request:
        """What is asked of the backend; images are filled in by the evaluator."""
        ...

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: Any, /
    ) -> Outcome:
        """The answer in a response. ``shown`` are the options as the prompt showed them."""
        ...


PROTOCOLS: Plugins[EvaluationProtocol] = Plugins(
    "protocol",
    "vlm_harness.protocols",
    {
        "similarity": "vlm_harness.protocols.scored:similarity",
        "generate": "vlm_harness.protocols.generate:generate",
        "choice": "vlm_harness.protocols.scored:choice",
        "likelihood": "vlm_harness.protocols.scored:likelihood",
    },
)


def answer(name: str, response: Response, shown: Sequence[str], order: Order, use: Any) -> Outcome:
    """The answer in a response under a protocol; a failed response stays a failure."""
    if response.error is not None:
        return Outcome("error", detail=response.error)
    try:
        return PROTOCOLS.get(name).outcome(response, shown, order, use)
    except ValueError as error:  # an extractor that cannot work with these options
        return Outcome("error", detail=str(error))


def highest(scores: Sequence[OptionScore] | None) -> Outcome:
    """The option with the highest score.

    A tie at the top is no answer (so that a constant model scores zero, not one), and a score that
    is not a finite number is an error.
    """
    if not scores:
        return Outcome("error", detail="the response has no scores")
    values = [option.score for option in scores]
    if not all(math.isfinite(value) for value in values):
        return Outcome("error", detail=f"scores are not finite: {values}")
    best = max(values)
    if values.count(best) > 1:
        return Outcome("ok", prediction=None, tied=True)
    return Outcome("ok", prediction=values.index(best))
