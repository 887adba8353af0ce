"""One number for an image and a caption; the highest wins (paper, section 3.1, equation 1).

For dual encoders the number is the cosine of the two embeddings, in float32, without temperature
or bias.
"""

from collections.abc import Sequence

from vlm_harness.protocols.protocol import highest
from vlm_harness.specs.schemas import ProtocolUse
from vlm_harness.tasks.orders import Order
from vlm_harness.types import Kind, Outcome, Prompt, Request, Response, Sample


class Similarity:
    name = "similarity"
    kind: Kind = "similarity"
    uses_prompt = False

    def request(self, sample: Sample, prompt: Prompt, use: ProtocolUse) -> Request:
        return Request(self.kind, sample.images, candidates=sample.captions or (), sample=sample)

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: ProtocolUse
    ) -> Outcome:
        return highest(response.scores)


similarity = Similarity()
