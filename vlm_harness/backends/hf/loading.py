"""Common code of the transformers backends: checking and loading checkpoints, device, dtype."""

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_harness.backends.hf.args import TransformersArgs
from vlm_harness.backends.interface import LoadOptions, check_device
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
    """Check that a checkpoint is local or can be downloaded, before torch is imported.

    Raises:
        InputError: missing folder, or a hub name that is neither cached nor reachable.
    """
    folder = Path(spec.checkpoint).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                "not a transformers checkpoint: the folder has no config.json", where=folder
            )
        return
    if spec.checkpoint.startswith((".", "/", "~")) or spec.checkpoint.count("/") > 1:
        raise InputError(f"folder not found: '{folder}'", where=spec.at("checkpoint"))
    check_hub(spec.model, spec.checkpoint, spec.revision, "config.json")


def check_hub(model: str, repo: str, revision: str | None, filename: str) -> None:
    """Raise an InputError if a hub file is neither cached nor reachable."""
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
        # A single short request: without network, a download would retry for half a minute.
        HfApi().model_info(repo, revision=revision, timeout=10)
    except GatedRepoError:
        raise InputError(
            f"model {model}: the checkpoint {repo!r} requires accepting its licence",
            hint=f"Accept it on https://huggingface.co/{repo}, then run `hf auth login`.",
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(
            f"model {model}: the hub has no checkpoint {repo!r}"
            + (f" at revision {revision}" if revision else ""),
            hint=str(error).strip().splitlines()[0],
        ) from None
    # The exception for an unreachable hub depends on the HTTP library underneath.
    except Exception as error:
        raise InputError(
            f"model {model}: the weights {repo!r} are not on this machine and the hub cannot be "
            f"reached ({type(error).__name__})",
            hint=(
                f"On a machine with network access, run `hf download {repo}"
                + (f" --revision {revision}" if revision else "")
                + f" --local-dir {repo.split('/')[-1]}`,\n"
                f"copy that folder here, and pass --model {model} --model-args "
                "checkpoint=FOLDER\n(or set HF_HOME to a cache that contains it). "
                "For a model that needs no download, use tiny-clip\nor tiny-llava."
            ),
        ) from None


def pick_device(name: str | None, options: LoadOptions) -> "torch.device":
    """The model's own device, ``--device``, CUDA, Apple's GPU or the CPU: the first available."""
    import torch

    name = name or options.device
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    check_device(name)
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
    """Let the C library keep up to 1 GiB of freed memory, for the next layer of a CPU model.

    By default, glibc returns every large tensor to the system and faults it back in in pages of
    4 KiB, which takes a sixth of the time of a prefill (``docs/speed.md``).
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in every C library
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # from <malloc.h>
    # glibc before 2.35 rejects an mmap threshold above 32 MiB.
    if mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25):
        mallopt(trim_threshold, 2**30)


def load_pretrained(
    auto: Any, spec: ModelSpec, options: LoadOptions, args: TransformersArgs
) -> Any:
    """Call ``auto.from_pretrained`` with the model's arguments; the model is in evaluation mode.

    Raises:
        InputError: the checkpoint cannot be loaded; the message contains the library's reason.
    """
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()  # the harness shows its own
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
    """Move an input to the device, floats to ``dtype``; copies to CUDA are asynchronous."""
    if device.type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    floating = value.is_floating_point()
    return value.to(device, dtype if floating else None, non_blocking=True)


class loading:
    """Context manager that turns a library's error while loading into one InputError."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Loaders raise exceptions of any type; safetensors has its own for a truncated file.
        if isinstance(error, Exception) and not isinstance(error, InputError):
            reason = str(error).strip() or type(error).__name__
            has_code = "trust_remote_code" in reason
            raise InputError(
                f"model {self._spec.model}: the checkpoint {self._spec.checkpoint!r} cannot be "
                f"loaded: {reason}",
                where=self._spec.at("checkpoint") if self._spec.path else None,
                hint="--trust-remote-code runs the checkpoint's own code; review it first."
                if has_code
                else None,
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
    """Describe a loaded transformers model as a ``Model``."""
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
    """The vision encoder according to the checkpoint's configuration; None if it names none."""
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
