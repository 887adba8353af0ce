"""Vision-language models of transformers that generate text, through AutoModelForImageTextToText.

One path serves every family: the checkpoint's own processor makes the inputs, and both generation
and the scoring of answers run through the model's own ``generate``, so that positions, image
tokens, masks and caches are what the family's authors made them. An answer is scored by forcing its
tokens, one by one, and reading the log-probability of each from the model's logits. Where a model
lets prompts share their images and words, which is tried on it, that is done instead
(``hf_sharing``), with the same numbers.

Traps avoided here: sampling settings and repetition penalties that a checkpoint's
``generation_config.json`` would put into greedy decoding; answers that hold one of several EOS
tokens, behind which ``generate`` would stop scoring. Those of prompts: ``prompt_format``.
"""

import copy
import inspect
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    Cache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from vlm_harness.backends import decoding
from vlm_harness.backends.hf import prefix_tree
from vlm_harness.backends.hf.batch import Batch, Query, inputs_of, made_ready
from vlm_harness.backends.hf.loading import describe, load_pretrained, to_device
from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.backends.hf.sharing import Sharing, rows_of
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError
from vlm_harness.images import Pictures
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model, OptionScore, Request, Response


class HfVlm:
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
        # BLIP-2 and its kin put exactly one image before every prompt.
        self.one_image = pixels is not None and pixels.default is pixels.empty
        self._sharing = Sharing(self)
        self._made: dict[tuple[Query, ...], Any] = {}  # inputs of the batch that is computed

    def info(self) -> Model:
        return describe(
            self.model,
            self.spec,
            "hf_vlm",
            prompt_format=self.spec.prompt_format or "chat template",
            eos_token_id=self.eos_ids,
        )

    def row_of(self, request: Request) -> Hashable:
        """Prompts about the same images are one row of a batch where they share its beginning."""
        shares = request.kind == "score" and request.images
        if shares and self._sharing.unit("score", with_images=True) == "images":
            return request.images
        return object()

    def respond(self, requests: Sequence[Request], pictures: Pictures) -> list[Response | None]:
        return self.respond_to(made_ready(requests, pictures, self.formatter, self._check_images))

    def prepare(self, requests: Sequence[Request], pictures: Pictures) -> Batch:
        """A batch with its inputs made; called in a thread while another is computed."""
        formatter = self._own_formatter
        batch = made_ready(requests, pictures, formatter, self._check_images)
        for queries in batch.parts():
            if chosen := self._sent(queries):
                batch.inputs[tuple(chosen)] = inputs_of(formatter, chosen)
        return batch

    @cached_property
    def _own_formatter(self) -> PromptFormatter:
        """Of ``prepare``: a tokenizer keeps its padding, and is not for two threads at once."""
        return copy.deepcopy(self.formatter)

    def respond_to(self, batch: Batch) -> list[Response | None]:
        self._made = batch.inputs
        answers: dict[Query, Response] = {}
        for queries in batch.parts():
            generates = queries[0].request.kind == "generate"
            found = self._generate(queries) if generates else self._score(queries)
            answers |= dict(zip(queries, found, strict=True))
        responses: list[Response | None] = [None] * batch.size
        for index, query in batch.ready.items():
            responses[index] = answers[query]
        for index, reason in batch.failures.items():
            responses[index] = Response(error=reason)
        return responses

    def _sent(self, queries: Sequence[Query]) -> Sequence[Query]:
        """Those queries of a batch that the processor will be asked for; none where not known."""
        kind = queries[0].request.kind
        firsts = [row[0] for row in rows_of(queries, "images")]
        if kind == "generate" and len(firsts) == len(queries):
            return queries  # there is nothing to share
        known, unit = self._sharing.found(kind, bool(queries[0].images))
        if not known:
            return []  # it is tried by the batch that is computed now
        if unit == "images":
            return firsts
        if unit == "prompt" or kind == "generate":
            return queries
        return [query for query in queries for _ in query.request.candidates]

    def query(self, request: Request, images: Sequence[Image.Image]) -> Query:
        return Query(request, self.formatter.text(request), images)

    def _check_images(self, count: int) -> None:
        if self.one_image and count == 0:
            raise InputError(
                f"model {self.spec.model} cannot be asked without an image", where="--images none"
            )
        if self.one_image and count > 1:
            raise SampleError(f"model {self.spec.model} takes one image, not {count}")

    def _generate(self, queries: Sequence[Query]) -> list[Response]:
        name, arguments = decoding.parse(queries[0].request.decoding)
        settings = dict(decoding.DECODINGS.get(name)(**arguments))
        contrast = settings.pop("without_image", None)
        if contrast is not None:
            branch = self._without_image(queries)
            settings["logits_processor"] = LogitsProcessorList([Contrasted(branch, contrast)])
        output = self._run(
            self._generation_inputs(queries),
            max_new_tokens=queries[0].request.max_new_tokens,
            **settings,
        )
        texts = self.formatter.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [Response(text=text.strip()) for text in texts]

    def _generation_inputs(self, queries: Sequence[Query]) -> Any:
        """Of every prompt all of it, or what it has beyond what is shared and read already."""
        n_images = len(rows_of(queries, "images"))
        if n_images < len(queries) and self._sharing.unit("generate", bool(queries[0].images)):
            return self._sharing.continued(queries) or self.inputs(queries)
        return self.inputs(queries)

    def _score(self, queries: Sequence[Query]) -> list[Response]:
        """Mean log-probability of every candidate's tokens, EOS included."""
        if self.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.spec.model} is an encoder-decoder; answers are scored for "
                "decoder-only models",
                hint="Use --protocol generate.",
            )
        unit = self._sharing.unit("score", bool(queries[0].images))
        answered = self._sharing.score(queries, unit) if unit else {}
        if rest := [query for query in queries if query not in answered]:
            answered |= self.score_plain(rest)
        return [answered[query] for query in queries]

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
        self._run(
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

    def _without_image(self, queries: Sequence[Query]) -> "TextBranch":
        """The same prompts as they are asked without an image (``--images none``).

        Those of a pair are the same where question and order are, and are computed once.
        """
        if self.one_image or self.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.spec.model} cannot be asked without an image",
                where=f"--decoding {queries[0].request.decoding}",
            )
        texts = [self.formatter.text(replace(query.request, images=())) for query in queries]
        unique = list(dict.fromkeys(texts))
        inputs = self.formatter.inputs(unique, [[] for _ in unique])
        moved = self.moved(inputs)
        return TextBranch(
            self.model,
            moved["input_ids"],
            moved["attention_mask"],
            rows=[unique.index(text) for text in texts],
        )

    def inputs(self, queries: Sequence[Query]) -> Any:
        return self._made.pop(tuple(queries), None) or inputs_of(self.formatter, queries)

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
    def _run(self, inputs: Any, **arguments: Any) -> torch.Tensor:
        """``generate`` for a batch of processor outputs; returns the new tokens [batch, steps]."""
        moved = self.moved(inputs)
        output: torch.Tensor = self.model.generate(**moved, **arguments)
        prompt = moved["input_ids"]
        length = prompt.shape[1]
        # Most families return prompt and answer, some (fed by embeddings) the answer alone.
        if output.shape[1] >= length and torch.equal(output[:, :length], prompt):
            output = output[:, length:]
        return output

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


class TextBranch:
    """Carries prompts without images along while ``generate`` writes the answers to others.

    Args:
        input_ids, attention_mask: of the different prompts, [prompts, length], padded on the left.
        rows: which prompt each row of the batch that is generated has.
    """

    def __init__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        rows: Sequence[int],
    ) -> None:
        self._model, self._ids, self._mask = model, input_ids, attention_mask
        self._rows = torch.tensor(rows, device=input_ids.device)
        self._cache: dict[str, Any] = {}

    def next_logits(self, written: torch.Tensor | None) -> torch.Tensor:
        """Logits of the next token, [rows, vocabulary].

        ``written``: the token that was last written in each row, [rows, 1]; None at first.
        """
        ids = self._ids if written is None else written
        if written is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(written)], dim=1)
        positions = (self._mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            use_cache=True,
            **self._cache,
        )
        self._cache = prefix_tree.cache_of(self._model, output)
        logits: torch.Tensor = output.logits[:, -1]
        if written is not None:
            return logits
        for cache in self._cache.values():
            cache.reorder_cache(self._rows)  # from prompts to rows
        self._mask = self._mask[self._rows]
        return logits[self._rows]


class Contrasted(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Scores by what the image changes: see ``vlm_harness.backends.decoding.Contrast``."""

    def __init__(self, branch: TextBranch, contrast: decoding.Contrast) -> None:
        self._branch, self._contrast, self._step = branch, contrast, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """``scores``: logits with the image, [rows, vocabulary]."""
        without = self._branch.next_logits(input_ids[:, -1:] if self._step else None)
        result: torch.Tensor = self._contrast(
            scores.float().log_softmax(-1), without.float().log_softmax(-1), self._step
        )
        self._step += 1
        return result


class ForcedTokens(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Makes ``generate`` write given tokens, and keeps the log-probability of each.

    ``rows``: the tokens of each row of the batch, EOS included; rows may differ in length.
    """

    def __init__(self, rows: Sequence[Sequence[int]], pad_id: int) -> None:
        self.steps = max(len(row) for row in rows)
        self._lengths = [len(row) for row in rows]
        self._tokens = torch.tensor(
            [[*row, *[pad_id] * (self.steps - len(row))] for row in rows]
        )  # [rows, steps]
        self._logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """``scores``: logits of the next token, [rows, vocabulary]."""
        self._tokens = self._tokens.to(scores.device)
        token = self._tokens[:, len(self._logprobs), None]
        logprobs = torch.log_softmax(scores.float(), dim=-1)
        self._logprobs.append(logprobs.gather(1, token)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)

    def sums(self) -> list[float]:
        """Summed log-probability (natural log) of each row's tokens, in float64."""
        steps = torch.stack(self._logprobs, dim=1).cpu().double()  # [rows, steps]
        return [float(row[:n].sum()) for row, n in zip(steps, self._lengths, strict=True)]
