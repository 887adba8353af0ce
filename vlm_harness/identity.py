"""What a run is: all that its scores depend on, as plain data with a checksum.

The same command finds its run again by that checksum, and a run is refused where it is gone on with
as another.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlm_harness.atomic import to_json
from vlm_harness.errors import listing
from vlm_harness.logschema import SCHEMA
from vlm_harness.metrics import hf_evaluate
from vlm_harness.models import family
from vlm_harness.plan import Plan
from vlm_harness.specs import TaskSpec
from vlm_harness.tasks import Task
from vlm_harness.types import Variant

PACKAGES = (
    "torch", "torchvision", "transformers", "tokenizers", "open_clip_torch", "timm", "datasets",
    "numpy", "scipy", "pillow",
)  # fmt: skip


def identity(plan: Plan) -> dict[str, Any]:
    """All that scores depend on, as plain data. Batch size and device are not in it."""
    config = plan.config
    reads_images = any(family(model).reads_images for model in plan.models)
    return {
        "schema": SCHEMA,
        "models": {m.model: m.model_dump(mode="json") for m in plan.models},
        "checkpoints": {m.model: fingerprint(family(m).files(m)) for m in plan.models},
        "tasks": {
            name: {
                "spec": task.spec.model_dump(mode="json"),
                "data": dict(task.data_sha256),
                "images": images_digest(task) if reads_images else None,
                "overlay": task.overlay.model_dump(mode="json") if task.overlay else None,
                **_modules(task.spec),
            }
            for name, task in plan.tasks.items()
        },
        "cells": [
            {
                "variant": cell.variant._asdict(),
                "question": cell.asker.question,
                "template": cell.asker.template.model_dump(mode="json"),
                "command": cell.asker.commands[cell.variant.command],
            }
            for cell in plan.cells
        ],
        "seed": config.seed,
        "limit": config.limit,
        "samples": sorted(config.samples),
        "dtype": config.dtype,
    }


def _modules(task: TaskSpec) -> dict[str, dict[str, str]]:
    """Checksums of the foreign code that some metrics are."""
    found = hf_evaluate.modules(task)
    return {"modules": {name: each.sha256 for name, each in found.items()}} if found else {}


# What a spec says of itself: changing a word of it must not make another run.
DESCRIPTIVE = frozenset(
    {
        "description", "groups", "tags", "reference", "license", "verified", "source",
        "vision_encoder",
    }
)  # fmt: skip


def digest_of(identity: Mapping[str, Any]) -> str:
    """Checksum of an identity: the same wherever the checkpoint lies, on whatever device."""
    plain = json.loads(json.dumps(identity, default=str))
    for name, model in plain["models"].items():
        model["args"].pop("device", None)
        if plain["checkpoints"][name] is not None:
            del model["checkpoint"]
    specs = [*plain["models"].values(), *(task["spec"] for task in plain["tasks"].values())]
    specs += [task["spec"]["dataset"] for task in plain["tasks"].values()]
    specs += [cell["template"] for cell in plain["cells"]]
    for spec in specs:
        for key in DESCRIPTIVE & spec.keys():
            del spec[key]
    text = to_json(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def images_digest(task: Task) -> str:
    """A cheap checksum of a task's images: paths and sizes. Contents are in the lines."""
    refs = {ref.path: ref for sample in task.samples for ref in sample.images}
    digest = hashlib.sha256()
    for path in sorted(refs):
        digest.update(f"{path}\0{refs[path].size()}\0".encode())
    return digest.hexdigest()


SMALL = 64 * 2**20


def fingerprint(paths: Sequence[Path]) -> str | None:
    """A cheap checksum of local weights; None for the hub.

    Over files of up to 64 MB, and of larger ones over the size, both ends, and a part of every
    tensor of safetensors: training changes a tensor all over, or not at all. (The archives of
    ``torch.save`` end in checksums.)
    """
    if not paths:
        return None
    files = [
        file
        for path in paths
        for file in (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        )
    ]
    digest = hashlib.sha256()
    for file in files:
        if file.name.startswith("."):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        if size <= SMALL:
            digest.update(file.read_bytes())
            continue
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            for middle in _tensors(file):
                stream.seek(middle)
                digest.update(stream.read(1 << 12))
            stream.seek(max(0, size - (1 << 20)))
            digest.update(stream.read(1 << 20))
    return digest.hexdigest()


def _tensors(file: Path) -> list[int]:
    """Where the middle of each tensor of a file of safetensors lies; none of another file."""
    if file.suffix != ".safetensors":
        return []
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(length, 1 << 27)))
            ends = [each["data_offsets"] for name, each in header.items() if name[:2] != "__"]
            return sorted(8 + length + (start + end) // 2 for start, end in ends)
        except (ValueError, TypeError, KeyError, AttributeError):
            return []  # loading it says what is wrong


def versions() -> dict[str, str]:
    """Of those libraries that answers may depend on, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": _git_commit(),
        "packages": versions(),
    }
    torch = sys.modules.get("torch")  # present only where a backend needed it
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ]
        found["cuda"] = torch.version.cuda
    return found


@cache
def _git_commit() -> str | None:
    """The commit of a checkout of this package, marked where files differ from it."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (commit.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")) or None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What two identities differ in, in the words of the options, and the short of it."""
    found = [
        f"{key} {_brief(old.get(key))}, now {_brief(new[key])}"
        for key in ("seed", "limit", "samples", "dtype")
        if old.get(key) != new[key]
    ]
    for name, many in (("model", "models"), ("task", "tasks")):
        before, after = old.get(many, {}), new[many]
        if before.keys() != after.keys():
            found.append(f"{many} {listing(before)}, now {listing(after)}")
        for each in before.keys() & after.keys():
            # Which images there are follows from the samples, which were named above.
            parts = [
                key
                for key in after[each]
                if before[each].get(key) != after[each][key]
                and key not in DESCRIPTIVE
                and (key != "images" or not found)
            ]
            if parts:
                found.append(f"{name} {each}: {listing(parts)}")
    for name in new["checkpoints"]:
        if old.get("checkpoints", {}).get(name) != new["checkpoints"][name]:
            found.append(f"the weights of {name}")
    cells = [[Variant(**cell["variant"]) for cell in each.get("cells", [])] for each in (old, new)]
    for field in Variant._fields[2:]:  # model and task were named above
        before, after = ({getattr(cell, field) for cell in side} for side in cells)
        if before != after:
            found.append(f"{field.replace('_', ' ')} {listing(before)}, now {listing(after)}")
    return "; ".join(found) or "the words of its prompts"


def _brief(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)[:60]
