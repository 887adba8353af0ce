"""Generative VLMs of transformers, through AutoModelForImageTextToText.

All families use the same code. The checkpoint's processor makes the inputs, and both generation and
scoring run through the model's own ``generate``, so that positions, image tokens, masks and caches
are as the family's authors implemented them. To score an answer, its tokens are forced one by one
and the log-probability of each is read from the model's logits: the plain path (``loaded``). If a
trial shows that the model gives the same numbers when prompts share their common prefix, prefixes
are computed only once (``sharing``).
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
from vlm_harness.backends.hf.logits import ContrastWithoutImage, TextOnlyDecoder
from vlm_harness.backends.hf.prompt_format import PromptFormatter
from vlm_harness.backends.hf.sharing import PrefixSharing, group_queries
from vlm_harness.backends.interface import LoadOptions, PreparesBatches, SharesRows
from vlm_harness.errors import InputError
from vlm_harness.images import ImageLoader
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model, Request, Response


class HfVlm(SharesRows, PreparesBatches):
    """The backend ``hf_vlm``."""

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        self.loaded = LoadedVlm(spec, options)
        self._sharing = PrefixSharing(self.loaded)

    @property
    def formatter(self) -> PromptFormatter:
        return self.loaded.formatter

    def info(self) -> Model:
        return describe(
            self.loaded.model,
            self.loaded.spec,
            "hf_vlm",
            self.loaded.weights,
            prompt_format=self.loaded.spec.prompt_format or "chat template",
            eos_token_id=self.loaded.eos_ids,
        )

    def row_of(self, request: Request) -> Hashable:
        """Scored prompts about the same images are one row if they can share a prefix."""
        may_share = request.kind == "score" and request.images
        if may_share and self._sharing.scope("score", with_images=True) == "images":
            return request.images
        return object()

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        return self.respond_to(
            make_batch(requests, loader, self.loaded.formatter, self.loaded.check_images)
        )

    def prepare(self, requests: Sequence[Request], loader: ImageLoader) -> Batch:
        """Prepare a batch and its inputs; called in a thread while another batch runs."""
        formatter = self._thread_formatter
        batch = make_batch(requests, loader, formatter, self.loaded.check_images)
        for queries in batch.parts():
            if chosen := self._processed(queries):
                batch.inputs[tuple(chosen)] = inputs_of(formatter, chosen)
        return batch

    @cached_property
    def _thread_formatter(self) -> PromptFormatter:
        """A copy for ``prepare``: tokenizers store their padding and are not thread-safe."""
        return copy.deepcopy(self.loaded.formatter)

    def respond_to(self, batch: Batch) -> list[Response | None]:
        self.loaded.prepared = batch.inputs
        by_query: dict[Query, Response] = {}
        for queries in batch.parts():
            generates = queries[0].request.kind == "generate"
            answers = self._generate(queries) if generates else self._score(queries)
            by_query |= dict(zip(queries, answers, strict=True))
        responses: list[Response | None] = [None] * batch.size
        for index, query in batch.ready.items():
            responses[index] = by_query[query]
        for index, reason in batch.failures.items():
            responses[index] = Response(error=reason)
        return responses

    def _processed(self, queries: Sequence[Query]) -> Sequence[Query]:
        """The queries that will go through the processor; none while the scope is unknown."""
        kind = queries[0].request.kind
        firsts = [row[0] for row in group_queries(queries, "images")]
        if kind == "generate" and len(firsts) == len(queries):
            return queries  # nothing to share
        known, scope = self._sharing.known_scope(kind, bool(queries[0].images))
        if not known:
            return []  # the batch that runs now determines it
        if scope == "images":
            return firsts
        if scope == "prompt" or kind == "generate":
            return queries
        return [query for query in queries for _ in query.request.candidates]

    def _generate(self, queries: Sequence[Query]) -> list[Response]:
        name, arguments = decoding.parse(queries[0].request.decoding)
        settings = dict(decoding.DECODINGS.get(name)(**arguments))
        contrast = settings.pop("without_image", None)
        if contrast is not None:
            processor = ContrastWithoutImage(self._text_only(queries), contrast)
            settings["logits_processor"] = LogitsProcessorList([processor])
        inputs = self._generation_inputs(queries)
        limit = queries[0].request.max_new_tokens
        output = self.loaded.generate(inputs, max_new_tokens=limit, **settings)
        texts = self.loaded.formatter.tokenizer.batch_decode(output, skip_special_tokens=True)
        endings = self.loaded.endings(inputs, output)
        return [
            Response(text=text.strip(), finish_reason=reason, over_limit=over_limit)
            for text, (reason, over_limit) in zip(texts, endings, strict=True)
        ]

    def _generation_inputs(self, queries: Sequence[Query]) -> Any:
        """Inputs with a precomputed shared prefix if possible, else the complete prompts."""
        n_rows = len(group_queries(queries, "images"))
        if n_rows < len(queries) and self._sharing.scope("generate", bool(queries[0].images)):
            return self._sharing.continuation_inputs(queries) or self.loaded.inputs(queries)
        return self.loaded.inputs(queries)

    def _score(self, queries: Sequence[Query]) -> list[Response]:
        """Mean log-probability of every candidate's tokens, EOS included."""
        if self.loaded.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.loaded.spec.model} is an encoder-decoder; only decoder-only models "
                "can score answers",
                hint="Use --protocol generate.",
            )
        scope = self._sharing.scope("score", bool(queries[0].images))
        responses = self._sharing.score(queries, scope) if scope else {}
        if rest := [query for query in queries if query not in responses]:
            responses |= self.loaded.score_unshared(rest)
        return [responses[query] for query in queries]

    def _text_only(self, queries: Sequence[Query]) -> TextOnlyDecoder:
        """The same prompts without their images, formatted as for ``--images none``.

        Equal prompts, such as the two of a pair, are computed once.
        """
        if self.loaded.one_image or self.loaded.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.loaded.spec.model} cannot be evaluated without images",
                where=f"--decoding {queries[0].request.decoding}",
            )
        texts = [self.loaded.formatter.text(replace(query.request, images=())) for query in queries]
        unique = list(dict.fromkeys(texts))
        inputs = self.loaded.formatter.inputs(unique, [[] for _ in unique])
        inputs = self.loaded.on_device(inputs)
        return TextOnlyDecoder(
            self.loaded.model,
            inputs["input_ids"],
            inputs["attention_mask"],
            rows=[unique.index(text) for text in texts],
        )
