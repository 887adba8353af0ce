"""What the transformers backends share: finding a checkpoint, device, dtype, loading."""

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_harness.backends.hf.args import TransformersArgs
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import InputError
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.types import Model

if TYPE_CHECKING:
    import torch

DUAL_ENCODERS = frozenset(
    {
        "align", "aimv2", "altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2",
        "vision-text-dual-encoder",
    }
)  # fmt: skip


def check(spec: ModelSpec) -> None:
    """See that a checkpoint is here or can be had, before anything heavy is imported.

    Raises:
        InputError: no such folder, or a hub name that is neither cached nor reachable.
    """
    folder = Path(spec.checkpoint).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                "the folder holds no config.json, so it is no transformers checkpoint", where=folder
            )
        return
    if spec.checkpoint.startswith((".", "/", "~")) or spec.checkpoint.count("/") > 1:
        raise InputError(f"there is no folder {folder}", where=spec.at("checkpoint"))
    check_hub(spec.model, spec.checkpoint, spec.revision, "config.json")


def check_hub(model: str, repo: str, revision: str | None, filename: str) -> None:
    """Raise an InputError where a hub file is neither in the cache nor reachable."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        if isinstance(try_to_load_from_cache(repo, filename, revision=revision), str):
            return
        # One short question; a download would be tried again for half a minute without network.
        HfApi().model_info(repo, revision=revision, timeout=10)
    except GatedRepoError:
        raise InputError(
            f"model {model}: the checkpoint {repo!r} asks for its licence to be accepted",
            hint=f"Accept it on the page of {repo} on the Hugging Face hub, then `hf auth login`.",
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(
            f"model {model}: the hub has no checkpoint {repo!r}"
            + (f" at revision {revision}" if revision else ""),
            hint=str(error).strip().splitlines()[0],
        ) from None
    # What a hub that cannot be reached raises depends on the HTTP library underneath.
    except Exception as error:
        raise InputError(
            f"model {model}: the weights {repo!r} are not on this machine and the hub cannot be "
            f"reached ({type(error).__name__})",
            hint=(
                f"On a machine with network: `hf download {repo}"
                + (f" --revision {revision}" if revision else "")
                + f" --local-dir {repo.split('/')[-1]}`,\n"
                f"copy that folder here, and pass it: --model {model} --model-args "
                "checkpoint=FOLDER\n(or set HF_HOME to a cache that holds it). "
                "`vlm-harness list models` shows smaller models."
            ),
        ) from None


def pick_device(name: str | None, options: LoadOptions) -> "torch.device":
    """The model's own, else ``--device``, else CUDA, else Apple's GPU, else the CPU."""
    import torch

    name = name or options.device
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the device {name!r} cannot be used: {reason}",
            where="--device",
            hint="Try --device cpu.",
        ) from None
    return device


def pick_dtype(name: str | None, options: LoadOptions, device: "torch.device") -> Any:
    """A torch dtype, or ``"auto"``: float32 on the CPU, the checkpoint's own on a GPU."""
    import torch

    chosen = name or options.dtype
    if chosen == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return getattr(torch, chosen)


def keep_freed_memory(device: "torch.device") -> None:
    """Have the C library keep up to 1 GiB of what a model on the CPU frees, for its next layer.

    As set up, glibc returns every large tensor to the system and is given it back in pages of
    4 KiB, which took a sixth of the time of a prefill (``docs/speed.md``).
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in every C library
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    # Before 2.35, glibc took no more than 32 MiB for the second.
    if mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25):
        mallopt(trim_threshold, 2**30)


def load_pretrained(
    auto: Any, spec: ModelSpec, options: LoadOptions, args: TransformersArgs
) -> Any:
    """``auto.from_pretrained`` with the model file's arguments, in evaluation mode.

    Raises:
        InputError: the checkpoint cannot be loaded, with the library's own reason.
    """
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()  # ours is the one to be seen
    device = pick_device(args.device, options)
    keep_freed_memory(device)
    kwargs: dict[str, Any] = {
        "dtype": pick_dtype(args.dtype, options, device),
        "revision": spec.revision,
        "trust_remote_code": options.trust_remote_code,
    }
    if args.attn_implementation:
        kwargs["attn_implementation"] = args.attn_implementation
    if args.quantization:
        kwargs["quantization_config"] = _quantization(args, spec)
    if args.device_map or args.quantization:
        kwargs["device_map"] = args.device_map or {"": str(device)}
    with loading(spec):
        model = auto.from_pretrained(os.path.expanduser(spec.checkpoint), **kwargs)
    model = (model if "device_map" in kwargs else model.to(device)).eval()
    if args.compile:
        model.compile(dynamic=True)
    return model


def to_device(value: "torch.Tensor", device: "torch.device", dtype: Any) -> "torch.Tensor":
    """Inputs where the model is, numbers in its dtype; to CUDA without waiting for the copy."""
    if device.type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    floating = value.is_floating_point()
    return value.to(device, dtype if floating else None, non_blocking=True)


class loading:
    """Context: what a library raises when a checkpoint is unfit becomes one clear message."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Loaders raise what they like: a file that was cut short is safetensors' own error.
        if isinstance(error, Exception) and not isinstance(error, InputError):
            reason = str(error).strip() or type(error).__name__
            asks = "trust_remote_code" in reason
            raise InputError(
                f"model {self._spec.model}: the checkpoint {self._spec.checkpoint!r} cannot be "
                f"loaded: {reason}",
                where=self._spec.at("checkpoint") if self._spec.path else None,
                hint="--trust-remote-code runs its code: look at that before." if asks else None,
            ) from error


def _quantization(args: TransformersArgs, spec: ModelSpec) -> Any:
    import importlib.util

    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"model {spec.model}: quantization needs {package}",
                hint="Install it with: pip install 'vlm-harness[quant]'",
            )
    import torch
    from transformers import BitsAndBytesConfig

    if args.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)


def describe(model: Any, spec: ModelSpec, backend: str, **details: Any) -> Model:
    """A ``Model`` from a loaded transformers model."""
    return Model(
        name=spec.model,
        backend=backend,
        checkpoint=spec.checkpoint,
        revision=getattr(model.config, "_commit_hash", None) or spec.revision,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        parameters=sum(p.numel() for p in model.parameters()),
        details={
            "model_type": model.config.model_type,
            "attn_implementation": getattr(model.config, "_attn_implementation", None),
            "vision_encoder": _vision_encoder(model.config),
            **details,
        },
    )


def _vision_encoder(config: Any) -> str | None:
    """What a checkpoint's configuration says of its image tower; None where it says nothing."""
    vision = getattr(config, "vision_config", None)
    kind = getattr(vision, "model_type", None)
    if not kind:
        return None
    parts = [str(kind)]
    for name, text in (("patch_size", "patch {}"), ("image_size", "{} px")):
        size = getattr(vision, name, None)
        if isinstance(size, int):
            parts.append(text.format(size))
    return ", ".join(parts)
