"""Which prompts of a batch share what they begin with, and whether a model lets them.

That a model's numbers stay the same is not told by its name but seen: once a model, a few prompts
about two loader are answered both ways. Where they differ, or the model refuses our masks and
positions, every prompt is read by a pass of its own.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from PIL import Image

from vlm_harness.backends.hf import prefix_tree
from vlm_harness.backends.hf.batch import Query
from vlm_harness.backends.hf.loaded import LoadedVlm
from vlm_harness.backends.hf.prefix_tree import Branch
from vlm_harness.backends.interface import PROMPTS_A_ROW
from vlm_harness.errors import InputError, SampleError
from vlm_harness.types import ImageRef, Kind, Request, Response

logger = logging.getLogger(__name__)

Unit = Literal["images", "prompt"]
"""What is read once: loader for all prompts about them, or a prompt for all of its answers."""


class Sharing:
    """Scores and generates for a model where prompts can share."""

    def __init__(self, vlm: LoadedVlm) -> None:
        self._vlm = vlm
        self._window = _window(vlm.model.config)
        self._found: dict[tuple[Kind, bool], Unit | None] = {}  # the latter: with images

    def unit(self, kind: Kind, with_images: bool) -> Unit | None:
        """What prompts may share with this model; None where nothing."""
        known, unit = self.found(kind, with_images)
        if not known:
            unit = self._found[kind, with_images] = self._try(kind, with_images)
        return unit

    def found(self, kind: Kind, with_images: bool) -> tuple[bool, Unit | None]:
        """Whether it is known by now what prompts may share, and that."""
        vlm = self._vlm
        plain = vlm.one_image or vlm.model.config.is_encoder_decoder
        # Without an image, what prompts begin with is a few tokens.
        few = kind == "generate" and not with_images
        if plain or few or not vlm.formatter.args.share_prefixes:
            return True, None
        key = kind, with_images
        return key in self._found, self._found.get(key)

    def score(self, queries: Sequence[Query], unit: Unit) -> dict[Query, Response]:
        """As ``LoadedVlm.score_plain``; prompts that cannot share are left out."""
        vlm = self._vlm
        rows = rows_of(queries, unit)
        inputs = vlm.inputs([row[0] for row in rows])
        answered: dict[Query, Response] = {}
        branches: list[dict[Query, Branch]] = []
        for row, first in zip(rows, vlm.prompt_ids(inputs), strict=True):
            of_row: dict[Query, Branch] = {}
            try:
                prompts = self._prompts(row, first)
            except SampleError as error:
                answered |= dict.fromkeys(row, Response(error=str(error)))
                prompts = [None] * len(row)
            for query, prompt in zip(row, prompts, strict=True):
                if prompt is None:
                    continue
                try:
                    branch = Branch(prompt, vlm.answers(query, prompt))
                except SampleError as error:
                    answered[query] = Response(error=str(error))
                    continue
                if self._window is None or branch.length <= self._window:
                    of_row[query] = branch
            branches.append(of_row)
        if not all(branches):  # rows of nothing are left out
            firsts = [row[0] for row, of_row in zip(rows, branches, strict=True) if of_row]
            if not firsts:
                return answered
            inputs = vlm.inputs(firsts)
            branches = [of_row for of_row in branches if of_row]
        totals = prefix_tree.score(
            vlm.model, vlm.moved(inputs), [list(row.values()) for row in branches]
        )
        for asked, sums_of_row in zip(branches, totals, strict=True):
            for (query, branch), sums in zip(asked.items(), sums_of_row, strict=True):
                answered[query] = vlm.scored(sums, branch.answers)
        return answered

    def continued(self, queries: Sequence[Query]) -> dict[str, Any] | None:
        """Inputs of ``generate`` behind what is shared, which is read here; None where some
        prompt cannot share.
        """
        vlm = self._vlm
        rows = rows_of(queries, "images")
        inputs = vlm.inputs([row[0] for row in rows])
        prompts: dict[Query, tuple[int, list[int]]] = {}
        lengths = []
        for number, (row, first) in enumerate(zip(rows, vlm.prompt_ids(inputs), strict=True)):
            try:
                found = self._prompts(row, first)
            except SampleError:
                return None
            tokens = [each for each in found if each is not None]
            if len(tokens) < len(row):
                return None
            longest = max(map(len, tokens)) + queries[0].request.max_new_tokens
            if self._window is not None and longest > self._window:
                return None  # padding between trunk and rest would take a part of the window
            # A token at least is left to each.
            shared = prefix_tree.common_prefix(tokens)
            lengths.append(min(shared, min(map(len, tokens)) - 1))
            prompts |= {query: (number, each) for query, each in zip(row, tokens, strict=True)}
        trunk = prefix_tree.read_trunk(vlm.model, vlm.moved(inputs), lengths)
        asked = [prompts[query] for query in queries]
        rests = [tokens[lengths[number] :] for number, tokens in asked]
        return prefix_tree.continued(trunk, [number for number, _ in asked], rests, vlm.pad_id)

    def _prompts(self, row: Sequence[Query], first_ids: list[int]) -> list[list[int] | None]:
        """Tokens of a row's prompts, from those that the processor made of the first."""
        texts = [query.text for query in row]
        return self._vlm.formatter.prompt_tokens(texts, texts[0], first_ids)

    # --- whether a model allows it ----------------------------------------------------------------

    def _try(self, kind: Kind, with_images: bool) -> Unit | None:
        queries = self._trial(with_images)
        units: tuple[Unit, ...] = ("images", "prompt") if with_images else ("prompt",)
        if kind == "generate":
            units = ("images",)
        same = self._writes_the_same if kind == "generate" else self._scores_the_same
        reason = "its numbers would be others"
        for unit in units:
            try:
                if same(queries, unit):
                    return unit
            except InputError:
                raise
            # A model may refuse in any way it likes.
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning(
            "model %s: prompts about one image cannot share it (%s); each is read by a pass of its "
            "own, which is slower",
            self._vlm.spec.model,
            reason,
        )
        return None

    def _trial(self, with_images: bool) -> list[Query]:
        """Prompts of different lengths that begin alike, on two loader of different shape."""
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

    def _scores_the_same(self, queries: Sequence[Query], unit: Unit) -> bool:
        vlm = self._vlm
        alone: dict[Query, Response] = {}
        for query in queries:
            alone |= vlm.score_plain([query])
        shared = self.score(queries, unit)
        if any(query not in shared or shared[query].scores is None for query in queries):
            return False

        def numbers(found: dict[Query, Response]) -> torch.Tensor:
            return torch.tensor([x.score for query in queries for x in found[query].scores or ()])

        expected = numbers(alone)
        return self._close(
            (expected, numbers(shared)), lambda: (expected, numbers(vlm.score_plain(queries)))
        )

    def _writes_the_same(self, queries: Sequence[Query], unit: Unit) -> bool:
        vlm = self._vlm
        alone = [self._two_tokens(vlm.inputs([query])) for query in queries]
        expected = (torch.cat([x for x, _ in alone], dim=1), torch.cat([x for _, x in alone]))
        shared = self.continued(queries)
        if shared is None:
            return False

        def beside(inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            """Log-probabilities of likely tokens; of the second where the first was the same."""
            logprobs, first = self._two_tokens(inputs)
            rows = (torch.ones_like(first, dtype=torch.bool), first == expected[1])
            pairs = []
            for one, other, same in zip(expected[0], logprobs, rows, strict=True):
                likely = one[same].topk(min(50, one.shape[-1])).indices
                pairs.append((one[same].gather(1, likely), other[same].gather(1, likely)))
            first_of, second_of = zip(*pairs, strict=True)
            return torch.cat(first_of), torch.cat(second_of)

        return self._close(beside(shared), lambda: beside(vlm.inputs(queries)))

    @torch.inference_mode()
    def _two_tokens(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities [2, batch, vocabulary] in float32, and the first token [batch]."""
        written = self._vlm.model.generate(
            **self._vlm.moved(inputs),
            min_new_tokens=2,
            max_new_tokens=2,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = torch.stack(written.logits).float()
        return logits.log_softmax(-1), logits[0].argmax(-1)

    def _close(
        self,
        shared: tuple[torch.Tensor, torch.Tensor],
        batched: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    ) -> bool:
        """Whether numbers (of each prompt alone, and shared) differ by rounding alone.

        In half precision rounding is large, and as large as between a prompt alone and in a batch:
        more than three times that (root mean square) is something else.
        """
        if self._vlm.model.dtype == torch.float32:
            return torch.allclose(*shared, rtol=1e-4, atol=1e-4)

        def apart(one: torch.Tensor, other: torch.Tensor) -> float:
            return float((one - other).square().mean().sqrt())

        return apart(*shared) <= max(0.01, 3 * apart(*batched()))


def rows_of(queries: Sequence[Query], unit: Unit) -> list[list[Query]]:
    """Prompts that share their images (or nothing but their own answers), a row each."""
    if unit == "prompt":
        return [[query] for query in queries]
    rows: dict[object, list[Query]] = {}
    for query in queries:
        rows.setdefault(query.request.images, []).append(query)
    return [
        row[start : start + PROMPTS_A_ROW]
        for row in rows.values()
        for start in range(0, len(row), PROMPTS_A_ROW)
    ]


def _window(config: Any) -> int | None:
    """How far back some layers see, in tokens; None where all see everything."""
    text = config.get_text_config()
    layers = getattr(text, "layer_types", None)
    if layers is not None and set(layers) == {"full_attention"}:
        return None
    if getattr(text, "use_sliding_window", True) is False:
        return None
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((window for window in windows if window), default=None)
