"""Vision-language models of transformers that generate text, through AutoModelForImageTextToText.

One path serves every family: the checkpoint's own processor makes the inputs, and both generation
and the scoring of answers run through the model's own ``generate``, so that positions, image
tokens, masks and caches are what the family's authors made them. An answer is scored by forcing its
tokens, one by one, and reading the log-probability of each from the model's logits. Where a model
lets prompts share their images and words, which is tried on it, that is done instead
(``prefix_tree``), with the same numbers.

Traps avoided here: a BOS token written by the chat template and added again by the tokenizer;
batches padded on the right, which shift what a decoder continues, or between image and text, which
moves the text away from the image; sampling settings and repetition penalties that a checkpoint's
``generation_config.json`` would put into greedy decoding; answers that hold one of several EOS
tokens, behind which ``generate`` would stop scoring.
"""

import inspect
import logging
import math
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from vlm_harness import decoding
from vlm_harness.backends import LoadOptions, Pictures, prefix_tree
from vlm_harness.backends.args import HfVlmArgs
from vlm_harness.backends.hf_common import describe, load_pretrained, loading
from vlm_harness.backends.prefix_tree import Branch
from vlm_harness.errors import InputError, SampleError
from vlm_harness.specs import ModelSpec
from vlm_harness.templates import TemplateError, compile_template
from vlm_harness.types import ImageRef, Model, OptionScore, Request, Response

logger = logging.getLogger(__name__)

_Unit = Literal["images", "prompt"]
"""What a row of a batch is where answers are scored: all prompts about its images, or one."""
PROMPTS_A_ROW = 64
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
            arguments["images"] = [list(pictures) for pictures in images]
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

    def prompt_tokens(self, text: str, first: str, first_ids: Sequence[int]) -> list[int] | None:
        """Tokens of a prompt about the images of ``first``, without asking the processor again.

        ``first_ids`` are those of the processor. What it made of the images stands before the words
        that end both its tokens and the text's; None where the prompt begins otherwise up to there.
        """
        added = self._added_by_processor(first, first_ids)
        plain, ids = self._ids([first + added, text + added])
        same = 0
        while same < len(plain) and plain[-1 - same] == first_ids[-1 - same]:
            same += 1
        head = len(plain) - same
        if ids[:head] != plain[:head]:
            return None
        return [*first_ids[: len(first_ids) - same], *ids[head:]]

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
        self._window = _window(self.model.config)
        self._shared: dict[bool, _Unit | None] = {}  # by whether there are images
        pixels = inspect.signature(self.model.generate).parameters.get("pixel_values")
        # BLIP-2 and its kin put exactly one image before every prompt.
        self._one_image = pixels is not None and pixels.default is pixels.empty

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
        if request.kind == "score" and self._sharing(bool(request.images)) == "images":
            return request.images
        return object()

    def respond(self, requests: Sequence[Request], pictures: Pictures) -> list[Response | None]:
        responses: list[Response | None] = [None] * len(requests)
        ready: list[tuple[int, _Query]] = []
        for index, request in enumerate(requests):
            try:
                self._check_images(len(request.images))
                images = [pictures.get(ref).pixels for ref in request.images]
                ready.append((index, _Query(request, self.formatter.text(request), images)))
            except SampleError as error:
                responses[index] = Response(error=str(error))
        # A processor cannot mix prompts with and without images in one call.
        for count in sorted({len(query.images) for _, query in ready}):
            part = [(i, query) for i, query in ready if len(query.images) == count]
            queries = [query for _, query in part]
            kind = queries[0].request.kind
            answers = self._generate(queries) if kind == "generate" else self._score(queries)
            for (index, _), answer in zip(part, answers, strict=True):
                responses[index] = answer
        return responses

    def _check_images(self, count: int) -> None:
        if self._one_image and count == 0:
            raise InputError(
                f"model {self.spec.model} cannot be asked without an image", where="--images none"
            )
        if self._one_image and count > 1:
            raise SampleError(f"model {self.spec.model} takes one image, not {count}")

    def _generate(self, queries: Sequence["_Query"]) -> list[Response]:
        name, arguments = decoding.parse(queries[0].request.decoding)
        settings = dict(decoding.DECODINGS.get(name)(**arguments))
        contrast = settings.pop("without_image", None)
        if contrast is not None:
            branch = self._without_image(queries)
            settings["logits_processor"] = LogitsProcessorList([Contrasted(branch, contrast)])
        output = self._run(
            self._inputs(queries),
            max_new_tokens=queries[0].request.max_new_tokens,
            **settings,
        )
        texts = self.formatter.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [Response(text=text.strip()) for text in texts]

    def _score(self, queries: Sequence["_Query"]) -> list[Response]:
        """Mean log-probability of every candidate's tokens, EOS included."""
        if self.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.spec.model} is an encoder-decoder; answers are scored for "
                "decoder-only models",
                hint="Use --protocol generate.",
            )
        shared = self._sharing(with_images=bool(queries[0].images))
        answered = self._score_shared(queries, shared) if shared else {}
        if rest := [query for query in queries if query not in answered]:
            answered |= self._score_plain(rest)
        return [answered[query] for query in queries]

    def _score_plain(self, queries: Sequence["_Query"]) -> "dict[_Query, Response]":
        """One row for every prompt and answer, through the model's own ``generate``."""
        inputs = self._inputs([query for query in queries for _ in query.request.candidates])
        prompts = iter(self._prompt_ids(inputs))
        failures: dict[_Query, Response] = {}
        forced: list[list[int]] = []
        for query in queries:
            prompt, *_ = (next(prompts) for _ in query.request.candidates)
            try:
                forced += self._answers(query, prompt)
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
        scores = map(_option_score, force.sums(), forced)
        return {
            query: Response(scores=tuple(next(scores) for _ in query.request.candidates))
            for query in queries
        } | failures

    def _score_shared(self, queries: Sequence["_Query"], unit: "_Unit") -> "dict[_Query, Response]":
        """Images once, and every beginning of prompts about them once: see ``prefix_tree``.

        Prompts that cannot share are left out.
        """
        rows = self._rows(queries, unit)
        inputs = self._inputs([row[0] for row in rows])
        answered: dict[_Query, Response] = {}
        branches: list[dict[_Query, Branch]] = []
        for row, first in zip(rows, self._prompt_ids(inputs), strict=True):
            branches.append({})
            for query in row:
                try:
                    branch = self._branch(query, row[0].text, first)
                except SampleError as error:
                    answered[query] = Response(error=str(error))
                    continue
                if branch is not None:
                    branches[-1][query] = branch
            # A row of nothing is in the batch all the same.
            branches[-1] = branches[-1] or {row[0]: Branch(first, [])}
        if not any(branch.answers for row in branches for branch in row.values()):
            return answered
        totals = prefix_tree.score(
            self.model, self._moved(inputs), [list(row.values()) for row in branches]
        )
        for asked, of_row in zip(branches, totals, strict=True):
            for (query, branch), sums in zip(asked.items(), of_row, strict=True):
                if branch.answers:
                    scores = map(_option_score, sums, branch.answers)
                    answered[query] = Response(scores=tuple(scores))
        return answered

    def _branch(self, query: "_Query", first: str, first_ids: Sequence[int]) -> Branch | None:
        """A prompt and its answers as tokens; None where it must stand alone."""
        prompt = self.formatter.prompt_tokens(query.text, first, first_ids)
        if prompt is None:
            return None
        branch = Branch(prompt, self._answers(query, prompt))
        return branch if self._window is None or branch.length <= self._window else None

    @staticmethod
    def _rows(queries: Sequence["_Query"], unit: "_Unit") -> "list[list[_Query]]":
        """Prompts that share their images (or nothing but their own answers), a row each."""
        if unit == "prompt":
            return [[query] for query in queries]
        rows: dict[object, list[_Query]] = {}
        for query in queries:
            rows.setdefault(query.request.images, []).append(query)
        return [
            row[start : start + PROMPTS_A_ROW]
            for row in rows.values()
            for start in range(0, len(row), PROMPTS_A_ROW)
        ]

    def _sharing(self, with_images: bool) -> "_Unit | None":
        """What prompts may share with this model, as its own numbers show; tried once.

        Raises:
            RuntimeError: out of memory.
        """
        if not self.formatter.args.share_prefixes or self._one_image:
            return None
        if with_images not in self._shared:
            self._shared[with_images] = self._find_sharing(with_images)
        return self._shared[with_images]

    def _find_sharing(self, with_images: bool) -> "_Unit | None":
        queries = self._trial(with_images)
        plain = self._score_plain(queries)
        if any(response.error for response in plain.values()):
            return None
        reason = ""
        units: tuple[_Unit, ...] = ("images", "prompt")
        for unit in units:
            try:
                shared = self._score_shared(queries, unit)
            # A model may refuse masks or positions of ours in any way it likes.
            except Exception as error:
                if "out of memory" in str(error).lower():
                    raise
                reason = f"{type(error).__name__}: {error}"
                continue
            if all(query in shared and self._same(shared[query], plain[query]) for query in plain):
                return unit
            reason = "its scores would be others"
        logger.warning(
            "model %s: prompts about one image cannot share it (%s); every answer is scored by a "
            "pass of its own, which is slower",
            self.spec.model,
            reason.splitlines()[0],
        )
        return None

    def _trial(self, with_images: bool) -> "list[_Query]":
        """Prompts that begin alike, on two pictures of different shape."""
        shapes = ((224, 224), (160, 320)) if with_images else (None,)
        queries = []
        for number, shape in enumerate(shapes):
            images = [Image.radial_gradient("L").resize(shape).convert("RGB")] if shape else []
            refs = tuple(ImageRef(f"trial {number}", read=bytes) for _ in images)
            for words in ("left or right", "right or left"):
                prompt = f"Is the cup on the {words} of it? Answer {words}."
                request = Request("score", refs, prompt, ("left", "to the right"))
                queries.append(_Query(request, self.formatter.text(request), images))
        return queries

    def _same(self, one: Response, other: Response) -> bool:
        """Whether two responses differ by rounding alone, as far as the dtype lets one see it."""
        tolerance = 1e-4 if self.model.dtype == torch.float32 else 0.05
        return all(
            math.isclose(a.score, b.score, rel_tol=tolerance, abs_tol=tolerance)
            for a, b in zip(one.scores or (), other.scores or (), strict=True)
        )

    def _answers(self, query: "_Query", prompt: Sequence[int]) -> list[list[int]]:
        """Tokens of the candidates behind a prompt, EOS included."""
        answers = self.formatter.answer_tokens(query.text, query.request.candidates, prompt)
        return [[*tokens, self.eos_ids[0]] for tokens in answers]

    def _without_image(self, queries: Sequence["_Query"]) -> "TextBranch":
        """The same prompts as they are asked without an image (``--images none``).

        Those of a pair are the same where question and order are, and are computed once.
        """
        if self._one_image or self.model.config.is_encoder_decoder:
            raise InputError(
                f"model {self.spec.model} cannot be asked without an image",
                where=f"--decoding {queries[0].request.decoding}",
            )
        texts = [self.formatter.text(replace(query.request, images=())) for query in queries]
        unique = list(dict.fromkeys(texts))
        inputs = self.formatter.inputs(unique, [[] for _ in unique])
        moved = {
            name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")
        }
        return TextBranch(self.model, **moved, rows=[unique.index(text) for text in texts])

    def _inputs(self, queries: Sequence["_Query"]) -> Any:
        return self.formatter.inputs([q.text for q in queries], [q.images for q in queries])

    @staticmethod
    def _prompt_ids(inputs: Any) -> list[list[int]]:
        """Tokens of the prompts of a batch, without padding."""
        return [
            ids[mask.bool()].tolist()
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]

    def _moved(self, inputs: Any) -> dict[str, torch.Tensor]:
        return {
            name: value.to(self.model.device, self.model.dtype)
            if value.is_floating_point()
            else value.to(self.model.device)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name != "labels"
        }

    @torch.inference_mode()
    def _run(self, inputs: Any, **arguments: Any) -> torch.Tensor:
        """``generate`` for a batch of processor outputs; returns the new tokens [batch, steps]."""
        moved = self._moved(inputs)
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


@dataclass(frozen=True, eq=False)
class _Query:
    request: Request
    text: str
    images: Sequence[Image.Image]


def _option_score(total: float, tokens: Sequence[int]) -> OptionScore:
    return OptionScore(total / len(tokens), total, len(tokens))


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
    """Scores by what the image changes: see ``vlm_harness.decoding.Contrast``."""

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
        token = self._tokens[:, len(self._logprobs), None].to(scores.device)
        logprobs = torch.log_softmax(scores.float(), dim=-1)
        self._logprobs.append(logprobs.gather(1, token)[:, 0].cpu())
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)

    def sums(self) -> list[float]:
        """Summed log-probability (natural log) of each row's tokens, in float64."""
        steps = torch.stack(self._logprobs, dim=1).double()  # [rows, steps]
        return [float(row[:n].sum()) for row, n in zip(steps, self._lengths, strict=True)]
