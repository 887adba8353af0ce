"""The protocol ``generate``: free text, from which an extractor takes the answer."""

from collections.abc import Sequence

from vlm_harness.protocols.extractors import extract
from vlm_harness.specs.schemas import GenerateUse
from vlm_harness.tasks.orders import Order
from vlm_harness.types import Kind, Outcome, Prompt, Request, Response, Sample


class Generate:
    name = "generate"
    description = (
        "Free text, from which a named extractor takes the answer (paper, A.1: keyword matching)."
    )
    kind: Kind = "generate"
    uses_prompt = True

    def request(self, sample: Sample, prompt: Prompt, use: GenerateUse) -> Request:
        return Request(
            self.kind,
            sample.images,
            prompt=prompt.text,
            max_new_tokens=use.max_new_tokens,
            sample=sample,
        )

    def outcome(
        self, response: Response, shown: Sequence[str], order: Order, use: GenerateUse
    ) -> Outcome:
        if response.text is None:
            return Outcome("error", detail="the response has no text")
        name, found = extract(use.extractors(), response.text, shown)
        if found.index is None:
            return Outcome("unparsed", detail=f"{name}: {found.reason}")
        return Outcome("ok", prediction=order[found.index], detail=f"{name}: {found.match}")


generate = Generate()
