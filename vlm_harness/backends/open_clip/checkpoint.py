"""Checkpoints of open_clip: where they are, whether they are complete, and their settings.

Pitfalls handled here:

* OpenAI's weights were trained with QuickGELU; open_clip only warns if the architecture disagrees,
  and cannot know it of a file.
* SigLIP squashes and normalises images in its own way; open_clip loses these settings if the
  weights come from a file.
* open_clip initialises a folder without weights at random, and interpolates position embeddings of
  another size.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm_harness.backends import hub
from vlm_harness.backends.adapters import refuse_adapter_in
from vlm_harness.backends.open_clip import OpenClipArgs
from vlm_harness.backends.weights import Weights, shape_text, trained
from vlm_harness.errors import InputError, not_found
from vlm_harness.files import read_json
from vlm_harness.specs.schemas import ModelSpec

CONFIG = "open_clip_config.json"
HUB, FOLDER = "hf-hub:", "local-dir:"


def parse(checkpoint: str) -> tuple[str, str | None]:
    """Split ``ViT-B-32:openai`` into architecture and tag (folders and ``hf-hub:...``: no tag)."""
    if checkpoint.startswith((HUB, FOLDER)):
        return checkpoint, None
    if Path(checkpoint).expanduser().is_dir():
        return f"{FOLDER}{Path(checkpoint).expanduser()}", None
    name, _, tag = checkpoint.partition(":")
    return name, tag or None


def repositories(spec: ModelSpec) -> list[hub.Repository]:
    """The repositories of the hub that hold the weights and the tokenizer."""
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = parse(spec.checkpoint)
    if name.startswith(HUB):
        repository = hub.Repository(name.removeprefix(HUB), None, CONFIG, args.cache_dir)
        return [repository]
    if name.startswith(FOLDER):
        return []
    config = open_clip.get_pretrained_cfg(name, tag) if tag and not args.weights else {}
    # Written as owner/name/ or owner/name/filename.
    weights = os.path.split(config.get("hf_hub") or "")[0]
    text = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    return [
        hub.Repository(repository, None, filename, args.cache_dir)
        for repository, filename in ((weights, CONFIG), (text.get("hf_tokenizer_name"), ""))
        if repository
    ]


def check(spec: ModelSpec) -> None:
    """Check that architecture, tag and weights exist and can be loaded or downloaded.

    Raises:
        InputError: unknown architecture or tag, or weights that are neither local nor reachable.
    """
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = parse(spec.checkpoint)
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER)).expanduser()
        if folder.is_dir():
            refuse_adapter_in(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(f"the folder has no {CONFIG}", where=folder)
        return
    if name.startswith(HUB):
        hub.check(spec.model, repositories(spec)[0])
        return
    known = open_clip.list_models()
    if name not in known:
        raise not_found(
            f"model {spec.model}: open_clip has no architecture {name!r}",
            name,
            known,
            hint="List them with `python -c 'import open_clip; print(open_clip.list_models())'`.",
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if (tag or not args.weights) and tag not in tags:
        raise not_found(
            f"model {spec.model}: {name} has no pretrained tag {tag!r}",
            tag or "",
            tags,
            hint=f"Use {name}:TAG with one of the tags {', '.join(tags) or '(none)'}; or set "
            "args.weights.",
        )
    if args.weights:
        if not Path(args.weights).expanduser().is_file():
            raise InputError(f"weights file not found: {args.weights}", where="args.weights")
        return
    for repository in repositories(spec):
        if repository.filename == CONFIG:
            hub.check(spec.model, repository)


# --- activation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """Whether a model uses QuickGELU."""

    quick_gelu: bool | None
    """None: as the configuration of the checkpoint says."""
    known: bool = True
    """False if nothing tells which of the two the weights were trained with."""

    @property
    def details(self) -> Mapping[str, Any]:
        return {} if self.quick_gelu is None else {"quick_gelu": self.quick_gelu}

    @property
    def notes(self) -> list[str]:
        if self.known:
            return []
        used = "QuickGELU" if self.quick_gelu else "GELU"
        return [
            "the weights file does not tell whether the model was trained with QuickGELU, as "
            f"OpenAI's models were, or with GELU: {used} is used. Set --model-args quick_gelu=true "
            "or quick_gelu=false, or name the pretrained tag that the weights derive from "
            "(ARCHITECTURE:TAG)"
        ]


def activation(spec: ModelSpec) -> Activation:
    """The activation: as given, of the tag, or of the configuration, in this order."""
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = parse(spec.checkpoint)
    if args.quick_gelu is not None:
        return Activation(args.quick_gelu)
    if name.startswith((HUB, FOLDER)):
        return Activation(None)
    configured = bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))
    if tag:
        return Activation(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", configured))
    beside = Path(args.weights or "").expanduser().parent / CONFIG
    if args.weights and beside.is_file():
        config = read_json(beside)
        model = config.get("model_cfg") if isinstance(config, dict) else None
        if isinstance(model, dict) and "quick_gelu" in model:
            return Activation(bool(model["quick_gelu"]))
    tags = open_clip.list_pretrained_tags_by_model(name)
    of_tags = [bool(open_clip.get_pretrained_cfg(name, each).get("quick_gelu")) for each in tags]
    never = bool(tags) and not any(of_tags)
    return Activation(configured, known=configured or never)


# --- loading --------------------------------------------------------------------------------------


def load_model(
    spec: ModelSpec, quick_gelu: bool | None, device: torch.device
) -> tuple[Any, Any, Weights]:
    """The model, its image transform, and how the weights differ from those of the model.

    Raises:
        InputError: weights are missing, or have a different shape.
    """
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = parse(spec.checkpoint)
    arguments: dict[str, Any] = {
        "pretrained": str(Path(args.weights).expanduser()) if args.weights else tag,
        "device": device,
        "force_quick_gelu": bool(quick_gelu),
        "cache_dir": args.cache_dir,
        **_preprocessing(name, tag),
    }
    if args.quick_gelu is False:
        arguments["quick_gelu"] = False  # force_quick_gelu=False keeps the architecture's setting
    try:
        model, transform = open_clip.create_model_from_pretrained(name, **arguments)
    except RuntimeError as error:
        path = weights_file(spec, download=True)
        if path is None:
            raise
        # It may be that weights are missing or left over: open_clip refuses both.
        model, _, transform = open_clip.create_model_and_transforms(
            name, load_weights=False, pretrained_text=False, **arguments
        )
        _check_shapes(spec, model, path)
        try:
            found = open_clip.load_checkpoint(model, str(path), strict=False)
        except RuntimeError:
            raise error from None
        weights = Weights(
            missing=trained(model, found.missing_keys), unexpected=tuple(found.unexpected_keys)
        )
        weights.check(spec)
        return model, transform, weights
    path = weights_file(spec, download=False)
    if path is not None:
        _check_shapes(spec, model, path)
    return model, transform, Weights()


def weights_file(spec: ModelSpec, download: bool) -> Path | None:
    """The file with the weights; None if there is none, or it is on the hub and not wanted."""
    import open_clip

    args = OpenClipArgs.model_validate(spec.args)
    name, tag = parse(spec.checkpoint)
    if name.startswith(FOLDER):
        found = open_clip.factory._find_checkpoint_in_dir(Path(name.removeprefix(FOLDER)))
    elif name.startswith(HUB):
        of = {"hf_hub": f"{name.removeprefix(HUB)}/"}
        found = open_clip.download_pretrained(of, cache_dir=args.cache_dir) if download else None
    elif args.weights:
        found = Path(args.weights).expanduser()
    else:
        of = open_clip.get_pretrained_cfg(name, tag)
        found = open_clip.download_pretrained(of, cache_dir=args.cache_dir) if download else None
    return Path(found) if found else None


def _check_shapes(spec: ModelSpec, model: Any, path: Path) -> None:
    """Raise an InputError if weights have a different size in the file than in the model.

    open_clip interpolates position embeddings, which gives a model that nobody trained.
    """
    own = model.state_dict()
    mismatched = [
        shape_text(name, shape, own[name].shape)
        for name, shape in _shapes(path).items()
        if name in own and math.prod(shape) != own[name].numel()
    ]
    Weights(mismatched=tuple(mismatched)).check(spec)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights in a file, by name. Does not read the weights."""
    if path.suffix in (".npz", ".npy"):
        return {}  # weights of big_vision, which have other names
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    content = torch.load(path, map_location="meta", weights_only=True)
    state = content.get("state_dict", content)
    return {
        name.removeprefix("module."): tuple(value.shape)
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


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
