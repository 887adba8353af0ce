"""Full options ranked by perplexity, EOS included, normalised by their tokens (paper, 5.2, A.2).

The option is scored as the prompt shows it (``(a) Open``). exp(-score) is the perplexity.
"""

from collections.abc import Sequence

from vlm_harness.protocols.protocol import highest
from vlm_harness.specs.schemas import ProtocolUse
from vlm_harness.tasks.orders import Order
from vlm_harness.types import Kind, Outcome, Prompt, Request, Response, Sample


class Likelihood:
    name = "likelihood"
    kind: Kind = "score"
    uses_prompt = True

    def request(self, sample: Sample, prompt: Prompt, use: ProtocolUse) -> Request:
        answers = tuple(prompt.shown[prompt.order.index(i)] for i in range(len(sample.options)))
        return Request(
            self.kind, sample.images, prompt=prompt.text, candidates=answers, sample=sample
        )

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: ProtocolUse
    ) -> Outcome:
        return highest(response.scores)


likelihood = Likelihood()
