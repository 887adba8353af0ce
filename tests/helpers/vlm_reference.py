"""VLM families used as in their model cards and the documentation of transformers.

Uses only transformers: one sample at a time, without padding, and for scores one full forward pass
over prompt, answer and EOS.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image


def pixels(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@dataclass(frozen=True, eq=False)
class Reference:
    """A family, used as documented."""

    name: str
    model: Any
    processor: Any

    def inputs(self, question: str, files: Sequence[bytes]) -> Any:
        images = [pixels(data) for data in files]
        if self.name in ("blip2", "instructblip"):
            return self.processor(images=images[0], text=question, return_tensors="pt")
        if self.name == "paligemma":
            text = "<image>" * len(images) + question
            inputs = self.processor(images=[images], text=[text], return_tensors="pt")
            del inputs["labels"]
            return inputs
        content = [*({"type": "image", "image": image} for image in images)]
        content.append({"type": "text", "text": question})
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    @torch.inference_mode()
    def generate_ids(self, question: str, files: Sequence[bytes]) -> list[int]:
        inputs = self.inputs(question, files)
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=8)
        new: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
        return new

    def text(self, ids: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def generate(self, question: str, files: Sequence[bytes]) -> str:
        return self.text(self.generate_ids(question, files))

    def answer_ids(self, answer: str) -> list[int]:
        """An answer's tokens as they follow the prompt, EOS included."""
        # "Assistant:" is followed by a space. Llama's tokenizers put one before every text.
        space = " " if self.name in ("blip2", "idefics3", "smolvlm") else ""
        ids = self.processor.tokenizer(space + answer, add_special_tokens=False)["input_ids"]
        eos = self.model.generation_config.eos_token_id
        return [*ids, eos if isinstance(eos, int) else eos[0]]

    @torch.inference_mode()
    def next_logprobs(self, question: str, files: Sequence[bytes], written: Sequence[int]) -> Any:
        """Log-probabilities of the token after prompt and ``written``, by one full pass."""
        inputs = dict(self.inputs(question, files))
        for name, value in (("input_ids", None), ("attention_mask", 1), ("mm_token_type_ids", 0),
                            ("token_type_ids", 0)):  # fmt: skip
            if name in inputs:
                more = [list(written) if value is None else [value] * len(written)]
                more_ids = torch.tensor(more, dtype=inputs[name].dtype)
                inputs[name] = torch.cat([inputs[name], more_ids], dim=1)
        return self.model(**inputs).logits[0, -1].double().log_softmax(-1)

    def m3id_ids(
        self, question: str, files: Sequence[bytes], alpha: float, rate: float, steps: int = 8
    ) -> tuple[list[int], float]:
        """M3ID as in section 5.1, and the smallest gap between its best two tokens."""
        eos = self.model.generation_config.eos_token_id
        written: list[int] = []
        gap = math.inf
        for t in range(1, steps + 1):
            l_c = self.next_logprobs(question, files, written)
            l_u = self.next_logprobs(question, [], written)
            if l_c.max() < math.log(alpha):
                weight = (1 - math.exp(-rate * t)) / math.exp(-rate * t)
                l_c = l_c + weight * (l_c - l_u)
            best = l_c.topk(2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            written.append(int(best.indices[0]))
            # Written tokens are input again here, where an image token would require an image.
            image = getattr(self.model.config, "image_token_id", None)
            if written[-1] in (image, *(eos if isinstance(eos, list) else [eos])):
                break
        return written, gap

    @torch.inference_mode()
    def score(
        self,
        question: str,
        files: Sequence[bytes],
        answer: Sequence[int],
        vocabulary: int | None = None,
    ) -> tuple[float, int]:
        """Summed log-probability of an answer's tokens, and the number of tokens."""
        inputs = dict(self.inputs(question, files))
        prompt = inputs["input_ids"].shape[1]

        def extend(name: str, value: Sequence[int]) -> None:
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.tensor([value])], dim=1)

        extend("input_ids", answer)
        extend("attention_mask", [1] * len(answer))
        extend("mm_token_type_ids", [0] * len(answer))
        # PaliGemma: 1 is the suffix. Gemma 3: 0 is text.
        extend("token_type_ids", [int(self.name == "paligemma")] * len(answer))
        logits = self.model(**inputs).logits[0].double()
        logprobs = torch.log_softmax(logits[prompt - 1 : -1, :vocabulary], dim=-1)
        assert len(logprobs) == len(answer)
        return float(logprobs[range(len(answer)), list(answer)].sum()), len(answer)
