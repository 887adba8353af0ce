"""A loaded VLM with its processor and special tokens; generation and scoring without sharing.

Pitfalls handled here (those of prompts: ``prompt_format``):

* A checkpoint's ``generation_config.json`` may add sampling settings and repetition penalties to
  greedy decoding.
* An answer may contain one of several EOS tokens, after which ``generate`` would stop scoring.
"""

import inspect
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Cache,
    GenerationConfig,
    LogitsProcessorList,
)

from vlm_harness.backends.hf.batch import Query, inputs_of
from vlm_harness.backends.hf.chat_template import check_chat_template
from vlm_harness.backends.hf.loading import load_pretrained, to_device
from vlm_harness.backends.hf.logits import ForcedTokens
from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import OptionScore, Request, Response


class LoadedVlm:
    """A loaded VLM, used for generation, for scoring and by ``PrefixSharing``.

    Attributes:
        formatter: formats prompts and calls the processor.
        eos_ids: tokens that end an answer; the first one is scored.
        one_image: whether every prompt must have exactly one image (BLIP-2 and InstructBLIP).
        prepared: inputs of the current batch that were made in advance, by their queries.
    """

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self.spec = spec
        self.formatter = PromptFormatter(spec, options)
        processor = self.formatter.processor
        if hasattr(processor, "image_token"):  # else it may not be a VLM, which fails to load
            check_chat_template(processor, spec)
        self.model, self.weights = load_pretrained(
            AutoModelForImageTextToText, spec, options, self.formatter.args
        )
        check_chat_template(processor, spec)
        self._upgrade_old_revision()
        self.formatter.config = self.model.config
        self.eos_ids, self.pad_id = self._special_ids()
        self._context = context_length(self.model.config)
        # Drops all other settings of the checkpoint: see the module's docstring.
        own = self.model.generation_config
        plain = GenerationConfig(
            bos_token_id=own.bos_token_id,
            eos_token_id=self.eos_ids,
            pad_token_id=self.pad_id,
            decoder_start_token_id=own.decoder_start_token_id,
        )
        for module in self.model.modules():
            # BLIP-2 and InstructBLIP generate with the settings of their language model.
            if getattr(module, "generation_config", None) is not None:
                module.generation_config = plain
        pixels = inspect.signature(self.model.generate).parameters.get("pixel_values")
        self.one_image = pixels is not None and pixels.default is pixels.empty
        self.prepared: dict[tuple[Query, ...], Any] = {}

    def check_images(self, count: int) -> None:
        if self.one_image and count == 0:
            raise InputError(
                f"model {self.spec.model} cannot be evaluated without images", where="--images none"
            )
        if self.one_image and count > 1:
            raise SampleError(f"model {self.spec.model} takes one image, got {count}")

    def query(self, request: Request, images: Sequence[Image.Image]) -> Query:
        return Query(request, self.formatter.text(request), images)

    def inputs(self, queries: Sequence[Query]) -> Any:
        return self.prepared.pop(tuple(queries), None) or inputs_of(self.formatter, queries)

    @staticmethod
    def prompt_ids(inputs: Any) -> list[list[int]]:
        """The tokens of each prompt of a batch, without padding."""
        return [
            ids[mask.bool()].tolist()
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]

    def on_device(self, inputs: Any) -> dict[str, Any]:
        """Inputs on the model's device; keeps non-tensors only if ``forward`` accepts them."""
        device, dtype = self.model.device, self.model.dtype

        def move(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return to_device(value, device, dtype)
            return [move(each) for each in value] if isinstance(value, list) else value

        accepted = inspect.signature(self.model.forward).parameters
        return {
            name: move(value)
            for name, value in inputs.items()
            if name != "labels" and (isinstance(value, torch.Tensor | Cache) or name in accepted)
        }

    @torch.inference_mode()
    def generate(self, inputs: Any, **arguments: Any) -> torch.Tensor:
        """Generate for a batch of processor outputs; returns the new tokens [batch, steps]."""
        inputs = self.on_device(inputs)
        output: torch.Tensor = self.model.generate(**inputs, **arguments)
        prompt = inputs["input_ids"]
        length = prompt.shape[1]
        # Most families return prompt and answer; those fed with embeddings return only the answer.
        if output.shape[1] >= length and torch.equal(output[:, :length], prompt):
            output = output[:, length:]
        return output

    def endings(self, inputs: Any, output: torch.Tensor) -> list[tuple[str | None, bool]]:
        """``finish_reason`` and ``over_limit`` of each generated text.

        ``output``: the new tokens, [batch, steps].
        """
        n_prompt = inputs["attention_mask"].sum(1).tolist()
        if self.model.config.is_encoder_decoder:
            output = output[:, 1:]  # the first token starts the decoder, and may be an EOS token
        is_eos = torch.isin(output, torch.tensor(self.eos_ids, device=output.device)).cpu()
        found: list[tuple[str | None, bool]] = []
        for before, row in zip(n_prompt, is_eos, strict=True):
            ended = bool(row.any())
            after = int(row.int().argmax()) + 1 if ended else len(row)
            if self.model.config.is_encoder_decoder:
                after = 0  # the decoder's tokens do not follow the prompt
            found.append((None if ended else "length", self.exceeds_context(before + after)))
        return found

    # --- scoring without sharing: the plain path --------------------------------------------------

    def score_unshared(self, queries: Sequence[Query]) -> dict[Query, Response]:
        """Score one row per prompt and answer, with the model's own ``generate``."""
        inputs = self.inputs([query for query in queries for _ in query.request.candidates])
        prompts = iter(self.prompt_ids(inputs))
        failures: dict[Query, Response] = {}
        forced: list[list[int]] = []
        lengths: dict[Query, int] = {}
        for query in queries:
            prompt, *_ = (next(prompts) for _ in query.request.candidates)
            lengths[query] = len(prompt)
            try:
                forced += self.answers(query, prompt)
            except SampleError as error:
                failures[query] = Response(error=str(error))
                forced += [[self.eos_ids[0]]] * len(query.request.candidates)
        force = ForcedTokens(forced, self.pad_id)
        self.generate(
            inputs,
            max_new_tokens=force.steps,
            do_sample=False,
            eos_token_id=None,  # an answer may contain an EOS token
            logits_processor=LogitsProcessorList([force]),
        )
        responses: dict[Query, Response] = {}
        sums, tokens = iter(force.sums()), iter(forced)
        for query in queries:
            n = len(query.request.candidates)
            responses[query] = self.scored(
                list(islice(sums, n)), list(islice(tokens, n)), lengths[query]
            )
        return responses | failures

    def scored(
        self, sums: Sequence[float], answers: Sequence[Sequence[int]], n_prompt: int
    ) -> Response:
        """The response for the summed log-probability and the tokens of each candidate.

        ``n_prompt`` is the number of tokens of the prompt.
        """
        scores = tuple(
            OptionScore(total / len(ids), total, len(ids))
            for total, ids in zip(sums, answers, strict=True)
        )
        longest = max(map(len, answers), default=0)
        return Response(scores=scores, over_limit=self.exceeds_context(n_prompt + longest))

    def exceeds_context(self, n_tokens: int) -> bool:
        """Whether a prompt and its answer are longer than the model was made for."""
        return self._context is not None and n_tokens > self._context

    def answers(self, query: Query, prompt: Sequence[int]) -> list[list[int]]:
        """The tokens of each candidate as it follows the prompt, EOS included."""
        answers = self.formatter.answer_tokens(query.text, query.request.candidates, prompt)
        return [[*tokens, self.eos_ids[0]] for tokens in answers]

    # --- loading ----------------------------------------------------------------------------------

    def _upgrade_old_revision(self) -> None:
        """Add the image token that early revisions of BLIP-2 and InstructBLIP lack."""
        processor, config = self.formatter.processor, self.model.config
        if getattr(processor, "num_query_tokens", 0) is None:
            processor.num_query_tokens = config.num_query_tokens
        if getattr(config, "image_token_id", 0) is None:
            config.image_token_id = self.formatter.tokenizer.convert_tokens_to_ids("<image>")
            weight = self.model.get_input_embeddings().weight  # [vocabulary, width]
            missing = config.image_token_id + 1 - len(weight)
            if missing > 0:
                # Only the input embeddings grow, where image features replace the token. The
                # output vocabulary, and so every probability, stays as trained.
                wider = torch.cat([weight.detach(), weight.new_zeros(missing, weight.shape[1])])
                self.model.set_input_embeddings(
                    torch.nn.Embedding(len(wider), wider.shape[1], _weight=wider)
                )

    def _special_ids(self) -> tuple[list[int], int]:
        """The end-of-answer tokens, of which the first is scored, and the padding token."""
        eos = self.model.generation_config.eos_token_id
        if eos is None:
            eos = self.formatter.tokenizer.eos_token_id
        if eos is None:
            raise InputError(f"model {self.spec.model}: the checkpoint defines no EOS token")
        ids = [eos] if isinstance(eos, int) else list(eos)
        pad = self.formatter.tokenizer.pad_token_id
        return ids, ids[0] if pad is None else pad


def context_length(config: Any) -> int | None:
    """The number of tokens a model was made for; None if its configuration does not say.

    It is longer than ``max_position_embeddings`` if rotary embeddings are scaled.
    """
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int) or length <= 0:
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    factor = rope.get("factor")
    if not isinstance(factor, int | float):
        return length
    original = rope.get("original_max_position_embeddings") or length
    return max(length, int(original * factor))
