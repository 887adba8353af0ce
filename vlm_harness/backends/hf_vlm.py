"""Vision-language models of transformers that generate text, through AutoModelForImageTextToText.

One path serves every family: the checkpoint's own processor makes the inputs, and both generation
and the scoring of answers run through the model's own ``generate``, so that positions, image
tokens, masks and caches are what the family's authors made them. An answer is scored by forcing its
tokens, one by one, and reading the log-probability of each from the model's logits.

Traps avoided here: a BOS token written by the chat template and added again by the tokenizer;
batches padded on the right, which shift what a decoder continues, or between image and text, which
moves the text away from the image; sampling settings and repetition penalties that a checkpoint's
``generation_config.json`` would put into greedy decoding; answers that hold one of several EOS
tokens, behind which ``generate`` would stop scoring.
"""

import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from vlm_harness import decoding
from vlm_harness.backends import LoadOptions, Pictures
from vlm_harness.backends.args import HfVlmArgs
from vlm_harness.backends.hf_common import describe, load_pretrained, loading
from vlm_harness.errors import InputError, SampleError
from vlm_harness.specs import ModelSpec
from vlm_harness.templates import TemplateError, compile_template
from vlm_harness.types import Model, OptionScore, Request, Response

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

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

    def inputs(self, texts: Sequence[str], images: Sequence[Sequence["Image"]]) -> Any:
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

    def answer_tokens(self, text: str, answer: str, prompt_ids: Sequence[int]) -> list[int]:
        """Tokens that ``prompt + answer_prefix + answer`` has beyond the prompt, without EOS.

        ``prompt_ids`` are those of the processor, in which image placeholders are expanded; only
        their end is compared, to see that the text tokenised here is the text the model gets.

        Raises:
            SampleError: the answer merges with the prompt's last token, or has no token.
        """
        for text_as_sent in (text, text + "\n"):  # PaliGemma's processor ends the prompt itself
            prompt = self._ids(text_as_sent)
            tail = min(3, len(prompt))
            if list(prompt_ids[-tail:]) == prompt[-tail:]:
                break
        else:
            raise SampleError("the processor changes the prompt's text; answers cannot be scored")
        whole = self._ids(text_as_sent + self.answer_prefix(text_as_sent) + answer)
        if whole[: len(prompt)] != prompt:
            raise SampleError(
                f"the answer {answer!r} merges with the end of the prompt {text_as_sent[-20:]!r}; "
                "set answer_prefix in the model file"
            )
        if len(whole) == len(prompt):
            raise SampleError(f"the answer {answer!r} has no token of its own")
        return whole[len(prompt) :]

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=not self._has_bos(text))["input_ids"]
        # Some tokenizers end every text with EOS; a prompt that is to be continued has none.
        if ids and ids[-1] == self.tokenizer.eos_token_id and not self._ends_with_eos(text):
            ids = ids[:-1]
        return list(ids)

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
        rows = [(query, answer) for query in queries for answer in query.request.candidates]
        inputs = self._inputs([query for query, _ in rows])
        forced: list[list[int]] = []
        failures: dict[_Query, str] = {}
        for (query, answer), ids, mask in zip(
            rows, inputs["input_ids"], inputs["attention_mask"], strict=True
        ):
            tokens: list[int] = []
            try:
                prompt_ids = ids[mask.bool()].tolist()
                tokens = self.formatter.answer_tokens(query.text, answer, prompt_ids)
            except SampleError as error:
                failures[query] = str(error)
            forced.append([*tokens, self.eos_ids[0]])
        force = ForcedTokens(forced, self.pad_id)
        self._run(
            inputs,
            max_new_tokens=force.steps,
            do_sample=False,
            eos_token_id=None,  # an answer may hold one of them
            logits_processor=LogitsProcessorList([force]),
        )
        scores: dict[_Query, list[OptionScore]] = {}
        for (query, _), tokens, total in zip(rows, forced, force.sums(), strict=True):
            score = OptionScore(total / len(tokens), total, len(tokens))
            scores.setdefault(query, []).append(score)
        return [
            Response(error=failures[query])
            if query in failures
            else Response(scores=tuple(scores[query]))
            for query in queries
        ]

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

    @torch.inference_mode()
    def _run(self, inputs: Any, **arguments: Any) -> torch.Tensor:
        """``generate`` for a batch of processor outputs; returns the new tokens [batch, steps]."""
        moved = {
            name: value.to(self.model.device, self.model.dtype)
            if value.is_floating_point()
            else value.to(self.model.device)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and name != "labels"
        }
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
    images: Sequence["Image"]


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
        self._cache: Any = None
        # Newer versions of transformers call the argument `cache`.
        renamed = "cache" in inspect.signature(model.forward).parameters
        self._cache_name = "cache" if renamed else "past_key_values"

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
            **{self._cache_name: self._cache},
        )
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1]
        if written is not None:
            return logits
        self._cache.reorder_cache(self._rows)  # from prompts to rows
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
