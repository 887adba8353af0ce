"""A model's own format around the user's turn, by the checkpoint's processor and chat template.

Traps avoided here: a BOS token written by the chat template and added again by the tokenizer;
batches padded on the right, which shift what a decoder continues, or between image and text, which
moves the text away from the image; answers that merge with the end of the prompt.
"""

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers import AutoProcessor

from vlm_harness.backends.hf.args import HfVlmArgs
from vlm_harness.backends.hf.loading import loading
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.types import Request

PUT_IMAGE_TOKENS_THEMSELVES = ("Blip2Processor", "InstructBlipProcessor")


class PromptFormatter:
    """The model's own format around the user's turn, and the tokens of an answer after it.

    Needs the processor alone: ``preview`` counts tokens without loading weights.
    """

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self.spec = spec
        self.args = HfVlmArgs.model_validate(spec.args)
        pixels = {
            name: value
            for name in ("min_pixels", "max_pixels")
            if (value := getattr(self.args, name)) is not None
        }
        with loading(spec):
            self.processor = AutoProcessor.from_pretrained(
                os.path.expanduser(self.args.processor or spec.checkpoint),
                revision=None if self.args.processor else spec.revision,
                trust_remote_code=options.trust_remote_code,
                **pixels,
            )
        if not hasattr(self.processor, "tokenizer"):
            raise InputError(
                f"model {spec.model}: the checkpoint has no processor for images and text, only a "
                f"{type(self.processor).__name__}",
            )
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.pad_token is None:
            # Llama's tokenizers have none; what stands under the mask does not matter.
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def text(self, request: Request) -> str:
        """The whole prompt, with the placeholders of the request's images."""
        if self.spec.prompt_format is not None:
            context = {"prompt": request.prompt, "images": list(range(len(request.images)))}
            try:
                return str(compile_template(self.spec.prompt_format)(context))
            except TemplateError as error:
                raise InputError(
                    f"prompt_format: {error}", where=self.spec.at("prompt_format")
                ) from None
        if getattr(self.processor, "chat_template", None) is None:
            # Base models (BLIP-2, PaliGemma) are asked as they were trained: by the bare text.
            placeholder = getattr(self.processor, "image_token", None)
            literal = placeholder if isinstance(placeholder, str) else ""
            if type(self.processor).__name__ in PUT_IMAGE_TOKENS_THEMSELVES:
                literal = ""
            return literal * len(request.images) + request.prompt
        content = [{"type": "image"} for _ in request.images]
        message = {"role": "user", "content": [*content, {"type": "text", "text": request.prompt}]}
        return str(
            self.processor.apply_chat_template(
                [message],
                tokenize=False,
                add_generation_prompt=True,
                **self.args.chat_template_args,
            )
        )

    def inputs(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
        """Processor outputs for a batch of prompts, padded on the left.

        Raises:
            SampleError: the processor refuses the input, with its reason.
        """
        arguments: dict[str, Any] = {
            "text": list(texts),
            "return_tensors": "pt",
            "padding": len(texts) > 1,
            "return_attention_mask": True,  # a few checkpoints leave it out by default
            "add_special_tokens": not self._has_bos(texts[0]),
        }
        if any(images):
            arguments["images"] = [list(loader) for loader in images]
        self.tokenizer.padding_side = "left"
        try:
            return self._padded_in_front(self.processor(**arguments), texts)
        except (ValueError, TypeError, AttributeError) as error:
            if not any(images):
                raise InputError(
                    f"model {self.spec.model} cannot be asked without an image: {error}",
                    where="--images none",
                ) from error
            raise SampleError(f"the processor refuses the prompt: {error}") from error

    def _padded_in_front(self, inputs: Any, texts: Sequence[str]) -> Any:
        """Mends the batches of BLIP-2's kin; leaves those of other processors as they are.

        Their processors put image tokens before rows that are padded already, and pad what the
        Q-Former reads as they pad the prompt: on the left, where its positions are shifted.
        """
        order = inputs["attention_mask"].argsort(dim=1, stable=True)
        for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = inputs[name].gather(1, order)
        if "qformer_input_ids" in inputs:
            again = self.processor.qformer_tokenizer(
                list(texts), padding=True, padding_side="right", return_tensors="pt"
            )
            inputs["qformer_input_ids"] = again["input_ids"]
            inputs["qformer_attention_mask"] = again["attention_mask"]
        return inputs

    def answer_prefix(self, text: str) -> str:
        """What stands between prompt and answer: the model file's, else told by the prompt's end.

        After ``ASSISTANT:`` an answer begins with a space; after a newline or a special token, as
        most chat templates end, it begins at once.
        """
        if self.spec.answer_prefix is not None:
            return self.spec.answer_prefix
        last = self.tokenizer(text, add_special_tokens=False)["input_ids"][-1:]
        ends_special = bool(last) and last[0] in self.tokenizer.all_special_ids
        return "" if not text or text[-1].isspace() or ends_special else " "

    def answer_tokens(
        self, text: str, answers: Sequence[str], prompt_ids: Sequence[int]
    ) -> list[list[int]]:
        """Tokens that ``prompt + answer_prefix + answer`` has beyond the prompt, without EOS.

        ``prompt_ids`` are those of the processor, in which image placeholders are expanded.

        Raises:
            SampleError: an answer merges with the prompt's last token, or has no token.
        """
        text += self._added_by_processor(text, prompt_ids)
        prefix = self.answer_prefix(text)
        prompt, *wholes = self._ids([text, *(text + prefix + answer for answer in answers)])
        for answer, whole in zip(answers, wholes, strict=True):
            if whole[: len(prompt)] != prompt:
                raise SampleError(
                    f"the answer {answer!r} merges with the end of the prompt {text[-20:]!r}; "
                    "set answer_prefix in the model file"
                )
            if len(whole) == len(prompt):
                raise SampleError(f"the answer {answer!r} has no token of its own")
        return [whole[len(prompt) :] for whole in wholes]

    def prompt_tokens(
        self, texts: Sequence[str], first: str, first_ids: Sequence[int]
    ) -> list[list[int] | None]:
        """Tokens of prompts about the images of ``first``, without asking the processor again.

        ``first_ids`` are those of the processor. What it made of the images stands before the words
        that end both its tokens and the text's; None for a prompt that begins otherwise.

        Raises:
            SampleError: the processor changes the text.
        """
        added = self._added_by_processor(first, first_ids)
        plain, *others = self._ids([text + added for text in (first, *texts)])
        same = 0
        while same < len(plain) and plain[-1 - same] == first_ids[-1 - same]:
            same += 1
        head = plain[: len(plain) - same]
        expanded = list(first_ids[: len(first_ids) - same])
        return [expanded + ids[len(head) :] if ids[: len(head)] == head else None for ids in others]

    def _added_by_processor(self, text: str, prompt_ids: Sequence[int]) -> str:
        """What the processor puts behind a prompt: nothing, but for PaliGemma's newline.

        Only the ends are compared, to see that the text tokenised here is the one the model gets.
        """
        for added in ("", "\n"):
            (prompt,) = self._ids([text + added])
            tail = min(3, len(prompt))
            if list(prompt_ids[-tail:]) == prompt[-tail:]:
                return added
        raise SampleError("the processor changes the prompt's text; answers cannot be scored")

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts that begin alike."""
        special = not self._has_bos(texts[0])
        rows = self.tokenizer(list(texts), add_special_tokens=special)["input_ids"]
        eos = self.tokenizer.eos_token_id
        # Some tokenizers end every text with EOS; a prompt that is to be continued has none.
        return [
            list(ids[:-1] if ids and ids[-1] == eos and not self._ends_with_eos(text) else ids)
            for ids, text in zip(rows, texts, strict=True)
        ]

    def _has_bos(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return bos is not None and text.startswith(bos)

    def _ends_with_eos(self, text: str) -> bool:
        eos = self.tokenizer.eos_token
        return eos is not None and text.endswith(eos)
