"""The identity of a run as plain data: its checksum, and the difference of two identities."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vlm_harness.errors import listing
from vlm_harness.files import to_json
from vlm_harness.specs.schemas import DatasetSpec, GenerateUse, ModelSpec, PromptSpec, TaskSpec
from vlm_harness.types import GRID, Cell


def digest_of(identity: Mapping[str, Any]) -> str:
    """Checksum of an identity; independent of the checkpoint's location and of the device."""
    plain = json.loads(json.dumps(identity, default=str))
    for name, model in plain["models"].items():
        model["args"].pop("device", None)
        if plain["checkpoints"][name] is not None:
            del model["checkpoint"]
    for kind, specs in (
        (ModelSpec, plain["models"].values()),
        (TaskSpec, [task["spec"] for task in plain["tasks"].values()]),
        (DatasetSpec, [task["spec"]["dataset"] for task in plain["tasks"].values()]),
        (
            GenerateUse,
            [task["spec"]["protocols"].get("generate") or {} for task in plain["tasks"].values()],
        ),
        (PromptSpec, [cell["template"] for cell in plain["cells"]]),
    ):
        for spec in specs:
            for key in kind.descriptive() & spec.keys():
                del spec[key]
    text = to_json(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A short description of the difference of two identities, in terms of the options."""
    found = [
        f"{key} ({_brief(old.get(key))} -> {_brief(new[key])})"
        for key in ("seed", "limit", "samples", "dtype")
        if old.get(key) != new[key]
    ]
    for name, many, described in (
        ("model", "models", ModelSpec.descriptive()),
        ("task", "tasks", frozenset[str]()),
    ):
        before, after = old.get(many, {}), new[many]
        if before.keys() != after.keys():
            found.append(f"{many} ({listing(before)} -> {listing(after)})")
        for each in before.keys() & after.keys():
            # The images depend on the selected samples, which are listed above.
            parts = [
                key
                for key in after[each]
                if before[each].get(key) != after[each][key]
                and key not in described
                and (key != "images" or not found)
            ]
            if parts:
                found.append(f"{name} {each}: {listing(parts)}")
    for name in new["checkpoints"]:
        if old.get("checkpoints", {}).get(name) != new["checkpoints"][name]:
            found.append(f"the weights of {name}")
        before, after = (each.get("commits", {}).get(name, {}) for each in (old, new))
        found += [
            f"the commit of {repository} ({before.get(repository)} -> {after.get(repository)})"
            for repository in sorted({*before, *after})
            if before.get(repository) != after.get(repository)
        ]
    cells = [
        [Cell.model_validate(cell["variant"]) for cell in each.get("cells", [])]
        for each in (old, new)
    ]
    for field in list(GRID)[2:]:  # model and task are listed above
        before, after = ({cell.grid[field] for cell in side} for side in cells)
        if before != after:
            found.append(f"{field.replace('_', ' ')} ({listing(before)} -> {listing(after)})")
    return "; ".join(found) or "the text of its prompts"


def _brief(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)[:60]
