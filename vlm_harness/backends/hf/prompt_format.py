"""A model's own prompt format, from the checkpoint's processor and chat template.

Pitfalls handled here:

* The tokenizer adds a BOS token that the chat template already contains.
* A batch is padded on the right, where a decoder continues, or between image and text.
* The first token of an answer merges with the last token of the prompt.
* A question contains a placeholder of an image.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

from PIL import Image
from transformers import AutoProcessor

from vlm_harness.backends.hf.args import HfVlmArgs
from vlm_harness.backends.hf.chat_template import adopt_tokenizers_template, check_chat_template
from vlm_harness.backends.hf.loading import loading
from vlm_harness.backends.hf.placeholders import INSERT_IMAGE_TOKENS, escape, find_placeholders
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.types import Request

logger = logging.getLogger(__name__)


def prompt_formatter(spec: ModelSpec, options: LoadOptions) -> "PromptFormatter":
    """The prompt format of a model.

    Raises:
        InputError: the checkpoint has lost its chat template.
    """
    formatter = PromptFormatter(spec, options)
    check_chat_template(formatter.processor, spec)
    return formatter


@cache  # once per model
def _warn_of_placeholder(model: str) -> None:
    logger.warning(
        "model %s: questions or answers contain an image placeholder of the model, which is "
        "written with a space, as in < image>",
        model,
    )


class PromptFormatter:
    """Formats prompts as the model expects them, and tokenizes answers that follow a prompt.

    Needs only the processor: ``preview`` counts tokens without loading weights.
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
                f"model {spec.model}: the checkpoint has no processor for images and text, only "
                f"{type(self.processor).__name__}",
            )
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.pad_token is None:
            # Llama's tokenizers have no padding token; masked tokens may have any value.
            self.tokenizer.pad_token = self.tokenizer.eos_token
        adopt_tokenizers_template(self.processor)
        self.config: Any = None  # of the model, once it is loaded

    def text(self, request: Request) -> str:
        """The complete prompt, with a placeholder for each image of the request."""
        return self._render(self.escape(request.prompt), len(request.images))

    def escape(self, text: str) -> str:
        """The text of a question or an answer, without placeholders of images."""
        escaped = escape(text, self._placeholders)
        if escaped != text:
            _warn_of_placeholder(self.spec.model)
        return escaped

    @cached_property
    def _placeholders(self) -> tuple[str, ...]:
        return find_placeholders(self.processor, self.config, lambda n: self._render("?", n))

    def _render(self, prompt: str, n_images: int) -> str:
        if self.spec.prompt_format is not None:
            context = {"prompt": prompt, "images": list(range(n_images))}
            try:
                return str(compile_template(self.spec.prompt_format)(context))
            except TemplateError as error:
                raise InputError(
                    f"prompt_format: {error}", where=self.spec.at("prompt_format")
                ) from None
        if getattr(self.processor, "chat_template", None) is None:
            # Base models (BLIP-2, PaliGemma) were trained on the bare text.
            placeholder = getattr(self.processor, "image_token", None)
            literal = placeholder if isinstance(placeholder, str) else ""
            if type(self.processor).__name__ in INSERT_IMAGE_TOKENS:
                literal = ""
            return literal * n_images + prompt
        content = [{"type": "image"} for _ in range(n_images)]
        message = {"role": "user", "content": [*content, {"type": "text", "text": prompt}]}
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
            SampleError: the processor rejects the input; the message contains its reason.
        """
        arguments: dict[str, Any] = {
            "text": list(texts),
            "return_tensors": "pt",
            "padding": len(texts) > 1,
            "truncation": False,  # a few checkpoints truncate by default
            "return_attention_mask": True,  # a few checkpoints omit it by default
            "add_special_tokens": not self._has_bos(texts[0]),
        }
        if any(images):
            arguments["images"] = [list(of_prompt) for of_prompt in images]
        self.tokenizer.padding_side = "left"
        try:
            return self._pad_left(self.processor(**arguments), texts)
        except (ValueError, TypeError, AttributeError) as error:
            if not any(images):
                raise InputError(
                    f"model {self.spec.model} cannot be evaluated without images: {error}",
                    where="--images none",
                ) from error
            raise SampleError(f"the processor rejects the prompt: {error}") from error

    def _pad_left(self, inputs: Any, texts: Sequence[str]) -> Any:
        """Repair the padding of BLIP-2 and InstructBLIP; other batches stay unchanged.

        Their processors put the image tokens in front of rows that are already padded, and pad the
        Q-Former's input on the left like the prompt, which shifts its positions.
        """
        order = inputs["attention_mask"].argsort(dim=1, stable=True)
        for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = inputs[name].gather(1, order)
        if "qformer_input_ids" in inputs:
            padded_right = self.processor.qformer_tokenizer(
                list(texts), padding=True, padding_side="right", return_tensors="pt"
            )
            inputs["qformer_input_ids"] = padded_right["input_ids"]
            inputs["qformer_attention_mask"] = padded_right["attention_mask"]
        return inputs

    def answer_prefix(self, text: str) -> str:
        """The text between prompt and answer: the model file's, or inferred from the prompt's end.

        After ``ASSISTANT:`` an answer starts with a space. After whitespace or a special token, as
        at the end of most chat templates, it starts immediately.
        """
        if self.spec.answer_prefix is not None:
            return self.spec.answer_prefix
        last = self.tokenizer(text, add_special_tokens=False)["input_ids"][-1:]
        ends_special = bool(last) and last[0] in self.tokenizer.all_special_ids
        return "" if not text or text[-1].isspace() or ends_special else " "

    def answer_tokens(
        self, text: str, answers: Sequence[str], prompt_ids: Sequence[int]
    ) -> list[list[int]]:
        """The tokens of ``prompt + answer_prefix + answer`` after the prompt's, without EOS.

        ``prompt_ids`` are the processor's tokens, with image placeholders expanded.

        Raises:
            SampleError: an answer merges with the prompt's last token, or has no tokens.
        """
        text += self._added_by_processor(text, prompt_ids)
        prefix = self.answer_prefix(text)
        answers = [self.escape(answer) for answer in answers]
        prompt, *sequences = self._ids([text, *(text + prefix + answer for answer in answers)])
        for answer, sequence in zip(answers, sequences, strict=True):
            if sequence[: len(prompt)] != prompt:
                raise SampleError(
                    f"tokens of the answer {answer!r} merge with the end of the prompt "
                    f"{text[-20:]!r}; set answer_prefix in the model file"
                )
            if len(sequence) == len(prompt):
                raise SampleError(f"the answer {answer!r} adds no tokens to the prompt")
        return [sequence[len(prompt) :] for sequence in sequences]

    def prompt_tokens(
        self, texts: Sequence[str], first: str, first_ids: Sequence[int]
    ) -> list[list[int] | None]:
        """Tokens of prompts about the images of ``first``, without calling the processor again.

        ``first_ids`` are the processor's tokens of ``first``. They end with the same tokens as the
        plain text; everything before that end, which includes the expanded image placeholders, is
        reused. None for a prompt whose text starts differently.

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
        """The text that the processor appends to a prompt: nothing, or PaliGemma's newline.

        Compares the last tokens to check that the text tokenized here is what the model gets.
        """
        for added in ("", "\n"):
            (prompt,) = self._ids([text + added])
            tail = min(3, len(prompt))
            if list(prompt_ids[-tail:]) == prompt[-tail:]:
                return added
        raise SampleError("answers cannot be scored: the processor changes the prompt's text")

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts that have the same beginning."""
        special = not self._has_bos(texts[0])
        rows = self.tokenizer(list(texts), add_special_tokens=special)["input_ids"]
        eos = self.tokenizer.eos_token_id
        # Some tokenizers append EOS to every text; a prompt to be continued must not have it.
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
