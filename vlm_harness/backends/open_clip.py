"""Dual encoders of open_clip: ``architecture:tag``, a hub repository, a folder, a file of weights.

Trap: OpenAI's weights were trained with QuickGELU. open_clip only warns when the architecture says
otherwise, and the scores are then wrong by a little; the activation is taken from the tag here.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vlm_harness.backends import LoadOptions
from vlm_harness.backends.args import OpenClipArgs
from vlm_harness.backends.dual_encoder import DualEncoder, Embeddings
from vlm_harness.backends.hf_common import check_hub, loading, pick_device, pick_dtype
from vlm_harness.errors import InputError, suggest
from vlm_harness.specs import ModelSpec
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
        weights = args.weights or tag
        self.device = pick_device(options)
        dtype = pick_dtype(args.dtype, options, self.device)
        self.dtype = torch.float32 if dtype == "auto" else dtype
        config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
        quick_gelu = config.get("quick_gelu", False) if args.quick_gelu is None else args.quick_gelu
        with loading(spec), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.model, _, self.preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=weights,
                device=self.device,
                force_quick_gelu=quick_gelu,
                cache_dir=args.cache_dir,
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
            details={"context_length": getattr(self.model, "context_length", None)},
        )

    @torch.inference_mode()
    def embed_images(self, images: Sequence["Image"]) -> Embeddings:
        pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device)
        with self._precision():
            return _unit(self.model.encode_image(pixels))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        tokens = self.tokenizer(list(texts)).to(self.device)
        with self._precision():
            return _unit(self.model.encode_text(tokens))

    def _precision(self) -> Any:
        # Autocast rather than half weights: layer norms and the projection stay in float32.
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def check(spec: ModelSpec) -> None:
    """See that architecture, tag and weights exist and can be had.

    Raises:
        InputError: unknown architecture or tag, or weights that are not here and not reachable.
    """
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = _parse(spec.checkpoint)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not (folder / "open_clip_config.json").is_file():
            raise InputError("there is no open_clip_config.json in it", where=folder)
        return
    if name.startswith("hf-hub:"):
        check_hub(spec.model, name.removeprefix("hf-hub:"), None, "open_clip_config.json")
        return
    known = open_clip.list_models()
    if name not in known:
        raise InputError(
            f"model {spec.model}: open_clip has no architecture {name!r}{suggest(name, known)}",
            hint="`python -c 'import open_clip; print(open_clip.list_models())'` lists them.",
        )
    if args.weights:
        if not Path(args.weights).expanduser().is_file():
            raise InputError(f"there is no file of weights {args.weights}", where="args.weights")
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag is None or tag not in tags:
        raise InputError(
            f"model {spec.model}: {name} has no pretrained tag {tag!r}{suggest(tag or '', tags)}",
            hint=f"Write {name}:TAG with one of: {', '.join(tags) or '(none)'}; or args.weights.",
        )
    config = open_clip.get_pretrained_cfg(name, tag)
    if config.get("hf_hub"):
        repo = config["hf_hub"].rstrip("/")
        check_hub(spec.model, repo, None, "open_clip_config.json")


def _parse(checkpoint: str) -> tuple[str, str | None]:
    """``ViT-B-32:openai`` -> architecture and tag; a folder or ``hf-hub:...`` has no tag."""
    if checkpoint.startswith(("hf-hub:", "local-dir:")):
        return checkpoint, None
    if Path(checkpoint).expanduser().is_dir():
        return f"local-dir:{Path(checkpoint).expanduser()}", None
    name, _, tag = checkpoint.partition(":")
    return name, tag or None


def _unit(features: torch.Tensor) -> Embeddings:
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), dtype=np.float32)
