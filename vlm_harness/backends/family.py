"""Families of models: what each can do, declared without loading it, and the registry of all.

Each family is a module-level variable that ``BACKENDS`` refers to. Listing families imports these
modules, so at their top level they import neither torch nor the family's library. ``factory`` names
the code that runs a model; it is imported when the first model is loaded.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vlm_harness.backends.hub import Repository
from vlm_harness.backends.interface import Asked, Backend, LoadOptions, PromptFormat
from vlm_harness.plugins import Plugins
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.spec import Spec
from vlm_harness.types import Kind


@dataclass(frozen=True)
class Family:
    """What a backend can do, declared without loading a model."""

    summary: str
    provides: frozenset[Kind]
    factory: str
    """``module:callable`` that takes ``(spec, options)`` and returns a ``Backend``."""
    args: type[Spec]
    reads_images: bool = True
    without_image: bool = False
    """Whether the models accept prompts without an image (``--images none``)."""
    default_batch: int = 8
    local_files: bool = True
    """False if ``checkpoint`` never names a file or folder."""
    locator: str | None = None
    """``module:callable`` that returns the file of a spec, if it is not simply ``checkpoint``."""
    checker: str | None = None
    """``module:callable`` that takes the spec; raises InputError if the checkpoint is missing."""
    hub: str | None = None
    """``module:callable`` that takes the spec and returns every ``backends.hub.Repository`` from
    which the model is loaded; None if models are never loaded from the hub."""
    embeds_images: bool = False
    """Whether the models have ``embed_images``, for commands that compare image embeddings."""
    formatter: str | None = None
    """``module:callable`` that takes ``(spec, options)`` and returns a ``PromptFormat``; None if
    the models have no prompt format of their own."""
    answers: Literal["computed", "recorded", "invented"] = "computed"
    """Where responses come from. The leaderboard rejects invented ones."""

    recorded: str | None = None
    """``module:callable`` that takes the spec and returns those of ``provides`` that the model's
    file of recorded answers has."""
    verifier: str | None = None
    """``module:callable`` that takes the spec and what a new run asks (``Asked``); raises
    InputError if the recorded answers do not belong to it."""

    def load(self, spec: ModelSpec, options: LoadOptions) -> Backend:
        backend: Backend = _attribute(self.factory)(spec, options)
        return backend

    def prompt_format(self, spec: ModelSpec, options: LoadOptions) -> PromptFormat | None:
        """The model's prompt format, without loading weights; None if it has none."""
        if self.formatter is None:
            return None
        prompt_format: PromptFormat = _attribute(self.formatter)(spec, options)
        return prompt_format

    def files(self, spec: ModelSpec) -> list[Path]:
        """Local files and folders that the model's answers depend on."""
        if not self.local_files:
            return []
        if self.locator:
            return [_attribute(self.locator)(spec)]
        names = (spec.checkpoint, spec.args.get("weights"), spec.args.get("processor"))
        paths = [Path(str(name)).expanduser() for name in names if name]
        return [path for path in paths if path.exists()]

    def repositories(self, spec: ModelSpec) -> list[Repository]:
        """The repositories of the Hugging Face Hub that the model's answers depend on."""
        found: list[Repository] = _attribute(self.hub)(spec) if self.hub else []
        return found

    def available(self, spec: ModelSpec) -> frozenset[Kind]:
        """What this model provides."""
        found: frozenset[Kind] = _attribute(self.recorded)(spec) if self.recorded else self.provides
        return found

    def verify(self, spec: ModelSpec, asked: Iterable[Asked]) -> None:
        """Raise an InputError if the model's recorded answers do not belong to a new run."""
        if self.verifier:
            _attribute(self.verifier)(spec, asked)

    def check(self, spec: ModelSpec) -> None:
        """Raise an InputError if the model's checkpoint is missing."""
        if self.checker:
            _attribute(self.checker)(spec)


LOADED = "(loaded)"
"""The ``checkpoint`` of a model that was passed to ``evaluate`` as an object."""

OBJECT = Family(
    summary="an object passed to evaluate()",
    provides=frozenset(get_args(Kind)),
    factory="",
    args=Spec,
    without_image=True,
    local_files=False,
)
"""The family of an object whose ``info().backend`` is not in ``BACKENDS``. Requests that the object
cannot answer fail when they are made.
"""


def _attribute(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


BACKENDS: Plugins[Family] = Plugins(
    "backend",
    "vlm_harness.backends",
    {
        "open_clip": "vlm_harness.backends.open_clip:FAMILY",
        "hf_dual_encoder": "vlm_harness.backends.hf:DUAL_ENCODER",
        "hf_vlm": "vlm_harness.backends.hf:VLM",
        "replay": "vlm_harness.backends.replay:FAMILY",
        "fake": "vlm_harness.backends.fake:FAMILY",
    },
)
