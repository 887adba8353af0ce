"""Dual encoders of transformers, through AutoModel and AutoProcessor.

Pitfalls handled here:

* SigLIP was trained on texts padded to full length on the right, without a mask over the padding,
  and its text embedding is taken at the last position. Scores differ if texts are padded to the
  longest, or masked.
* SigLIP was trained on lower-case texts. SigLIP 1's tokenizer lower-cases; the one that fixed-size
  SigLIP 2 checkpoints load may not.
* ``get_image_features`` returns a tensor in older releases and an output object in newer ones.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

from vlm_harness.backends.dual_encoder import DualEncoder, Embeddings
from vlm_harness.backends.hf.args import HfDualEncoderArgs
from vlm_harness.backends.hf.loading import describe, load_pretrained, loading, to_device
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model

if TYPE_CHECKING:
    from PIL.Image import Image

SIGLIP = frozenset({"siglip", "siglip2"})
PADDED_TO_FULL_LENGTH = SIGLIP | {"align"}


class HfDualEncoder(DualEncoder):
    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        super().__init__()
        self.spec = spec
        self.args = HfDualEncoderArgs.model_validate(spec.args)
        with loading(spec):
            self.processor = AutoProcessor.from_pretrained(
                os.path.expanduser(spec.checkpoint),
                revision=spec.revision,
                trust_remote_code=options.trust_remote_code,
            )
        self.model, self._weights = load_pretrained(AutoModel, spec, options, self.args)
        if not hasattr(self.model, "get_image_features") or not hasattr(
            self.model, "get_text_features"
        ):
            raise InputError(
                f"model {spec.model}: {type(self.model).__name__} is not a dual encoder; it lacks "
                "get_image_features or get_text_features",
                hint="Use the backend hf_vlm for models that generate text.",
            )
        self._text_kwargs = self._text_arguments()

    def info(self) -> Model:
        text = self._text_kwargs
        return describe(self.model, self.spec, "hf_dual_encoder", self._weights, text=text)

    def preprocess(self, image: "Image") -> dict[str, torch.Tensor]:
        return dict(self.processor.image_processor(images=[image], return_tensors="pt"))

    def embed_prepared(self, images: Sequence[dict[str, torch.Tensor]]) -> Embeddings:
        inputs = {name: torch.cat([image[name] for image in images]) for name in images[0]}
        return self._unit(self.model.get_image_features, inputs)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        self.processor.tokenizer.padding_side = "right"
        inputs = self.processor.tokenizer(
            self._cased(texts), return_tensors="pt", **self._text_kwargs
        )
        if self._is_siglip:
            inputs.pop("attention_mask", None)
        return self._unit(self.model.get_text_features, inputs)

    def over_limit(self, texts: Sequence[str]) -> list[bool]:
        limit = self._text_kwargs["max_length"]
        if limit is None:
            return [False] * len(texts)
        tokens = self.processor.tokenizer(self._cased(texts), verbose=False)["input_ids"]
        return [len(ids) > limit for ids in tokens]

    @property
    def _is_siglip(self) -> bool:
        return self.model.config.model_type in SIGLIP

    def _cased(self, texts: Sequence[str]) -> list[str]:
        lower = self._is_siglip if self.args.lowercase is None else self.args.lowercase
        return [text.lower() for text in texts] if lower else list(texts)

    def _text_arguments(self) -> dict[str, Any]:
        config = getattr(self.model.config, "text_config", self.model.config)
        positions = getattr(config, "max_position_embeddings", None)
        family = self.model.config.model_type
        if family == "align":
            positions = 64  # BERT has 512 positions; ALIGN's processor pads to 64
        padding = self.args.padding or (
            "max_length" if family in PADDED_TO_FULL_LENGTH else "longest"
        )
        limit = getattr(self.processor.tokenizer, "model_max_length", None)
        known = [n for n in (positions, limit) if n is not None and n < 100_000]
        length = self.args.max_length or (min(known) if known else None)
        return {"padding": padding, "truncation": length is not None, "max_length": length}

    @torch.inference_mode()
    def _unit(self, encode: Any, inputs: Any) -> Embeddings:
        """Encode in the model's dtype, normalise in float32."""
        on_device = {
            name: to_device(value, self.model.device, self.model.dtype)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }
        output = encode(**on_device)
        features = output if isinstance(output, torch.Tensor) else output.pooler_output
        unit = torch.nn.functional.normalize(features.float(), dim=-1)
        return np.asarray(unit.cpu().numpy(), dtype=np.float32)
