"""Protocols that score every option and choose the highest: similarity, choice, likelihood.

They differ in the text that is scored for an option, and in the kind of request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlm_harness.errors import InputError
from vlm_harness.protocols.protocol import highest
from vlm_harness.specs.schemas import ProtocolUse
from vlm_harness.tasks.orders import Order
from vlm_harness.tasks.prompts import LETTERS
from vlm_harness.types import Kind, Outcome, Prompt, Request, Response, Sample


@dataclass(frozen=True)
class Scored:
    """A protocol defined by its candidates: one text per option, in canonical order."""

    name: str
    description: str
    kind: Kind
    candidates: Callable[[Sample, Prompt], tuple[str, ...]]
    uses_prompt: bool = True

    def request(self, sample: Sample, prompt: Prompt, use: ProtocolUse) -> Request:
        return Request(
            self.kind,
            sample.images,
            prompt=prompt.text if self.uses_prompt else "",
            candidates=self.candidates(sample, prompt),
            sample=sample,
        )

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: ProtocolUse
    ) -> Outcome:
        return highest(response.scores)


def _captions(sample: Sample, prompt: Prompt) -> tuple[str, ...]:
    return sample.captions or ()


def _letters(sample: Sample, prompt: Prompt) -> tuple[str, ...]:
    """The letter of the position at which each option is shown."""
    if len(sample.options) > len(LETTERS):
        raise InputError(
            f"sample {sample.id} has {len(sample.options)} options; choice supports at most "
            f"{len(LETTERS)}"
        )
    return tuple(LETTERS[prompt.order.index(i)] for i in range(len(sample.options)))


def _options(sample: Sample, prompt: Prompt) -> tuple[str, ...]:
    """Each option as the prompt shows it (``(a) Open``)."""
    return tuple(prompt.shown[prompt.order.index(i)] for i in range(len(sample.options)))


similarity = Scored(
    "similarity",
    "One score per image and caption; the highest wins (paper, section 3.1, equation 1).",
    "similarity",
    _captions,
    uses_prompt=False,
)
"""For dual encoders, the score is the cosine similarity of the two embeddings, in float32, without
temperature and bias.
"""

choice = Scored(
    "choice",
    "Option letters ranked by the perplexity of the letter followed by EOS (paper, 4.1 and A.2).",
    "score",
    _letters,
)
"""``A</s>`` against ``B</s>``. The log has mean log-probabilities: the lower the perplexity, the
higher the mean log-probability.
"""

likelihood = Scored(
    "likelihood",
    "Full options ranked by length-normalised perplexity, EOS included (paper, 5.2, A.2).",
    "score",
    _options,
)
"""exp(-score) is the perplexity."""
