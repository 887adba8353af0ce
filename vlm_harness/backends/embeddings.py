"""Image embeddings alone: of our dual encoders, or of a vision-only checkpoint such as DINOv2."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vlm_harness.backends import resolve as models
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
    """The images that could be read, and what each encoder made of them."""

    refs: Sequence[ImageRef]
    sha256: Sequence[str]
    by_encoder: Sequence[Embeddings]
    failures: dict[str, str]
    """Why the others could not, by path."""


def embed(
    refs: Sequence[ImageRef],
    encoders: Sequence[ImageEncoder],
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedded:
    """Read every image once and embed it with all encoders.

    An image that cannot be read, or that an encoder's processor refuses, is left out.
    """
    kept: list[ImageRef] = []
    checksums: list[str] = []
    failures: dict[str, str] = {}
    found: list[Embeddings] = []
    for start in range(0, len(refs), batch_size):
        batch = refs[start : start + batch_size]
        loader: list[tuple[ImageRef, LoadedImage]] = []
        for ref in batch:
            try:
                loader.append((ref, load(ref)))
            except SampleError as error:
                failures[ref.path] = str(error)
        for part, made in _encode(loader, encoders, failures):
            if not found:
                # Filled in place: parts put together at the end would need the memory twice.
                found = [np.empty((len(refs), each.shape[1]), np.float32) for each in made]
            for whole, each in zip(found, made, strict=True):
                whole[len(kept) : len(kept) + len(part)] = each
            kept += [ref for ref, _ in part]
            checksums += [picture.sha256 for _, picture in part]
        progress(len(batch))
    return Embedded(kept, checksums, [whole[: len(kept)] for whole in found], failures)


Loaded = Sequence[tuple[ImageRef, LoadedImage]]


def _encode(
    loader: Loaded, encoders: Sequence[ImageEncoder], failures: dict[str, str]
) -> list[tuple[Loaded, list[Embeddings]]]:
    """A batch at once; one by one where that fails, since one odd image fails all of its batch."""
    if not loader:
        return []
    try:
        images = [picture.pixels for _, picture in loader]
        made = [encoder.embed_images(images) for encoder in encoders]
        if not all(np.isfinite(each).all() for each in made):
            raise ValueError("the embedding is not finite")
        return [(loader, made)]
    except (ValueError, RuntimeError) as error:
        if len(loader) > 1:
            return [part for each in loader for part in _encode([each], encoders, failures)]
        path = loader[0][0].path
        failures[path] = f"image {path}: {error}"
        return []


# --- finding an encoder ---------------------------------------------------------------------------


def open_encoder(
    text: str, registry: Registry, options: LoadOptions, option: str
) -> tuple[str, ImageEncoder]:
    """A model by name, folder, ``backend:checkpoint`` or hub name; its name and itself.

    ``option`` is what the user gave it with.

    Raises:
        InputError: nothing of that name, or a model that embeds no images.
    """
    spec = _resolve(text, registry, option)
    if spec is None:
        vision = VisionEncoder(text, options, option)
        return vision.name, vision
    family = BACKENDS.get(spec.backend)
    if not family.embeds_images:
        raise InputError(
            f"{text} runs with the backend {spec.backend}, which embeds no images",
            where=option,
            hint="Give a dual encoder (`vlm-harness list models`), or a vision-only checkpoint such"
            " as DINOv2: a folder, or its name on the hub.",
        )
    family.check(spec)
    encoder: Any = family.load(spec, options)
    return spec.model, encoder


def _resolve(text: str, registry: Registry, option: str) -> ModelSpec | None:
    """The model, or None for what is to be tried as a vision-only checkpoint."""
    folder = Path(text).expanduser()
    prefix = text.partition(":")[0]
    if text not in registry.names("model") and prefix not in BACKENDS.names():
        if folder.is_dir() and (folder / "config.json").is_file():
            try:
                return models.resolve(text, registry)
            except InputError:
                return None  # neither a dual encoder nor a model that generates text
        if not folder.is_dir() and text.count("/") == 1 and text[0] not in "./~":
            return _from_hub(text, option)
    try:
        return models.resolve(text, registry)
    except InputError as error:
        where = option if error.where == "--model" else error.where
        raise InputError(error.message, where=where, hint=error.hint) from None


def _from_hub(name: str, option: str) -> ModelSpec | None:
    from vlm_harness.backends.hf.loading import DUAL_ENCODERS, check_hub

    try:
        check_hub(name, name, None, "config.json")
    except InputError as error:
        raise InputError(
            error.message,
            where=option,
            hint=f"`hf download {name} --local-dir FOLDER` on a machine with network; then give "
            f"{option} FOLDER.",
        ) from None
    from transformers import PretrainedConfig

    config, _ = PretrainedConfig.get_config_dict(name)
    if config.get("model_type") not in DUAL_ENCODERS:
        return None
    return ModelSpec(model=name.replace("/", "-"), backend="hf_dual_encoder", checkpoint=name)


class VisionEncoder:
    """A vision-only transformers checkpoint: the CLS token of its last hidden state.

    For DINOv2 that is the image's embedding (Tong et al. 2024). Models without such a token give
    what they pool.
    """

    def __init__(self, checkpoint: str, options: LoadOptions, option: str) -> None:
        from transformers import AutoImageProcessor, AutoModel

        from vlm_harness.backends.hf.args import TransformersArgs
        from vlm_harness.backends.hf.loading import load_pretrained, loading

        where = os.path.expanduser(checkpoint)
        self.name = Path(where).name
        spec = ModelSpec(model="encoder", backend="hf_dual_encoder", checkpoint=where)
        with loading(spec):
            self._processor = AutoImageProcessor.from_pretrained(
                where, trust_remote_code=options.trust_remote_code
            )
        self._model = load_pretrained(AutoModel, spec, options, TransformersArgs())
        if self._model.main_input_name != "pixel_values":
            raise InputError(
                f"{checkpoint}: {type(self._model).__name__} reads no images",
                where=option,
                hint="Give a dual encoder, or a vision-only checkpoint such as DINOv2.",
            )
        names = [name for name, _ in self._model.named_parameters()]
        self._has_cls = any(name.endswith(("cls_token", "class_embedding")) for name in names)

    def embed_images(self, images: Sequence["Image"]) -> Embeddings:
        import torch

        inputs = self._processor(images=list(images), return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._model.device, self._model.dtype)
        with torch.inference_mode():
            output = self._model(pixel_values=pixels)
            pooled = (
                output.last_hidden_state[:, 0]
                if self._has_cls
                else output.pooler_output.flatten(1)
                if getattr(output, "pooler_output", None) is not None
                else None
            )
            if pooled is None:
                raise InputError(
                    f"model {self.name}: it has neither a CLS token nor a pooled output",
                    hint="Give a checkpoint such as DINOv2, ViT or CLIP.",
                )
            unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
        return np.asarray(unit.cpu().numpy(), dtype=np.float32)
