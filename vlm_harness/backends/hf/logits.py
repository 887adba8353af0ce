"""Logits processors: forced answers, and contrast with the same prompt without its image."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from vlm_harness.backends import decoding
from vlm_harness.backends.hf import prefix_tree


class TextOnlyDecoder:
    """Decodes prompts without images in step with ``generate``, which decodes them with images.

    Args:
        input_ids, attention_mask: the distinct prompts, [prompts, length], padded on the left.
        rows: for each row of the generated batch, the index of its prompt.
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

    def next_logits(self, last: torch.Tensor | None) -> torch.Tensor:
        """Logits of the next token, [rows, vocabulary].

        ``last``: the last generated token of each row, [rows, 1]; None in the first step.
        """
        ids = self._ids if last is None else last
        if last is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=1)
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
        if last is not None:
            return logits
        for cache in self._cache.values():
            cache.reorder_cache(self._rows)  # from prompts to rows
        self._mask = self._mask[self._rows]
        return logits[self._rows]


class ContrastWithoutImage(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Applies a ``vlm_harness.backends.decoding.Contrast`` at every step."""

    def __init__(self, text_only: TextOnlyDecoder, contrast: decoding.Contrast) -> None:
        self._text_only, self._contrast, self._step = text_only, contrast, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """``scores``: logits with the image, [rows, vocabulary]."""
        without = self._text_only.next_logits(input_ids[:, -1:] if self._step else None)
        result: torch.Tensor = self._contrast(
            scores.float().log_softmax(-1), without.float().log_softmax(-1), self._step
        )
        self._step += 1
        return result


class ForcedTokens(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Makes ``generate`` produce given tokens, and records the log-probability of each.

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
