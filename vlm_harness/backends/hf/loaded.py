"""A vision-language model with its processor and special tokens, and its plain path.

Traps avoided here: sampling settings and repetition penalties that a checkpoint's
``generation_config.json`` would put into greedy decoding; answers that hold one of several EOS
tokens, behind which ``generate`` would stop scoring. Those of prompts: ``prompt_format``.
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
from vlm_harness.backends.hf.loading import load_pretrained, to_device
from vlm_harness.backends.hf.logits import ForcedTokens
from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import OptionScore, Request, Response


class LoadedVlm:
    """What generation, scoring and the sharing of prefixes have in common.

    Attributes:
        formatter: makes prompts and the processor's inputs.
        eos_ids: tokens that end an answer; the first is the one that is scored.
        one_image: whether every prompt has exactly one image (BLIP-2 and its kin).
        prepared: inputs of the current batch that were made ahead, by their queries.
    """

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self.spec = spec
        self.formatter = PromptFormatter(spec, options)
        self.model = load_pretrained(
            AutoModelForImageTextToText, spec, options, self.formatter.args
        )
        self._bring_up_to_date()
        self.eos_ids, self.pad_id = self._special_ids()
        # Only what must be kept of the checkpoint's own settings: see the module's docstring.
        own = self.model.generation_config
        plain = GenerationConfig(
            bos_token_id=own.bos_token_id,
            eos_token_id=self.eos_ids,
            pad_token_id=self.pad_id,
            decoder_start_token_id=own.decoder_start_token_id,
        )
        for module in self.model.modules():
            # BLIP-2's kin generate through their language model, by its own settings.
            if getattr(module, "generation_config", None) is not None:
                module.generation_config = plain
        pixels = inspect.signature(self.model.generate).parameters.get("pixel_values")
        self.one_image = pixels is not None and pixels.default is pixels.empty
        self.prepared: dict[tuple[Query, ...], Any] = {}

    def check_images(self, count: int) -> None:
        if self.one_image and count == 0:
            raise InputError(
                f"model {self.spec.model} cannot be asked without an image", where="--images none"
            )
        if self.one_image and count > 1:
            raise SampleError(f"model {self.spec.model} takes one image, not {count}")

    def query(self, request: Request, images: Sequence[Image.Image]) -> Query:
        return Query(request, self.formatter.text(request), images)

    def inputs(self, queries: Sequence[Query]) -> Any:
        return self.prepared.pop(tuple(queries), None) or inputs_of(self.formatter, queries)

    @staticmethod
    def prompt_ids(inputs: Any) -> list[list[int]]:
        """Tokens of the prompts of a batch, without padding."""
        return [
            ids[mask.bool()].tolist()
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]

    def moved(self, inputs: Any) -> dict[str, Any]:
        """Inputs where the model is; of what is no tensor, what the model has an argument for."""
        device, dtype = self.model.device, self.model.dtype

        def there(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return to_device(value, device, dtype)
            return [there(each) for each in value] if isinstance(value, list) else value

        takes = inspect.signature(self.model.forward).parameters
        return {
            name: there(value)
            for name, value in inputs.items()
            if name != "labels" and (isinstance(value, torch.Tensor | Cache) or name in takes)
        }

    @torch.inference_mode()
    def generate(self, inputs: Any, **arguments: Any) -> torch.Tensor:
        """``generate`` for a batch of processor outputs; returns the new tokens [batch, steps]."""
        moved = self.moved(inputs)
        output: torch.Tensor = self.model.generate(**moved, **arguments)
        prompt = moved["input_ids"]
        length = prompt.shape[1]
        # Most families return prompt and answer, some (fed by embeddings) the answer alone.
        if output.shape[1] >= length and torch.equal(output[:, :length], prompt):
            output = output[:, length:]
        return output

    # --- the plain path ---------------------------------------------------------------------------

    def score_plain(self, queries: Sequence[Query]) -> dict[Query, Response]:
        """One row for every prompt and answer, through the model's own ``generate``."""
        inputs = self.inputs([query for query in queries for _ in query.request.candidates])
        prompts = iter(self.prompt_ids(inputs))
        failures: dict[Query, Response] = {}
        forced: list[list[int]] = []
        for query in queries:
            prompt, *_ = (next(prompts) for _ in query.request.candidates)
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
            eos_token_id=None,  # an answer may hold one of them
            logits_processor=LogitsProcessorList([force]),
        )
        found: dict[Query, Response] = {}
        sums, tokens = iter(force.sums()), iter(forced)
        for query in queries:
            n = len(query.request.candidates)
            found[query] = self.scored(list(islice(sums, n)), list(islice(tokens, n)))
        return found | failures

    @staticmethod
    def scored(sums: Sequence[float], answers: Sequence[Sequence[int]]) -> Response:
        """From the summed log-probability and the tokens of every candidate."""
        pairs = zip(sums, answers, strict=True)
        return Response(
            scores=tuple(OptionScore(total / len(of), total, len(of)) for total, of in pairs)
        )

    def answers(self, query: Query, prompt: Sequence[int]) -> list[list[int]]:
        """Tokens of the candidates behind a prompt, EOS included."""
        answers = self.formatter.answer_tokens(query.text, query.request.candidates, prompt)
        return [[*tokens, self.eos_ids[0]] for tokens in answers]

    # --- loading ----------------------------------------------------------------------------------

    def _bring_up_to_date(self) -> None:
        """Gives early revisions of BLIP-2's kin what later ones hold: tokens for the image."""
        processor, config = self.formatter.processor, self.model.config
        if getattr(processor, "num_query_tokens", 0) is None:
            processor.num_query_tokens = config.num_query_tokens
        if getattr(config, "image_token_id", 0) is None:
            config.image_token_id = self.formatter.tokenizer.convert_tokens_to_ids("<image>")
            weight = self.model.get_input_embeddings().weight  # [vocabulary, width]
            missing = config.image_token_id + 1 - len(weight)
            if missing > 0:
                # In the input alone, where image features replace it: what the model can say, and
                # with it every probability, stays as it was trained.
                wider = torch.cat([weight.detach(), weight.new_zeros(missing, weight.shape[1])])
                self.model.set_input_embeddings(
                    torch.nn.Embedding(len(wider), wider.shape[1], _weight=wider)
                )

    def _special_ids(self) -> tuple[list[int], int]:
        """End-of-answer tokens (the first is the one that is scored) and the padding token."""
        eos = self.model.generation_config.eos_token_id
        if eos is None:
            eos = self.formatter.tokenizer.eos_token_id
        if eos is None:
            raise InputError(f"model {self.spec.model}: the checkpoint names no EOS token")
        ids = [eos] if isinstance(eos, int) else list(eos)
        pad = self.formatter.tokenizer.pad_token_id
        return ids, ids[0] if pad is None else pad
