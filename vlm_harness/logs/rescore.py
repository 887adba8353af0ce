"""The right half of a run again, from its log alone: extract, score, summarise. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_harness.files import write_json
from vlm_harness.logs.lines import Line, key_of, locked, verdict
from vlm_harness.logs.results import summarise
from vlm_harness.logs.run import RecordedRun
from vlm_harness.protocols.protocol import answer
from vlm_harness.specs import yamlfile
from vlm_harness.specs.schemas import OverlaySpec, TaskSpec
from vlm_harness.specs.validation import parse
from vlm_harness.types import OptionScore, Outcome, Response


def rescore(folder: Path, labels: str | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """Score a run's log again, under its own labels or others.

    Writes ``results.json``, or ``results.<labels>.json`` beside it where the labels are not the
    run's own. The sample logs are not touched.

    Returns:
        The file written, and its rows.

    Raises:
        InputError: no run folder, or a log that does not fit its manifest.
    """
    run = RecordedRun(folder)
    own = run.manifest["config"]["labels"]
    labels = labels or own
    with locked(folder):
        rows = rescored(run, labels)
        path = folder / ("results.json" if labels == own else f"results.{labels}.json")
        write_json(path, {"schema": run.manifest["schema"], "results": rows})
    return path, rows


def rescored(run: RecordedRun, labels: str) -> list[dict[str, Any]]:
    """The rows of ``results.json`` that follow from a run's log under some labels.

    Raises:
        InputError: no run folder, or a log that does not fit its manifest.
    """
    manifest = run.manifest
    identity = manifest["identity"]
    tasks = {name: run.spec(name) for name in identity["tasks"]}
    corrections = {name: _corrections(task["overlay"]) for name, task in identity["tasks"].items()}
    lines = run.lines_by_variant(run.variants)
    return [
        summarise(
            tasks[variant.task],
            variant._replace(labels=labels),
            {
                key_of(line): _rescored(
                    line, tasks[variant.task], labels, corrections[variant.task]
                )
                for line in lines[variant]
            }.values(),
            expected,
            limit=identity["limit"],
            seed=identity["seed"],
        )
        for expected, variant in zip(manifest["expected"], lines, strict=True)
    ]


def _rescored(line: Line, task: TaskSpec, labels: str, corrections: Mapping[str, str]) -> Line:
    target = line["target_original"]
    corrected = corrections.get(line["sample_id"])
    if labels == "corrected" and corrected in line["options"]:
        target = line["options"].index(corrected)
    if line["status"] == "error" and "text" not in line["response"]:
        outcome = Outcome("error", detail=line["error"])
    else:
        use = getattr(task.protocols, line["protocol"])
        outcome = answer(
            line["protocol"], _response(line), line["shown"], tuple(line["order"]), use
        )
    return {**line, **verdict(outcome, target)}


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
