"""Common code of the transformers backends: checking and loading checkpoints, device, dtype."""

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_harness.backends import hub
from vlm_harness.backends.adapters import CONFIG as ADAPTER_CONFIG
from vlm_harness.backends.adapters import refuse_adapter, refuse_adapter_in
from vlm_harness.backends.hf.args import TransformersArgs
from vlm_harness.backends.interface import LoadOptions, check_device
from vlm_harness.backends.weights import Weights, shape_text, trained
from vlm_harness.errors import InputError, clip
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

MOST_REASON = 1000
"""Maximum number of characters of a library's message."""


def check(spec: ModelSpec) -> None:
    """Check that a checkpoint is local or can be downloaded, before torch is imported.

    Raises:
        InputError: missing folder, a hub name that is neither cached nor reachable, or an adapter.
    """
    folder = Path(spec.checkpoint).expanduser()
    if folder.is_dir():
        refuse_adapter_in(folder)
        if not (folder / "config.json").is_file():
            raise InputError(
                "not a transformers checkpoint: the folder has no config.json", where=folder
            )
        return
    if spec.checkpoint.startswith((".", "/", "~")) or spec.checkpoint.count("/") > 1:
        raise InputError(f"folder not found: '{folder}'", where=spec.at("checkpoint"))
    hub.check(spec.model, hub.Repository(spec.checkpoint, spec.revision))


def repositories(spec: ModelSpec) -> list[hub.Repository]:
    """The repositories of the hub from which the model and its processor are loaded."""
    processor = spec.args.get("processor")
    names = [(spec.checkpoint, spec.revision), *([(str(processor), None)] if processor else [])]
    return [
        hub.Repository(name, revision)
        for name, revision in names
        if not Path(name).expanduser().exists()
    ]


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


Needed = Callable[[Any, Sequence[str]], Sequence[str]]
"""(model, missing weights) to those on which its outputs depend."""


def load_pretrained(
    auto: Any,
    spec: ModelSpec,
    options: LoadOptions,
    args: TransformersArgs,
    needed: Needed = lambda model, missing: missing,
) -> tuple[Any, Weights]:
    """Call ``auto.from_pretrained`` with the model's arguments; the model is in evaluation mode.

    Returns the model, and how the checkpoint's weights differ from those of the model.

    Raises:
        InputError: the checkpoint cannot be loaded; the message contains the library's reason. Or
            weights are missing.
    """
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()  # the harness shows its own
    device = pick_device(args.device, options)
    keep_freed_memory(device)
    kwargs: dict[str, Any] = {
        "dtype": pick_dtype(args.dtype, options, device),
        "revision": spec.revision,
        "trust_remote_code": options.trust_remote_code,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are refused below, by name
    }
    if args.attn_implementation:
        kwargs["attn_implementation"] = args.attn_implementation
    if args.quantization:
        kwargs["quantization_config"] = _quantization(args, spec)
    if args.device_map or args.quantization:
        kwargs["device_map"] = args.device_map or {"": str(device)}
    with loading(spec), _without_load_report():
        loaded = auto.from_pretrained(os.path.expanduser(spec.checkpoint), **kwargs)
    # A checkpoint's own code may return the model alone.
    model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
    weights = _weights(model, info, needed)
    weights.check(spec)
    if getattr(model, "_hf_peft_config_loaded", False):
        refuse_adapter(spec.checkpoint, [ADAPTER_CONFIG])
    model = (model if "device_map" in kwargs else model.to(device)).eval()
    if args.compile:
        model.compile(dynamic=True)
    return model, weights


def _weights(model: Any, info: Mapping[str, Any], needed: Needed) -> Weights:
    """How the weights of a checkpoint differ from those of its model.

    ``missing_keys`` contains neither tied weights nor those that the family computes.
    """
    missing = trained(model, info.get("missing_keys", ()))
    shapes = {name: shapes for name, *shapes in info.get("mismatched_keys", ())}
    absent = sorted({*missing, *shapes})
    used = needed(model, absent) if absent else ()
    return Weights(
        missing=tuple(name for name in used if name not in shapes),
        mismatched=tuple(shape_text(name, *shapes[name]) for name in used if name in shapes),
        unexpected=tuple(sorted(info.get("unexpected_keys", ()))),
    )


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Silence the table of missing and unexpected weights, of which the harness makes its own."""
    logger = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return record.funcName != "log_state_dict_report"

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


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
            reason = clip(str(error).strip() or type(error).__name__, MOST_REASON)
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


def describe(model: Any, spec: ModelSpec, backend: str, weights: Weights, **details: Any) -> Model:
    """Describe a loaded transformers model as a ``Model``."""
    commits = hub.cached_commits(repositories(spec))
    return Model(
        name=spec.model,
        backend=backend,
        checkpoint=spec.checkpoint,
        revision=commits.get(spec.checkpoint, spec.revision),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        parameters=sum(p.numel() for p in model.parameters()),
        details={
            "model_type": model.config.model_type,
            "attn_implementation": getattr(model.config, "_attn_implementation", None),
            "vision_encoder": _vision_encoder(model.config),
            **({"commits": commits} if commits else {}),
            **weights.details,
            **details,
        },
        notes=weights.notes,
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
