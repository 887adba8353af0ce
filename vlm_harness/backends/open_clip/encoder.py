"""Dual encoders of open_clip: ``architecture:tag``, a hub repository, a folder, or a weights file.

Pitfalls handled here:

* OpenAI's weights were trained with QuickGELU; open_clip only warns if the architecture disagrees.
* SigLIP squashes and normalises images in its own way; open_clip loses these settings if the
  weights come from a file.
* open_clip initialises a folder without weights at random.

The activation and the preprocessing are therefore taken from the tag, and weights are required.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vlm_harness.backends.dual_encoder import DualEncoder, Embeddings
from vlm_harness.backends.hf.loading import (
    check_hub,
    keep_freed_memory,
    loading,
    pick_device,
    pick_dtype,
    to_device,
)
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.backends.open_clip import OpenClipArgs
from vlm_harness.errors import InputError, not_found
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
        name, tag = _parse(spec.checkpoint)
        self._architecture = name
        weights = str(Path(args.weights).expanduser()) if args.weights else tag
        self.device = pick_device(args.device, options)
        keep_freed_memory(self.device)
        dtype = pick_dtype(args.dtype, options, self.device)
        self.dtype = torch.float32 if dtype == "auto" else dtype
        config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
        quick_gelu = config.get("quick_gelu", False) if args.quick_gelu is None else args.quick_gelu
        with loading(spec), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.model, self._transform = open_clip.create_model_from_pretrained(
                name,
                pretrained=weights,
                device=self.device,
                force_quick_gelu=quick_gelu,
                cache_dir=args.cache_dir,
                **_preprocessing(name, tag),
            )
            self.tokenizer = open_clip.get_tokenizer(name, cache_dir=args.cache_dir)
        self.model.eval()

    def info(self) -> Model:
        return Model(
            name=self.spec.model,
            backend="open_clip",
            checkpoint=self.spec.checkpoint,
            revision=self.spec.revision,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            parameters=sum(p.numel() for p in self.model.parameters()),
            details={
                "context_length": getattr(self.model, "context_length", None),
                "vision_encoder": self._architecture,
            },
        )

    def preprocess(self, image: "Image") -> torch.Tensor:
        pixels: torch.Tensor = self._transform(image)
        return pixels

    @torch.inference_mode()
    def embed_prepared(self, images: Sequence[torch.Tensor]) -> Embeddings:
        pixels = to_device(torch.stack(list(images)), self.device, torch.float32)
        with self._precision():
            return _unit(self.model.encode_image(pixels))

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


def check(spec: ModelSpec) -> None:
    """Check that architecture, tag and weights exist and can be loaded or downloaded.

    Raises:
        InputError: unknown architecture or tag, or weights that are neither local nor reachable.
    """
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = _parse(spec.checkpoint)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not (folder / "open_clip_config.json").is_file():
            raise InputError("the folder has no open_clip_config.json", where=folder)
        return
    if name.startswith("hf-hub:"):
        check_hub(spec.model, name.removeprefix("hf-hub:"), None, "open_clip_config.json")
        return
    known = open_clip.list_models()
    if name not in known:
        raise not_found(
            f"model {spec.model}: open_clip has no architecture {name!r}",
            name,
            known,
            hint="List them with `python -c 'import open_clip; print(open_clip.list_models())'`.",
        )
    if args.weights:
        if not Path(args.weights).expanduser().is_file():
            raise InputError(f"weights file not found: {args.weights}", where="args.weights")
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag is None or tag not in tags:
        raise not_found(
            f"model {spec.model}: {name} has no pretrained tag {tag!r}",
            tag or "",
            tags,
            hint=f"Use {name}:TAG with one of the tags {', '.join(tags) or '(none)'}; or set "
            "args.weights.",
        )
    config = open_clip.get_pretrained_cfg(name, tag)
    if config.get("hf_hub"):
        repo = config["hf_hub"].rstrip("/")
        check_hub(spec.model, repo, None, "open_clip_config.json")


def _parse(checkpoint: str) -> tuple[str, str | None]:
    """Split ``ViT-B-32:openai`` into architecture and tag (folders and ``hf-hub:...``: no tag)."""
    if checkpoint.startswith(("hf-hub:", "local-dir:")):
        return checkpoint, None
    if Path(checkpoint).expanduser().is_dir():
        return f"local-dir:{Path(checkpoint).expanduser()}", None
    name, _, tag = checkpoint.partition(":")
    return name, tag or None


def _preprocessing(name: str, tag: str | None) -> dict[str, Any]:
    """Image preprocessing of the tag or, without a tag, the settings that all tags share.

    Empty for a folder or hub repository, which has its own configuration.
    """
    import open_clip

    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(name)
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    settings: dict[str, Any] = {}
    for key in ("mean", "std", "interpolation", "resize_mode"):
        values = [config.get(key) for config in configs]
        if values and all(value == values[0] for value in values):
            settings[f"image_{key}"] = values[0]
    return settings


def _unit(features: torch.Tensor) -> Embeddings:
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), dtype=np.float32)
