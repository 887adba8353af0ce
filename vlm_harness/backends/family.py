"""A family of models: what it can do, declared before anything is loaded; and all families.

The module or package that holds a family declares it under the name that ``BACKENDS`` gives.
Listing families imports those modules, so at their top level they import neither torch nor the
family's library; the code that runs a model is named by ``factory``, and imported with the first
model.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vlm_harness.backends.interface import Backend, LoadOptions, PromptFormat
from vlm_harness.plugins import Plugins
from vlm_harness.specs.schemas import ModelSpec, Spec
from vlm_harness.types import Kind


@dataclass(frozen=True)
class Family:
    """What a backend can do, known before anything is loaded."""

    summary: str
    provides: frozenset[Kind]
    factory: str
    """``module:callable`` taking ``(spec, options)`` and giving a Backend."""
    args: type[Spec]
    reads_images: bool = True
    without_image: bool = False
    """Whether ``--images none`` makes sense."""
    default_batch: int = 8
    local_files: bool = True
    """False where ``checkpoint`` names nothing that could lie on disk."""
    locator: str | None = None
    """``module:callable`` giving the one file of a spec, where it is not just its checkpoint."""
    checker: str | None = None
    """``module:callable`` taking the spec; raises InputError where the checkpoint is not there."""
    embeds_images: bool = False
    """Whether its models have ``embed_images``, for what compares image embeddings."""
    formatter: str | None = None
    """``module:callable`` taking ``(spec, options)`` and giving a ``PromptFormat``; without it, its
    models have no prompt format of their own."""
    answers: Literal["computed", "recorded", "invented"] = "computed"
    """Where responses come from. Invented ones are refused by the leaderboard."""

    def load(self, spec: ModelSpec, options: LoadOptions) -> Backend:
        backend: Backend = _attribute(self.factory)(spec, options)
        return backend

    def prompt_format(self, spec: ModelSpec, options: LoadOptions) -> PromptFormat | None:
        """How a model of the family gets a prompt, without its weights; None where it has none."""
        if self.formatter is None:
            return None
        found: PromptFormat = _attribute(self.formatter)(spec, options)
        return found

    def files(self, spec: ModelSpec) -> list[Path]:
        """Local files and folders that the model's answers depend on."""
        if not self.local_files:
            return []
        if self.locator:
            return [_attribute(self.locator)(spec)]
        named = (spec.checkpoint, spec.args.get("weights"), spec.args.get("processor"))
        paths = [Path(str(name)).expanduser() for name in named if name]
        return [path for path in paths if path.exists()]

    def check(self, spec: ModelSpec) -> None:
        if self.checker:
            _attribute(self.checker)(spec)


LOADED = "(loaded)"
"""The checkpoint of a model that was passed to ``evaluate`` as an object."""

OBJECT = Family(
    summary="an object passed to evaluate()",
    provides=frozenset(get_args(Kind)),
    factory="",
    args=Spec,
    without_image=True,
    local_files=False,
)
"""Stands for the family of an object whose ``info().backend`` is none of ``BACKENDS``. What the
object cannot do shows in its responses.
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
