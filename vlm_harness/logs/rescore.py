"""Computes the results of a run again from its log: extract, score, summarise. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from vlm_harness.errors import not_found
from vlm_harness.files import write_json
from vlm_harness.logs.groups import Scored, group_rows
from vlm_harness.logs.lock import locked
from vlm_harness.logs.results import reads_text, record, summarise
from vlm_harness.logs.run import Run
from vlm_harness.logs.schema import Results
from vlm_harness.protocols import answer
from vlm_harness.specs.schemas import OverlaySpec, TaskSpec
from vlm_harness.specs.validation import parse
from vlm_harness.specs.yamlfile import YamlFile
from vlm_harness.types import AnswerRecord, Labels, LogLine, OptionScore, Outcome, Response


def rescore(run: Run | Path | str, labels: Labels | None = None) -> Results:
    """Score a run's log again, with its own or other labels.

    Writes ``results.json``, or ``results.<labels>.json`` for labels other than the run's own. The
    sample logs are not modified.

    Args:
        labels: ``corrected`` or ``original``; by default the run's own.

    Raises:
        InputError: not a run folder, a log that contradicts its manifest, or unknown labels.
    """
    if labels is not None and labels not in get_args(Labels):
        raise not_found(f"unknown labels {labels!r}", str(labels), get_args(Labels), where="labels")
    run = run if isinstance(run, Run) else Run(run)
    with locked(run.path):
        rows = rescored(run, labels)
        write_json(results_path(run, labels), rows.to_dict())
    return rows


def results_path(run: Run, labels: str | None = None) -> Path:
    """Path of the results for the given labels."""
    own = labels in (None, run.manifest.config.labels)
    return run.path / ("results.json" if own else f"results.{labels}.json")


def rescored(run: Run, labels: str | None = None) -> Results:
    """The result rows of a run's log for the given labels, without writing anything.

    Raises:
        InputError: not a run folder, or a log that contradicts its manifest.
    """
    identity = run.manifest.identity
    labels = labels or run.manifest.config.labels
    tasks = {name: run.spec(name) for name in identity.tasks}
    corrections = {name: _corrections(task.overlay) for name, task in identity.tasks.items()}
    lines = run.lines_by_cell(run.cells)
    found: list[Scored] = []
    for cell, expected in run.expected.items():
        task = tasks[cell.task]
        texts = reads_text(task)
        scored = {
            line.key: record(
                _rescored(line, task, labels, corrections[cell.task]), task.positive, texts, task
            )
            for line in lines[cell]
        }
        row = summarise(
            task,
            cell.replace(labels=labels),
            scored.values(),
            expected,
            limit=identity.limit,
            seed=identity.seed,
        )
        found.append(Scored(row, task, scored.values()))
    return Results((each.row for each in found), group_rows(run.groups, found))


def _rescored(
    line: LogLine, task: TaskSpec, labels: str, corrections: Mapping[str, str]
) -> LogLine:
    target = line.target_original
    corrected = corrections.get(line.sample_id)
    if labels == "corrected" and corrected in line.options:
        target = line.options.index(corrected)
    return reread(line, task, target)


def reread(line: LogLine, task: TaskSpec, target: int | None = None) -> LogLine:
    """A log line with its answer read again, as the task says.

    Args:
        target: the correct option; by default that of the line.
    """
    if line.status == "error" and line.response.text is None:
        outcome = Outcome("error", detail=line.error)
    else:
        use = task.protocols.use(line.protocol)
        outcome = answer(
            line.protocol, _response(line.response), line.shown, tuple(line.order), use
        )
    return line.model_copy(update=outcome.verdict(line.target if target is None else target))


def _response(found: AnswerRecord) -> Response:
    scores = found.scores
    return Response(
        text=found.text,
        # Non-finite numbers are null in the log.
        scores=None
        if scores is None
        else tuple(OptionScore(float("nan") if each is None else each) for each in scores),
    )


def _corrections(overlay: Mapping[str, Any] | None) -> dict[str, str]:
    if overlay is None:
        return {}
    spec = parse(OverlaySpec, YamlFile(Path("overlay"), dict(overlay)))
    return {str(correction.id): correction.answer for correction in spec.corrections}
