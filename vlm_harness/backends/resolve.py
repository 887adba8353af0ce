"""Resolve the value of ``--model`` to a model spec."""

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlm_harness.backends.adapters import refuse_adapter_in
from vlm_harness.backends.family import BACKENDS, LOADED, OBJECT, Family
from vlm_harness.backends.hf.loading import DUAL_ENCODERS
from vlm_harness.backends.interface import Backend
from vlm_harness.errors import InputError, listing, not_found, shown, suggest
from vlm_harness.files import read_json, to_json
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.types import Model

OVERRIDABLE = ("checkpoint", "revision", "prompt_format", "answer_prefix")
"""Fields of a model file that ``--model-args`` may replace; other names are backend arguments."""


def resolve(text: str, registry: Registry, overrides: Mapping[str, Any] | None = None) -> ModelSpec:
    """Resolve a model given by name (models/), checkpoint folder, or ``backend:checkpoint``.

    ``overrides`` (``--model-args``) replace fields of the model file, or arguments of its backend.

    Raises:
        InputError: unknown name, a folder that is not a checkpoint, or invalid arguments.
    """
    name, _, checkpoint = text.partition(":")
    if text in registry.names("model"):
        spec = registry.model(text)
    elif Path(text).expanduser().is_dir():
        spec = _from_folder(Path(text).expanduser())
    elif checkpoint and name in BACKENDS.names():
        is_file = BACKENDS.get(name).locator is not None
        label = Path(checkpoint).stem if is_file else checkpoint
        spec = ModelSpec(model=_label(label), backend=name, checkpoint=checkpoint)
    elif text.startswith((".", "/", "~")):
        raise InputError(f"folder not found: '{Path(text).expanduser()}'", where="--model")
    else:
        known = registry.names("model")
        raise not_found(
            f"unknown model {text!r}",
            text,
            known,
            where="--model",
            hint="Models: {}\n"
            "Also accepted: a checkpoint folder, or BACKEND:CHECKPOINT with one of the backends "
            f"{listing(BACKENDS.names())}.\nLooked in: {registry.searched()}",
        )
    if spec.path is None:
        spec._given("--model")
    if overrides:
        spec = _override(spec, overrides)
    check_args(spec, overrides or {})
    return spec


def family(spec: ModelSpec) -> Family:
    if spec.checkpoint == LOADED and spec.backend not in BACKENDS:
        return OBJECT
    return BACKENDS.get(spec.backend, spec.at("backend"))


def from_object(model: Backend) -> ModelSpec:
    """The spec of a loaded model, from its ``info()``.

    Raises:
        InputError: ``info()`` does not return a ``Model`` that can be recorded.
    """
    where = f"{type(model).__name__}.info()"
    info = model.info()
    if not isinstance(info, Model):
        raise InputError(f"expected a vlm_harness.Model, got {type(info).__name__}", where=where)
    try:
        to_json(info.details)
        spec = ModelSpec(
            model=info.name, backend=info.backend, checkpoint=LOADED, revision=info.revision
        )
    except ValidationError as error:
        detail = error.errors()[0]
        field = "name" if detail["loc"] == ("model",) else ".".join(map(str, detail["loc"]))
        raise InputError(
            f"{field}: {detail['msg']} (got {shown(detail['input'])})", where=where
        ) from None
    except TypeError as error:
        raise InputError(f"details: {error}", where=where) from None
    return spec


def check_args(spec: ModelSpec, overrides: Container[str] = ()) -> None:
    """Raise an InputError if the backend does not accept the spec's arguments.

    ``overrides``: names of arguments given on the command line rather than in the model file.
    """
    args = family(spec).args
    try:
        args.model_validate(spec.args)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"])
        given = str(detail["loc"][0]) in overrides
        known = list(args.model_fields)
        unknown = detail["type"] == "extra_forbidden"
        raise InputError(
            f"unknown argument {key!r} of backend {spec.backend}{suggest(key, known)}"
            if unknown
            else f"argument {key!r} of backend {spec.backend}: {detail['msg']}",
            where="--model-args" if given else spec.at("args", *detail["loc"]),
            hint=f"Arguments: {listing(known)}"
            + (f"; fields of the model file: {listing(OVERRIDABLE)}" if given else ""),
        ) from None


def _from_folder(folder: Path) -> ModelSpec:

    def spec(backend: str) -> ModelSpec:
        path = folder.resolve()
        return ModelSpec(model=_label(path.name), backend=backend, checkpoint=str(path))

    if (folder / "open_clip_config.json").is_file() and not (folder / "config.json").is_file():
        return spec("open_clip")
    config_path = folder / "config.json"
    refuse_adapter_in(folder)
    if not config_path.is_file():
        raise InputError(
            "not a checkpoint folder: it has neither config.json nor open_clip_config.json",
            where=folder,
        )
    config = read_json(config_path)
    if not isinstance(config, dict):
        raise InputError("expected a JSON object", where=config_path)
    kind = config.get("model_type")
    if kind in DUAL_ENCODERS:
        return spec("hf_dual_encoder")
    architectures = [str(name) for name in config.get("architectures") or []]
    if "vision_config" in config or any("ConditionalGeneration" in name for name in architectures):
        return spec("hf_vlm")
    raise InputError(
        f"cannot tell how to run a model of type {kind!r} ({listing(architectures) or 'unnamed'})",
        where=config_path,
        hint="Pass --model BACKEND:FOLDER, where BACKEND is hf_vlm, hf_dual_encoder or open_clip.",
    )


def _label(text: str) -> str:
    """A model name made of ``text``, with only the characters that names may contain."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:120]
    return safe or "model"


def _override(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    fields = {name: _text(name, overrides[name]) for name in OVERRIDABLE if name in overrides}
    if "checkpoint" in fields:
        fields.setdefault("revision", None)  # the file's revision belongs to its own checkpoint
    args = {name: value for name, value in overrides.items() if name not in OVERRIDABLE}
    if fields.get("prompt_format") is not None:
        try:
            compile_template(str(fields["prompt_format"]))
        except TemplateError as error:
            raise InputError(f"prompt_format: {error}", where="--model-args") from None
    changed = spec.model_copy(update={**fields, "args": {**spec.args, **args}})
    changed._given(spec)
    return changed


def _text(name: str, value: Any) -> str | None:
    """The value of an overridden field, which is a text or absent; a number is written out."""
    if isinstance(value, str) or (value is None and name != "checkpoint"):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{name} must be a text, got {shown(value)}", where="--model-args")
