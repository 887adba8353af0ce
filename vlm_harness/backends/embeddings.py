"""Image embeddings of a dual encoder, or of a vision-only checkpoint such as DINOv2."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vlm_harness.backends import resolve as models
from vlm_harness.backends.adapters import refuse_adapter_in
from vlm_harness.backends.dual_encoder import Embeddings
from vlm_harness.backends.family import BACKENDS
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError, SampleError
from vlm_harness.images import LoadedImage, load
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageEncoder(Protocol):
    def embed_images(self, images: Sequence["Image"]) -> Embeddings: ...


@dataclass(frozen=True)
class Embedded:
    """The images that could be embedded, and their embeddings by each encoder."""

    refs: Sequence[ImageRef]
    sha256: Sequence[str]
    by_encoder: Sequence[Embeddings]
    failures: dict[str, str]
    """Reasons for all other images, by path."""


def embed(
    refs: Sequence[ImageRef],
    encoders: Sequence[ImageEncoder],
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedded:
    """Read every image once and embed it with all encoders.

    Images that cannot be read, or that an encoder's processor rejects, are left out.
    """
    kept: list[ImageRef] = []
    checksums: list[str] = []
    failures: dict[str, str] = {}
    by_encoder: list[Embeddings] = []
    for start in range(0, len(refs), batch_size):
        batch = refs[start : start + batch_size]
        loaded: list[tuple[ImageRef, LoadedImage]] = []
        for ref in batch:
            try:
                loaded.append((ref, load(ref)))
            except SampleError as error:
                failures[ref.path] = str(error)
        for part, embeddings in _encode(loaded, encoders, failures):
            if not by_encoder:
                # Filled in place: concatenating at the end would need twice the memory.
                by_encoder = [np.empty((len(refs), e.shape[1]), np.float32) for e in embeddings]
            for target, source in zip(by_encoder, embeddings, strict=True):
                target[len(kept) : len(kept) + len(part)] = source
            kept += [ref for ref, _ in part]
            checksums += [image.sha256 for _, image in part]
        progress(len(batch))
    return Embedded(kept, checksums, [each[: len(kept)] for each in by_encoder], failures)


Loaded = Sequence[tuple[ImageRef, LoadedImage]]


def _encode(
    loaded: Loaded, encoders: Sequence[ImageEncoder], failures: dict[str, str]
) -> list[tuple[Loaded, list[Embeddings]]]:
    """Encode a batch; if it fails, its images one by one, since one bad image fails the batch."""
    if not loaded:
        return []
    try:
        images = [image.pixels for _, image in loaded]
        embeddings = [encoder.embed_images(images) for encoder in encoders]
        if not all(np.isfinite(each).all() for each in embeddings):
            raise ValueError("the embedding is not finite")
        return [(loaded, embeddings)]
    except (ValueError, RuntimeError) as error:
        if len(loaded) > 1:
            return [part for each in loaded for part in _encode([each], encoders, failures)]
        path = loaded[0][0].path
        failures[path] = f"image {path}: {error}"
        return []


# --- finding an encoder ---------------------------------------------------------------------------


def open_encoder(
    text: str, registry: Registry, options: LoadOptions, option: str
) -> tuple[str, ImageEncoder]:
    """Load an encoder given by name, folder, ``backend:checkpoint`` or hub name.

    ``option`` is the command-line option that errors name. Returns the model's name and the model.

    Raises:
        InputError: unknown name, or a model that has no image embeddings.
    """
    spec = _resolve(text, registry, option)
    if spec is None:
        vision = VisionEncoder(text, options, option)
        return vision.name, vision
    family = BACKENDS.get(spec.backend)
    if not family.embeds_images:
        raise InputError(
            f"model {text} uses the backend {spec.backend}, which has no image embeddings",
            where=option,
            hint="Use a dual encoder (see `vlm-harness list models`), or a vision-only checkpoint "
            "such as DINOv2 (a folder, or its name on the hub).",
        )
    family.check(spec)
    encoder: Any = family.load(spec, options)
    return spec.model, encoder


def _resolve(text: str, registry: Registry, option: str) -> ModelSpec | None:
    """The spec of a known model, or None to try ``text`` as a vision-only checkpoint."""
    folder = Path(text).expanduser()
    prefix = text.partition(":")[0]
    if text not in registry.names("model") and prefix not in BACKENDS.names():
        if folder.is_dir() and (folder / "config.json").is_file():
            try:
                return models.resolve(text, registry)
            except InputError:
                return None  # neither a dual encoder nor a generative VLM
        if not folder.is_dir() and text.count("/") == 1 and text[0] not in "./~":
            return _from_hub(text, option)
    try:
        return models.resolve(text, registry)
    except InputError as error:
        where = option if error.where == "--model" else error.where
        raise InputError(error.message, where=where, hint=error.hint) from None


def _from_hub(name: str, option: str) -> ModelSpec | None:
    from vlm_harness.backends import hub
    from vlm_harness.backends.hf.loading import DUAL_ENCODERS

    try:
        hub.check(name, hub.Repository(name))
    except InputError as error:
        raise InputError(
            error.message,
            where=option,
            hint=f"On a machine with network access, run `hf download {name} --local-dir FOLDER`; "
            f"then pass {option} FOLDER.",
        ) from None
    from transformers import PretrainedConfig

    config, _ = PretrainedConfig.get_config_dict(name)
    if config.get("model_type") not in DUAL_ENCODERS:
        return None
    return ModelSpec(model=name.replace("/", "-"), backend="hf_dual_encoder", checkpoint=name)


class VisionEncoder:
    """A vision-only transformers checkpoint; embeds an image as the CLS token of the last layer.

    This is the embedding used for DINOv2 (Tong et al. 2024). Models without a CLS token give their
    pooled output.
    """

    def __init__(self, checkpoint: str, options: LoadOptions, option: str) -> None:
        from transformers import AutoImageProcessor, AutoModel

        from vlm_harness.backends.hf.args import TransformersArgs
        from vlm_harness.backends.hf.loading import load_pretrained, loading

        where = os.path.expanduser(checkpoint)
        if os.path.isdir(where):
            refuse_adapter_in(Path(where))
        self.name = Path(where).name
        spec = ModelSpec(model="encoder", backend="hf_dual_encoder", checkpoint=where)
        with loading(spec):
            self._processor = AutoImageProcessor.from_pretrained(
                where, trust_remote_code=options.trust_remote_code
            )
        self._model, _ = load_pretrained(AutoModel, spec, options, TransformersArgs(), self._needed)
        if self._model.main_input_name != "pixel_values":
            raise InputError(
                f"{checkpoint}: {type(self._model).__name__} does not take images",
                where=option,
                hint="Use a dual encoder, or a vision-only checkpoint such as DINOv2.",
            )
        self._has_cls = _has_cls_token(self._model)

    def embed_images(self, images: Sequence["Image"]) -> Embeddings:
        import torch

        with torch.inference_mode():
            pooled = self._embed(self._model, images, self._has_cls)
            unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
        return np.asarray(unit.cpu().numpy(), dtype=np.float32)

    def _embed(self, model: Any, images: Sequence["Image"], has_cls: bool) -> Any:
        """The CLS token of the last layer, or the pooled output: [images, width]."""
        inputs = self._processor(images=list(images), return_tensors="pt")
        output = model(pixel_values=inputs["pixel_values"].to(model.device, model.dtype))
        if has_cls:
            return output.last_hidden_state[:, 0]
        if getattr(output, "pooler_output", None) is None:
            raise InputError(
                f"model {self.name} has neither a CLS token nor a pooled output",
                hint="Use a checkpoint such as DINOv2, ViT or CLIP.",
            )
        return output.pooler_output.flatten(1)

    def _needed(self, model: Any, missing: Sequence[str]) -> Sequence[str]:
        """The missing weights on which the embedding depends.

        A classifier is saved without the pooling layer of ``AutoModel``, which is not used here.
        """
        import torch
        from PIL import Image

        if model.main_input_name != "pixel_values":
            return ()  # reported by the caller
        weights = {name: p for name, p in model.named_parameters() if name in missing}
        if not weights:
            return missing
        blank = Image.new("RGB", (224, 224))
        embedding = self._embed(model, [blank], _has_cls_token(model))
        used = torch.autograd.grad(embedding.sum(), list(weights.values()), allow_unused=True)
        unused = {name for name, each in zip(weights, used, strict=True) if each is None}
        return [name for name in missing if name not in unused]


def _has_cls_token(model: Any) -> bool:
    names = [name for name, _ in model.named_parameters()]
    return any(name.endswith(("cls_token", "class_embedding")) for name in names)
