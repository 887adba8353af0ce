"""Dual encoders of open_clip: ``architecture:tag``, a hub repository, a folder, or a weights file.

Pitfalls handled here:

* A caption is truncated at the model's context length, without a message.

Those of checkpoints: ``checkpoint``.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vlm_harness.backends import hub
from vlm_harness.backends.dual_encoder import DualEncoder, Embeddings
from vlm_harness.backends.hf.loading import (
    keep_freed_memory,
    loading,
    pick_device,
    pick_dtype,
    to_device,
)
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.backends.open_clip import OpenClipArgs
from vlm_harness.backends.open_clip.checkpoint import (
    activation,
    load_model,
    parse,
    repositories,
)
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model

if TYPE_CHECKING:
    from PIL.Image import Image


class OpenClip(DualEncoder):
    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        super().__init__()
        import open_clip

        self.spec = spec
        args = OpenClipArgs.model_validate(spec.args)
        self.device = pick_device(args.device, options)
        keep_freed_memory(self.device)
        dtype = pick_dtype(args.dtype, options, self.device)
        self.dtype = torch.float32 if dtype == "auto" else dtype
        with loading(spec), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._activation = activation(spec)
            name, _ = parse(spec.checkpoint)
            self._architecture = name
            self.model, self._transform, self._weights = load_model(
                spec, self._activation.quick_gelu, self.device
            )
            self.tokenizer = open_clip.get_tokenizer(name, cache_dir=args.cache_dir)
        self.model.eval()

    def info(self) -> Model:
        commits = hub.cached_commits(repositories(self.spec))
        return Model(
            name=self.spec.model,
            backend="open_clip",
            checkpoint=self.spec.checkpoint,
            revision=self.spec.revision or next(iter(commits.values()), None),
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            parameters=sum(p.numel() for p in self.model.parameters()),
            details={
                "context_length": getattr(self.model, "context_length", None),
                "vision_encoder": self._architecture,
                **self._activation.details,
                **({"commits": commits} if commits else {}),
                **self._weights.details,
            },
            notes=[*self._activation.notes, *self._weights.notes],
        )

    def preprocess(self, image: "Image") -> torch.Tensor:
        pixels: torch.Tensor = self._transform(image)
        return pixels

    @torch.inference_mode()
    def embed_prepared(self, images: Sequence[torch.Tensor]) -> Embeddings:
        pixels = to_device(torch.stack(list(images)), self.device, torch.float32)
        with self._precision():
            return _unit(self.model.encode_image(pixels))

    def over_limit(self, texts: Sequence[str]) -> list[bool]:
        """Whether one more place for tokens would hold another token of the text.

        ``tokenizer`` may be any of open_clip's, which clean texts and truncate them differently.
        """
        places = self.tokenizer.context_length
        lengths = dict(zip(texts, self._lengths(texts, places), strict=True))
        full = [text for text, length in lengths.items() if length >= places - 1]
        more = dict(zip(full, self._lengths(full, places + 1), strict=True))
        return [more.get(text, 0) > lengths[text] for text in texts]

    def _lengths(self, texts: Sequence[str], places: int) -> list[int]:
        """Numbers of places up to the last one that differs from an empty text."""
        *rows, empty = self.tokenizer([*texts, ""], context_length=places)
        own = getattr(self.tokenizer, "tokenizer", None)  # of transformers
        if getattr(own, "padding_side", "right") == "left":
            rows, empty = [row.flip(0) for row in rows], empty.flip(0)
        different = [(row != empty).nonzero() for row in rows]
        return [int(each[-1]) + 1 if len(each) else 0 for each in different]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        tokens = to_device(self.tokenizer(list(texts)), self.device, None)
        with self._precision():
            return _unit(self.model.encode_text(tokens))

    def _precision(self) -> Any:
        # Autocast rather than half-precision weights keeps layer norms and projection in float32.
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def _unit(features: torch.Tensor) -> Embeddings:
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), dtype=np.float32)
