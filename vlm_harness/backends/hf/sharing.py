"""Which prompts of a batch share a prefix (see ``prefix_tree``), and whether the model supports it.

Support is measured, not looked up by the model's name: once per model, a few prompts about two
images are computed with and without sharing. If the numbers differ, or the model rejects the custom
masks and positions, every prompt is computed in a pass of its own.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from PIL import Image

from vlm_harness.backends.hf import prefix_tree
from vlm_harness.backends.hf.batch import Query
from vlm_harness.backends.hf.loaded import LoadedVlm
from vlm_harness.backends.hf.prefix_tree import TokenizedPrompt
from vlm_harness.backends.interface import MAX_PROMPTS_PER_ROW
from vlm_harness.errors import InputError, SampleError
from vlm_harness.types import ImageRef, Kind, Request, Response

logger = logging.getLogger(__name__)

Scope = Literal["images", "prompt"]
"""Which paths share a prefix: those of all prompts about the same images, or of a single prompt."""


class PrefixSharing:
    """Scores and generates with shared prefixes, if the model supports it."""

    def __init__(self, vlm: LoadedVlm) -> None:
        self._vlm = vlm
        self._window = _window(vlm.model.config)
        self._scopes: dict[tuple[Kind, bool], Scope | None] = {}  # by kind and with_images

    def scope(self, kind: Kind, with_images: bool) -> Scope | None:
        """The widest scope the model supports, measured at the first call; None if none."""
        known, scope = self.known_scope(kind, with_images)
        if not known:
            scope = self._scopes[kind, with_images] = self._measure(kind, with_images)
        return scope

    def known_scope(self, kind: Kind, with_images: bool) -> tuple[bool, Scope | None]:
        """Whether the scope is known without a measurement, and the scope."""
        vlm = self._vlm
        unsupported = vlm.one_image or vlm.model.config.is_encoder_decoder
        # Without an image, the common prefix is only a few tokens.
        too_short = kind == "generate" and not with_images
        if unsupported or too_short or not vlm.formatter.args.share_prefixes:
            return True, None
        key = kind, with_images
        return key in self._scopes, self._scopes.get(key)

    def score(self, queries: Sequence[Query], scope: Scope) -> dict[Query, Response]:
        """Like ``LoadedVlm.score_unshared``; leaves out prompts that cannot share a prefix."""
        vlm = self._vlm
        rows = group_queries(queries, scope)
        inputs = vlm.inputs([row[0] for row in rows])
        responses: dict[Query, Response] = {}
        tokenized: list[dict[Query, TokenizedPrompt]] = []
        for row, first in zip(rows, vlm.prompt_ids(inputs), strict=True):
            of_row: dict[Query, TokenizedPrompt] = {}
            try:
                prompts = self._prompts(row, first)
            except SampleError as error:
                responses |= dict.fromkeys(row, Response(error=str(error)))
                prompts = [None] * len(row)
            for query, tokens in zip(row, prompts, strict=True):
                if tokens is None:
                    continue
                try:
                    prompt = TokenizedPrompt(tokens, vlm.answers(query, tokens))
                except SampleError as error:
                    responses[query] = Response(error=str(error))
                    continue
                if self._window is None or prompt.length <= self._window:
                    of_row[query] = prompt
            tokenized.append(of_row)
        if not all(tokenized):  # leave out empty rows
            firsts = [row[0] for row, of_row in zip(rows, tokenized, strict=True) if of_row]
            if not firsts:
                return responses
            inputs = vlm.inputs(firsts)
            tokenized = [of_row for of_row in tokenized if of_row]
        totals = prefix_tree.score(
            vlm.model, vlm.on_device(inputs), [list(row.values()) for row in tokenized]
        )
        for of_row, sums_of_row in zip(tokenized, totals, strict=True):
            for (query, prompt), sums in zip(of_row.items(), sums_of_row, strict=True):
                responses[query] = vlm.scored(sums, prompt.answers, len(prompt.prompt))
        return responses

    def continuation_inputs(self, queries: Sequence[Query]) -> dict[str, Any] | None:
        """Compute the shared prefixes and return inputs of ``generate`` that continue them.

        None if a prompt cannot share its prefix.
        """
        vlm = self._vlm
        rows = group_queries(queries, "images")
        inputs = vlm.inputs([row[0] for row in rows])
        prompts: dict[Query, tuple[int, list[int]]] = {}  # row number and tokens
        lengths = []
        for number, (row, first) in enumerate(zip(rows, vlm.prompt_ids(inputs), strict=True)):
            try:
                maybe_tokens = self._prompts(row, first)
            except SampleError:
                return None
            tokens = [each for each in maybe_tokens if each is not None]
            if len(tokens) < len(row):
                return None
            longest = max(map(len, tokens)) + queries[0].request.max_new_tokens
            if self._window is not None and longest > self._window:
                return None  # padding between prefix and rest would use up part of the window
            # Each prompt keeps at least one token after the prefix.
            shared = prefix_tree.common_prefix(tokens)
            lengths.append(min(shared, min(map(len, tokens)) - 1))
            prompts |= {query: (number, each) for query, each in zip(row, tokens, strict=True)}
        prefix = prefix_tree.compute_prefix(vlm.model, vlm.on_device(inputs), lengths)
        ordered = [prompts[query] for query in queries]
        rests = [tokens[lengths[number] :] for number, tokens in ordered]
        row_numbers = [number for number, _ in ordered]
        return prefix_tree.continuation_inputs(prefix, row_numbers, rests, vlm.pad_id)

    def _prompts(self, row: Sequence[Query], first_ids: list[int]) -> list[list[int] | None]:
        """Tokens of a row's prompts, given the processor's tokens for the first one."""
        texts = [query.text for query in row]
        return self._vlm.formatter.prompt_tokens(texts, texts[0], first_ids)

    # --- measuring what a model supports ----------------------------------------------------------

    def _measure(self, kind: Kind, with_images: bool) -> Scope | None:
        queries = self._trial_queries(with_images)
        scopes: tuple[Scope, ...] = ("images", "prompt") if with_images else ("prompt",)
        if kind == "generate":
            scopes = ("images",)
        matches = self._generation_matches if kind == "generate" else self._scores_match
        reason = "the results would differ"
        for scope in scopes:
            try:
                if matches(queries, scope):
                    return scope
            except InputError:
                raise
            # A model may fail with any exception.
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning(
            "model %s: prompts about one image cannot share its computation (%s); each prompt is "
            "computed individually, which is slower",
            self._vlm.spec.model,
            reason,
        )
        return None

    def _trial_queries(self, with_images: bool) -> list[Query]:
        """Prompts of different lengths with a common prefix, about two images of different size."""
        shapes = ((224, 224), (160, 320)) if with_images else (None,)
        queries = []
        for number, shape in enumerate(shapes):
            images = [Image.radial_gradient("L").resize(shape).convert("RGB")] if shape else []
            refs = tuple(ImageRef(f"trial {number}", read=bytes) for _ in images)
            for words in ("left or right", "right side or rather on the left side"):
                prompt = f"Is the cup on the {words} of it? Answer {words}."
                request = Request("score", refs, prompt, ("left", "to the right"))
                queries.append(self._vlm.query(request, images))
        return queries

    def _scores_match(self, queries: Sequence[Query], scope: Scope) -> bool:
        vlm = self._vlm
        individually: dict[Query, Response] = {}
        for query in queries:
            individually |= vlm.score_unshared([query])
        shared = self.score(queries, scope)
        if any(query not in shared or shared[query].scores is None for query in queries):
            return False

        def scores(responses: dict[Query, Response]) -> torch.Tensor:
            return torch.tensor(
                [each.score for query in queries for each in responses[query].scores or ()]
            )

        expected = scores(individually)
        return self._close(
            (expected, scores(shared)), lambda: (expected, scores(vlm.score_unshared(queries)))
        )

    def _generation_matches(self, queries: Sequence[Query], scope: Scope) -> bool:
        vlm = self._vlm
        individually = [self._two_tokens(vlm.inputs([query])) for query in queries]
        expected_logprobs = torch.cat([logprobs for logprobs, _ in individually], dim=1)
        expected_first = torch.cat([first for _, first in individually])
        shared = self.continuation_inputs(queries)
        if shared is None:
            return False

        def compare(inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            """Expected and actual log-probabilities of likely tokens.

            For the second token, only of prompts whose first token is the same.
            """
            logprobs, first = self._two_tokens(inputs)
            comparable = (torch.ones_like(first, dtype=torch.bool), first == expected_first)
            pairs = []
            for one, other, rows in zip(expected_logprobs, logprobs, comparable, strict=True):
                likely = one[rows].topk(min(50, one.shape[-1])).indices
                pairs.append((one[rows].gather(1, likely), other[rows].gather(1, likely)))
            expected, actual = zip(*pairs, strict=True)
            return torch.cat(expected), torch.cat(actual)

        return self._close(compare(shared), lambda: compare(vlm.inputs(queries)))

    @torch.inference_mode()
    def _two_tokens(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities [2, batch, vocabulary] in float32, and the first token [batch]."""
        output = self._vlm.model.generate(
            **self._vlm.on_device(inputs),
            min_new_tokens=2,
            max_new_tokens=2,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = torch.stack(output.logits).float()
        return logits.log_softmax(-1), logits[0].argmax(-1)

    def _close(
        self,
        shared: tuple[torch.Tensor, torch.Tensor],
        batched: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    ) -> bool:
        """Whether two tensors (prompts computed individually, and shared) differ only by rounding.

        Rounding is large in half precision, but no larger than between a prompt computed
        individually and in a batch. A root-mean-square difference above three times that is not
        rounding.
        """
        if self._vlm.model.dtype == torch.float32:
            return torch.allclose(*shared, rtol=1e-4, atol=1e-4)

        def rms(one: torch.Tensor, other: torch.Tensor) -> float:
            return float((one - other).square().mean().sqrt())

        return rms(*shared) <= max(0.01, 3 * rms(*batched()))


def group_queries(queries: Sequence[Query], scope: Scope) -> list[list[Query]]:
    """Group queries into packed rows: one row per image or group of images, or per prompt."""
    if scope == "prompt":
        return [[query] for query in queries]
    rows: dict[object, list[Query]] = {}
    for query in queries:
        rows.setdefault(query.request.images, []).append(query)
    return [
        row[start : start + MAX_PROMPTS_PER_ROW]
        for row in rows.values()
        for start in range(0, len(row), MAX_PROMPTS_PER_ROW)
    ]


def _window(config: Any) -> int | None:
    """The smallest attention window of any layer, in tokens; None if all attention is full."""
    text = config.get_text_config()
    layers = getattr(text, "layer_types", None)
    if layers is not None and set(layers) == {"full_attention"}:
        return None
    if getattr(text, "use_sliding_window", True) is False:
        return None
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((window for window in windows if window), default=None)
