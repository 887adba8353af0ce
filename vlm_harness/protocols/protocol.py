"""Protocols: how a model is queried, and how its response becomes an answer.

A protocol makes requests of one kind and turns responses into outcomes. ``outcome`` depends only on
the response and the task, so that a log can be rescored without the model.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from vlm_harness.plugins import Plugins
from vlm_harness.tasks.orders import Order
from vlm_harness.types import Kind, OptionScore, Outcome, Prompt, Request, Response, Sample


class EvaluationProtocol(Protocol):
    """The interface of a protocol."""

    name: str
    description: str
    """One line, for ``vlm-harness list protocols``."""
    kind: Kind
    uses_prompt: bool
    """False if option order and command have no effect, as with the captions of a dual encoder."""

    def request(self, sample: Sample, prompt: Prompt, use: Any, /) -> Request:
        """The request to the backend. The evaluator adds the images."""
        ...

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: Any, /
    ) -> Outcome:
        """The answer in a response. ``shown`` has the options as shown in the prompt."""
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
    """The answer in a response under a protocol. A failed response remains a failure."""
    if response.error is not None:
        return Outcome("error", detail=response.error)
    try:
        return PROTOCOLS.get(name).outcome(response, shown, order, use)
    except ValueError as error:  # the extractor does not support these options
        return Outcome("error", detail=str(error))


def highest(scores: Sequence[OptionScore] | None) -> Outcome:
    """The option with the highest score.

    A tie for the highest score is not an answer, so that a constant model scores zero, not one. A
    score that is not finite is an error.
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
