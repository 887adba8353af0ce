"""The right half of a run again, from its log alone: extract, score, summarise. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_harness import yamlfile
from vlm_harness.atomic import write_json
from vlm_harness.protocols import PROTOCOLS
from vlm_harness.results import summarise
from vlm_harness.runlog import (
    Line,
    key_of,
    log_path,
    read_lines,
    read_manifest,
    variant_of,
)
from vlm_harness.spec_check import parse
from vlm_harness.specs import OverlaySpec, TaskSpec
from vlm_harness.types import OptionScore, Outcome, Response, Variant


def rescore(folder: Path, labels: str | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """Score a run's log again, under its own labels or others.

    Writes ``results.json``, or ``results.<labels>.json`` beside it where the labels are not the
    run's own. The sample logs are not touched.

    Returns:
        The file written, and its rows.

    Raises:
        InputError: no run folder, or a log that does not fit its manifest.
    """
    manifest = read_manifest(folder)
    identity = manifest["identity"]
    tasks = {
        name: parse(TaskSpec, yamlfile.YamlFile(folder / "manifest.json", task["spec"]))
        for name, task in identity["tasks"].items()
    }
    corrections = {name: _corrections(task["overlay"]) for name, task in identity["tasks"].items()}
    own = manifest["config"]["labels"]
    labels = labels or own
    rows = []
    for expected in manifest["expected"]:
        variant = Variant(*(expected[field] for field in Variant._fields))
        task = tasks[variant.task]
        lines = {
            key_of(line): _rescored(line, task, labels, corrections[variant.task])
            for line in _lines(folder, variant)
        }
        rows.append(
            summarise(
                task,
                variant._replace(labels=labels),
                lines.values(),
                expected,
                limit=identity["limit"],
                seed=identity["seed"],
            )
        )
    path = folder / ("results.json" if labels == own else f"results.{labels}.json")
    write_json(path, {"schema": manifest["schema"], "results": rows})
    return path, rows


def _rescored(line: Line, task: TaskSpec, labels: str, corrections: Mapping[str, str]) -> Line:
    target = line["target_original"]
    answer = corrections.get(line["sample_id"])
    if labels == "corrected" and answer in line["options"]:
        target = line["options"].index(answer)
    if line["status"] == "error":
        outcome = Outcome("error", detail=line["error"])
    else:
        outcome = PROTOCOLS.get(line["protocol"]).outcome(
            _response(line),
            line["options"],
            tuple(line["order"]),
            getattr(task.protocols, line["protocol"]),
        )
    return {
        **line,
        "target": target,
        "prediction": outcome.prediction,
        "tied": outcome.tied,
        "status": outcome.status,
        "correct": outcome.status == "ok" and outcome.prediction == target,
    }


def _response(line: Line) -> Response:
    found = line["response"]
    scores = found.get("scores")
    return Response(
        text=found.get("text"),
        scores=None if scores is None else tuple(OptionScore(score) for score in scores),
    )


def _corrections(overlay: Mapping[str, Any] | None) -> dict[str, str]:
    if overlay is None:
        return {}
    spec = parse(OverlaySpec, yamlfile.YamlFile(Path("overlay"), dict(overlay)))
    return {str(correction.id): correction.answer for correction in spec.corrections}


def _lines(folder: Path, variant: Variant) -> list[Line]:
    path = log_path(folder, variant)
    if not path.is_file():  # nothing of it was answered
        return []
    return [line for line in read_lines(path) if variant_of(line) == variant]
