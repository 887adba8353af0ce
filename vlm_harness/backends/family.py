"""Backends: code that runs a family of models.

A family declares here what it can do, without importing what it needs to do it; its module is
loaded with the first model of the family.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_harness.backends import args as arguments
from vlm_harness.backends.interface import Backend, LoadOptions
from vlm_harness.images import Pictures as Pictures
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

    def load(self, spec: ModelSpec, options: LoadOptions) -> Backend:
        backend: Backend = _attribute(self.factory)(spec, options)
        return backend

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


def _attribute(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


OPEN_CLIP = Family(
    summary="open_clip: any architecture and pretrained tag, or local weights",
    provides=frozenset({"similarity"}),
    factory="vlm_harness.backends.open_clip:OpenClip",
    args=arguments.OpenClipArgs,
    default_batch=32,
    checker="vlm_harness.backends.open_clip:check",
)


HF_DUAL_ENCODER = Family(
    summary="transformers AutoModel dual encoders: CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, ...",
    provides=frozenset({"similarity"}),
    factory="vlm_harness.backends.hf.dual_encoder:HfDualEncoder",
    args=arguments.HfDualEncoderArgs,
    default_batch=32,
    checker="vlm_harness.backends.hf.loading:check",
)


HF_VLM = Family(
    summary="transformers AutoModelForImageTextToText: LLaVA, Qwen-VL, InternVL, PaliGemma, ...",
    provides=frozenset({"generate", "score"}),
    factory="vlm_harness.backends.hf.vlm:HfVlm",
    args=arguments.HfVlmArgs,
    without_image=True,
    checker="vlm_harness.backends.hf.loading:check",
)


REPLAY = Family(
    summary="recorded answers from JSONL or CSV, joined on declared keys; needs no images",
    provides=frozenset({"generate", "score", "similarity"}),
    factory="vlm_harness.backends.replay:Replay",
    args=arguments.ReplayArgs,
    reads_images=False,
    default_batch=1024,
    checker="vlm_harness.backends.replay:path_of",
    locator="vlm_harness.backends.replay:path_of",
)


FAKE = Family(
    summary="answers from a handler, for tests: oracle, first, constant",
    provides=frozenset({"generate", "score", "similarity"}),
    factory="vlm_harness.backends.fake:from_spec",
    args=arguments.FakeArgs,
    reads_images=False,
    without_image=True,
    default_batch=64,
    checker="vlm_harness.backends.fake:check",
    local_files=False,
)


BACKENDS: Plugins[Family] = Plugins(
    "backend",
    "vlm_harness.backends",
    {
        "open_clip": "vlm_harness.backends.family:OPEN_CLIP",
        "hf_dual_encoder": "vlm_harness.backends.family:HF_DUAL_ENCODER",
        "hf_vlm": "vlm_harness.backends.family:HF_VLM",
        "replay": "vlm_harness.backends.family:REPLAY",
        "fake": "vlm_harness.backends.family:FAKE",
    },
)
