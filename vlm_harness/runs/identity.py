"""The identity of a run: everything its scores depend on, as plain data with a checksum.

The default run id contains the checksum, so that rerunning a command resumes its run. A run cannot
be resumed with a different identity.
"""

from typing import Any

from vlm_harness.backends.resolve import family
from vlm_harness.metrics import hf_evaluate
from vlm_harness.runs.fingerprint import fingerprint, images_digest
from vlm_harness.runs.plan import Plan
from vlm_harness.specs.schemas import TaskSpec


def identity(plan: Plan) -> dict[str, Any]:
    """Everything that scores depend on, as plain data. Excludes batch size and device."""
    config = plan.config
    reads_images = any(family(model).reads_images for model in plan.models)
    return {
        "schema": 1,
        "models": {m.model: m.model_dump(mode="json") for m in plan.models},
        "checkpoints": {m.model: fingerprint(family(m).files(m)) for m in plan.models},
        # Left out for pinned and local models, whose run ids do not depend on it.
        **({"commits": plan.commits} if plan.commits else {}),
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
                "variant": planned.cell.to_dict(),
                "question": planned.builder.question,
                "template": planned.builder.template.model_dump(mode="json"),
                "command": planned.builder.commands[planned.cell.command],
            }
            for planned in plan.cells
        ],
        "seed": config.seed,
        "limit": config.limit,
        "samples": sorted(config.samples),
        "dtype": config.dtype,
    }


def _modules(task: TaskSpec) -> dict[str, dict[str, str]]:
    """Checksums of third-party metric modules."""
    found = hf_evaluate.modules(task)
    return {"modules": {name: each.sha256 for name, each in found.items()}} if found else {}
