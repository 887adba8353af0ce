"""Vision-language models of transformers that generate text, through AutoModelForImageTextToText.

One path serves every family: the checkpoint's own processor makes the inputs, and both generation
and the scoring of answers run through the model's own ``generate``, so that positions, image
tokens, masks and caches are what the family's authors made them. An answer is scored by forcing its
tokens, one by one, and reading the log-probability of each from the model's logits. That is the
plain path (``loaded``). Where a model lets prompts share their images and words, which is tried on
it, that is done instead (``sharing``), with the same numbers.
"""

import copy
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from transformers import LogitsProcessorList

from vlm_harness.backends import decoding
from vlm_harness.backends.hf.batch import Batch, Query, inputs_of, make_batch
from vlm_harness.backends.hf.loaded import LoadedVlm
from vlm_harness.backends.hf.loading import describe
from vlm_harness.backends.hf.logits import Contrasted, TextBranch
from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.backends.hf.sharing import Sharing, rows_of
from vlm_harness.backends.interface import LoadOptions, PreparesBatches, SharesRows
from vlm_harness.errors import InputError
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model, Request, Response


class HfVlm(SharesRows, PreparesBatches):
    """The backend ``hf_vlm``."""

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self.loaded = LoadedVlm(spec, options)
        self._sharing = Sharing(self.loaded)

    @property
    def formatter(self) -> PromptFormatter:
        return self.loaded.formatter

    def info(self) -> Model:
        return describe(
            self.loaded.model,
            self.loaded.spec,
            "hf_vlm",
            prompt_format=self.loaded.spec.prompt_format or "chat template",
            eos_token_id=self.loaded.eos_ids,
        )

    def row_of(self, request: Request) -> Hashable:
        """Prompts about the same images are one row of a batch where they share its beginning."""
        shares = request.kind == "score" and request.images
        if shares and self._sharing.unit("score", with_images=True) == "images":
            return request.images
        return object()

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        return self.respond_to(
            make_batch(requests, loader, self.loaded.formatter, self.loaded.check_images)
        )

    def prepare(self, requests: Sequence[Request], loader: ImageLoader) -> Batch:
        """A batch with its inputs made; called in a thread while another is computed."""
        formatter = self._own_formatter
        batch = make_batch(requests, loader, formatter, self.loaded.check_images)
        for queries in batch.parts():
            if chosen := self._sent(queries):
                batch.inputs[tuple(chosen)] = inputs_of(formatter, chosen)
        return batch

    @cached_property
    def _own_formatter(self) -> PromptFormatter:
        """Of ``prepare``: a tokenizer keeps its padding, and is not for two threads at once."""
        return copy.deepcopy(self.loaded.formatter)

    def respond_to(self, batch: Batch) -> list[Response | None]:
        self.loaded.prepared = batch.inputs
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

    def _generate(self, queries: Sequence[Query]) -> list[Response]:
        name, arguments = decoding.parse(queries[0].request.decoding)
        settings = dict(decoding.DECODINGS.get(name)(**arguments))
        contrast = settings.pop("without_image", None)
        if contrast is not None:
            branch = self._without_image(queries)
            settings["logits_processor"] = LogitsProcessorList([Contrasted(branch, contrast)])
        output = self.loaded.generate(
            self._generation_inputs(queries),
            max_new_tokens=queries[0].request.max_new_tokens,
            **settings,
        )
        texts = self.loaded.formatter.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [Response(text=text.strip()) for text in texts]

    def _generation_inputs(self, queries: Sequence[Query]) -> Any:
        """Of every prompt all of it, or what it has beyond what is shared and read already."""
        n_images = len(rows_of(queries, "images"))
        if n_images < len(queries) and self._sharing.unit("generate", bool(queries[0].images)):
            return self._sharing.continued(queries) or self.loaded.inputs(queries)
        return self.loaded.inputs(queries)

    def _score(self, queries: Sequence[Query]) -> list[Response]:
        """Mean log-probability of every candidate's tokens, EOS included."""
        if self.loaded.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.loaded.spec.model} is an encoder-decoder; answers are scored for "
                "decoder-only models",
                hint="Use --protocol generate.",
            )
        unit = self._sharing.unit("score", bool(queries[0].images))
        answered = self._sharing.score(queries, unit) if unit else {}
        if rest := [query for query in queries if query not in answered]:
            answered |= self.loaded.score_plain(rest)
        return [answered[query] for query in queries]

    def _without_image(self, queries: Sequence[Query]) -> TextBranch:
        """The same prompts as they are asked without an image (``--images none``).

        Those of a pair are the same where question and order are, and are computed once.
        """
        if self.loaded.one_image or self.loaded.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.loaded.spec.model} cannot be asked without an image",
                where=f"--decoding {queries[0].request.decoding}",
            )
        texts = [self.loaded.formatter.text(replace(query.request, images=())) for query in queries]
        unique = list(dict.fromkeys(texts))
        inputs = self.loaded.formatter.inputs(unique, [[] for _ in unique])
        moved = self.loaded.moved(inputs)
        return TextBranch(
            self.loaded.model,
            moved["input_ids"],
            moved["attention_mask"],
            rows=[unique.index(text) for text in texts],
        )
