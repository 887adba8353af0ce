"""``list``, ``show`` and ``schema``: the available specs and plug-ins, without importing torch."""

import math
from collections.abc import Mapping
from typing import Any

import click

from vlm_harness.cli.common import (
    UNVERIFIED,
    UNVERIFIED_NOTE,
    echo_json,
    include_path_option,
    json_option,
    registry,
    say,
)
from vlm_harness.errors import listing, not_found
from vlm_harness.specs.registry import Registry

KINDS = (
    "tasks", "groups", "models", "prompts", "commands", "label_corrections", "tables", "metrics",
    "protocols", "extractors", "backends", "readers", "decodings",
)  # fmt: skip
FILES = ("task", "group", "model", "prompt", "label_corrections", "table")
OLD_NAMES = {"overlays": "label_corrections", "overlay": "label_corrections"}
"""Kinds by their old names, which still work."""


@click.command("list")
@click.argument("kind", required=False, default="tasks", metavar="[KIND]")
@include_path_option
@json_option
def list_command(kind: str, include_path: tuple[str, ...], as_json: bool) -> None:
    """List tasks, groups, models, prompts, commands, label_corrections, tables, metrics, protocols,
    extractors, backends, readers or decodings. The default is tasks.
    """
    kind = OLD_NAMES.get(kind, kind)
    if kind not in KINDS:
        raise not_found(f"cannot list {kind!r}", kind, KINDS)
    rows = _rows(kind, include_path)
    if as_json:
        echo_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        text = row.get("description") or ""
        mark = "" if row.get("verified", True) else f" [{UNVERIFIED}]"
        given = row["arguments"].items() if kind == "extractors" else ()
        arguments = ", ".join(f"{name}: {default}" for name, default in given)
        text += f" [{arguments}]" if arguments else ""
        say(f"{row['name']:<{width}}  {text}{mark}".rstrip())
    if kind == "tasks":
        groups = sorted({group for row in rows for group in row["groups"]})
        say(f"\n{len(rows)} tasks; groups: {', '.join(groups)}")
    if not all(row.get("verified", True) for row in rows):
        say(f"\n{UNVERIFIED_NOTE}")


def _rows(kind: str, include_path: tuple[str, ...]) -> list[dict[str, Any]]:
    if kind in ("tasks", "groups", "models", "prompts", "commands", "label_corrections", "tables"):
        return _spec_rows(kind, registry(include_path))
    if kind == "backends":
        from vlm_harness.backends.family import BACKENDS

        return [
            {
                "name": name,
                "description": BACKENDS.get(name).summary,
                "provides": sorted(BACKENDS.get(name).provides),
                "arguments": sorted(BACKENDS.get(name).args.model_fields),
            }
            for name in BACKENDS.names()
        ]
    from vlm_harness.backends.decoding import DECODINGS
    from vlm_harness.datasets.reader import READERS
    from vlm_harness.metrics import METRICS
    from vlm_harness.plugins import Plugins
    from vlm_harness.protocols.extractors import EXTRACTORS
    from vlm_harness.protocols.protocol import PROTOCOLS

    found: dict[str, Plugins[Any]] = {
        "metrics": METRICS,
        "protocols": PROTOCOLS,
        "extractors": EXTRACTORS,
        "readers": READERS,
        "decodings": DECODINGS,
    }
    plugins = found[kind]
    rows = [{"name": name, **_declared(plugins.get(name))} for name in plugins.names()]
    if kind == "extractors":
        for row in rows:
            row["arguments"] = _arguments(EXTRACTORS.get(row["name"]))
    return rows


def _arguments(extractor: Any) -> dict[str, str]:
    """The arguments of an extractor with their defaults, as in YAML; "required" without one."""
    import inspect
    import json

    found = {}
    for name, each in inspect.signature(extractor).parameters.items():
        if each.kind is each.KEYWORD_ONLY:
            default = each.default
            plain = {} if default is None or isinstance(default, Mapping) else default
            required = default is each.empty
            found[name] = "required" if required else json.dumps(plain, default=list)
    return found


def _spec_rows(kind: str, found: Registry) -> list[dict[str, Any]]:
    if kind == "groups":
        return [_group_row(found, name, tasks) for name, tasks in sorted(found.groups.items())]
    if kind == "commands":
        return [
            {"name": name, "description": found.command(name)} for name in found.names("command")
        ]
    singular = "overlay" if kind == "label_corrections" else kind.removesuffix("s")
    rows = []
    for name in found.names(singular):
        data = found.file(singular, name).data
        row: dict[str, Any] = {
            "name": name,
            "description": str(data.get("description", "")).strip(),
        }
        if kind == "tasks":
            listed = list(data.get("groups") or [])
            members_of = [each for each in found.names("group") if name in found.groups[each]]
            row["groups"] = [*listed, *(each for each in members_of if each not in listed)]
        if kind == "models":
            row["backend"] = data.get("backend")
            row["checkpoint"] = data.get("checkpoint")
            row["verified"] = data.get("verified", True)
        rows.append(row)
    return rows


def _group_row(found: Registry, name: str, tasks: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "description": ", ".join(tasks), "tasks": tasks}
    if name in found.names("group"):
        spec = found.group(name)
        row["description"] = f"{spec.description} ({', '.join(tasks)})".strip()
        row["aggregates"] = [each.model_dump(mode="json") for each in spec.aggregates]
    return row


def _declared(plugin: Any) -> dict[str, Any]:
    """The description that a plug-in declares, else the first line of its docstring."""
    import inspect

    from vlm_harness.metrics import Metric

    text = getattr(plugin, "description", None) or inspect.getdoc(plugin) or ""
    found: dict[str, Any] = {"description": text.strip().partition("\n")[0]}
    if isinstance(plugin, Metric):
        low, high = (None if math.isinf(end) else end for end in plugin.range)
        found |= {
            "title": plugin.title,
            "unit": plugin.unit,
            "direction": plugin.direction,
            "range": [low, high],
            "needs": sorted(plugin.needs),
        }
    return found


@click.command()
@click.argument("kind", metavar="task|group|model|prompt|label_corrections|table")
@click.argument("name")
@include_path_option
@json_option
def show(kind: str, name: str, include_path: tuple[str, ...], as_json: bool) -> None:
    """Show a spec with its includes resolved, and the file that defines it."""
    kind = OLD_NAMES.get(kind, kind)
    if kind not in FILES:
        raise not_found(
            f"cannot show {kind!r}", kind, FILES, hint=f"KIND is one of {listing(FILES)}."
        )
    found = registry(include_path)
    spec = getattr(found, "overlay" if kind == "label_corrections" else kind)(name)
    data = spec.model_dump(mode="json", exclude_defaults=True)
    if as_json:
        echo_json({"file": str(spec.path), **data})
        return
    import yaml

    say(f"# {spec.path}")
    say(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100), nl=False)


@click.command()
@click.argument("kind", metavar="task|group|model|prompt|commands|label_corrections|table|run")
def schema(kind: str) -> None:
    """Print the JSON Schema of a kind of YAML file, for use in editors."""
    from vlm_harness.specs.schemas import KINDS as SPECS

    if kind not in SPECS:
        raise not_found(f"no schema for {kind!r}", kind, SPECS)
    result = SPECS[kind].model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    if kind != "run":
        result["properties"]["include"] = {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "YAML files in the same folder with keys that this file does not set",
        }
    echo_json(result)
