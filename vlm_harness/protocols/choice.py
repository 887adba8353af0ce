"""Option letters ranked by the perplexity of the letter followed by EOS (paper, 4.1 and A.2).

``A</s>`` against ``B</s>``: the letter is that of the position at which the option is shown.
Lower perplexity is higher mean log-probability, which is what the log holds.
"""

from collections.abc import Sequence

from vlm_harness.errors import InputError
from vlm_harness.protocols.protocol import highest
from vlm_harness.specs.schemas import ProtocolUse
from vlm_harness.tasks.orders import Order
from vlm_harness.tasks.prompts import LETTERS
from vlm_harness.types import Kind, Outcome, Prompt, Request, Response, Sample


class Choice:
    name = "choice"
    kind: Kind = "score"
    uses_prompt = True

    def request(self, sample: Sample, prompt: Prompt, use: ProtocolUse) -> Request:
        if len(sample.options) > len(LETTERS):
            raise InputError(f"sample {sample.id}: {len(sample.options)} options have no letters")
        letters = tuple(LETTERS[prompt.order.index(i)] for i in range(len(sample.options)))
        return Request(
            self.kind, sample.images, prompt=prompt.text, candidates=letters, sample=sample
        )

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: ProtocolUse
    ) -> Outcome:
        return highest(response.scores)


choice = Choice()
