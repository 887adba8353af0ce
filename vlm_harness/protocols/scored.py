"""Protocols that score every option and take the highest: similarity, choice, likelihood.

They differ in what is scored as an option's text, and in what the model is asked for.
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
    """A protocol by its candidates: one text per option of a sample, in canonical order."""

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
        raise InputError(f"sample {sample.id}: {len(sample.options)} options have no letters")
    return tuple(LETTERS[prompt.order.index(i)] for i in range(len(sample.options)))


def _options(sample: Sample, prompt: Prompt) -> tuple[str, ...]:
    """Each option as the prompt shows it (``(a) Open``)."""
    return tuple(prompt.shown[prompt.order.index(i)] for i in range(len(sample.options)))


similarity = Scored(
    "similarity",
    "One number for an image and a caption; the highest wins (paper, section 3.1, equation 1).",
    "similarity",
    _captions,
    uses_prompt=False,
)
"""For dual encoders the number is the cosine of the two embeddings, in float32, without temperature
or bias.
"""

choice = Scored(
    "choice",
    "Option letters ranked by the perplexity of the letter followed by EOS (paper, 4.1 and A.2).",
    "score",
    _letters,
)
"""``A</s>`` against ``B</s>``. Lower perplexity is higher mean log-probability, which is what the
log holds.
"""

likelihood = Scored(
    "likelihood",
    "Full options ranked by perplexity, EOS included, normalised by their tokens "
    "(paper, 5.2, A.2).",
    "score",
    _options,
)
"""exp(-score) is the perplexity."""
