"""The run folder: manifest, sample logs (written during the run), and results.

    <output-dir>/<run-id>/manifest.json
                          results.json
                          samples/<model>__<task>__<protocol>.jsonl

Each line is flushed when it is written, so an interrupted run can be resumed from its logs.
"""

import math
import re
import shlex
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vlm_harness import __version__, images
from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError, SampleError, listing, shown
from vlm_harness.files import write_bytes, write_json
from vlm_harness.logs.identity import difference, digest_of
from vlm_harness.logs.lines import (
    dump_line,
    log_path,
    read_manifest,
    read_raw_lines,
    slug,
)
from vlm_harness.logs.lock import locked
from vlm_harness.logs.schema import Results
from vlm_harness.runs.environment import environment
from vlm_harness.runs.identity import identity
from vlm_harness.runs.plan import Item, Plan
from vlm_harness.types import (
    AnswerRecord,
    Cell,
    ImageRecord,
    ImageRef,
    LogLine,
    Manifest,
    Model,
    Outcome,
    Response,
)

IMAGES_CHECKED = 100
"""Number of images of a finished run whose checksums are verified."""


def default_run_id(plan: Plan, digest: str) -> str:
    """``<models>__<tasks>__<hash>``, so that rerunning a command resumes its run."""
    models = "+".join(slug(model.model) for model in plan.models)
    tasks = "+".join(slug(pattern) for pattern in plan.config.tasks)
    return f"{models[:60]}__{tasks[:60]}__{digest[:10]}"


class RunFolder:
    """A run on disk, locked against other processes.

    Raises:
        InputError: the folder is in use, or contains a different run.
    """

    def __init__(self, plan: Plan, argv: Sequence[str]) -> None:
        self._identity = identity(plan)
        self.digest = digest_of(self._identity)
        run_id = plan.config.run_id or default_run_id(plan, self.digest)
        if not re.fullmatch(r"\w[\w.+-]*", run_id):
            raise InputError(
                f"{run_id!r} is not a valid run id",
                where="--run-id",
                hint=f"Letters, digits and . _ + - are allowed, e.g. {slug(run_id)}.",
            )
        self.path = Path(plan.config.output_dir) / run_id
        self._plan = plan
        self._argv = list(argv)
        self._streams: dict[Path, IO[str]] = {}
        self._unrepaired: dict[Path, Container[tuple[Any, ...]]] = {}
        self._lock = locked(self.path)
        self._created: list[Path] = []

    def __enter__(self) -> "RunFolder":
        samples = self.path / "samples"
        self._created = [each for each in (samples, *samples.parents) if not each.exists()]
        try:
            samples.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write there: {error.strerror}", where=self.path) from None
        self._lock.__enter__()
        try:
            self._check_same_run()
        except InputError:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._streams.values():
            with suppress(OSError):  # writing failed before, and was reported then
                stream.close()
        self._streams.clear()
        if not self.begun:
            self._remove_created()
        self._lock.__exit__(kind, error, trace)

    def _remove_created(self) -> None:
        """Leave nothing behind of a run that was refused before its manifest was written."""
        if self.path in self._created:
            with suppress(OSError):
                (self.path / ".lock").unlink(missing_ok=True)
        for folder in self._created:  # the innermost first; rmdir keeps folders that have files
            with suppress(OSError):
                folder.rmdir()

    def _check_same_run(self) -> None:
        if self._plan.config.fresh:
            self._overwrite()
            return
        manifest = self._recorded
        if manifest is None and any((self.path / "samples").iterdir()):
            raise InputError(
                "the folder contains sample logs but no manifest.json, so the run cannot be "
                "identified",
                where=self.path,
                hint="Restore the manifest, choose another --run-id, or delete the folder.",
            )
        if manifest is not None and manifest.identity_sha256 != self.digest:
            changed = difference(manifest.identity.to_dict(), self._identity)
            raise InputError(
                f"the folder contains a different run; changed settings: {changed}",
                where=self.path,
                hint="Choose another --run-id, or overwrite the run with --fresh.",
            )

    def _overwrite(self) -> None:
        """Delete an earlier run; refuse to delete anything that is not a run."""
        samples = self.path / "samples"
        if not (self.path / "manifest.json").is_file() and any(samples.iterdir()):
            raise InputError(
                "--fresh only overwrites runs, but this folder has no manifest.json",
                where=self.path,
                hint="Choose another --run-id.",
            )
        shutil.rmtree(samples)
        samples.mkdir()
        for path in (self.path / "manifest.json", self.path / "errors.log"):
            path.unlink(missing_ok=True)
        for path in self.path.glob("results*.json"):
            path.unlink()

    def check_same_dtype(self, model: Model) -> None:
        """Refuse to resume in another dtype (``--dtype auto`` differs between CPU and GPU)."""
        before = self._recorded.models.get(model.name) if self._recorded else None
        if before and before.dtype != model.dtype and any((self.path / "samples").iterdir()):
            raise InputError(
                f"cannot resume the run: {model.name} was loaded in {before.dtype} before, and is "
                f"now in {model.dtype}",
                where=self.path,
                hint=f"Resume with --dtype {before.dtype}, or overwrite the run with --fresh.",
            )

    # --- manifest --------------------------------------------------------------------------------

    @property
    def _recorded(self) -> Manifest | None:
        """The manifest on disk; None for a new run."""
        return read_manifest(self.path) if (self.path / "manifest.json").is_file() else None

    @property
    def begun(self) -> bool:
        """Whether the run was started before."""
        return (self.path / "manifest.json").is_file()

    @property
    def finished(self) -> bool:
        manifest = self._recorded
        return manifest is not None and manifest.finished is not None

    def write_manifest(self, models: Mapping[str, Model], finished: bool = False) -> None:
        old = self._recorded
        plan = self._plan
        manifest = {
            "schema": 1,
            "run_id": self.path.name,
            "vlm_harness": __version__,
            "identity_sha256": self.digest,
            "identity": self._identity,
            "expected": [planned.expected.to_dict() for planned in plan.cells],
            "config": plan.config.model_dump(mode="json"),
            "command_line": shlex.join(self._argv),
            "started": (old and old.started) or _now(),
            "finished": _now() if finished else None,
            "logs": self._log_checksums() if finished else None,
            "models": {
                **({name: model.to_dict() for name, model in old.models.items()} if old else {}),
                **{name: model.to_dict() for name, model in models.items()},
            },
            "data_dir": str(plan.data_dir),
            "data_revision": {n: t.data_revision for n, t in plan.tasks.items() if t.data_revision},
            **self._groups(),
            "environment": environment(),
        }
        write_json(self.path / "manifest.json", manifest)

    def _log_checksums(self) -> dict[str, str]:
        """Checksums of the sample logs by path in the folder. All lines must be flushed."""
        paths = dict.fromkeys(self.log_path(planned.cell) for planned in self._plan.cells)
        found = (path for path in paths if path.is_file())
        return {path.relative_to(self.path).as_posix(): checksum(path) for path in found}

    def update_checksums(self, repaired: Iterable[Path]) -> None:
        """Update the log checksums of a finished run for ``repaired`` logs, or all if it has none.

        The checksums of other logs are kept, so that edited logs can still be detected.
        """
        manifest = read_manifest(self.path)
        known = manifest.logs
        changed = {path.relative_to(self.path).as_posix() for path in repaired}
        if known is None or changed:
            checksums = self._log_checksums()
            known = checksums if known is None else {**known, **{n: checksums[n] for n in changed}}
            write_json(self.path / "manifest.json", {**manifest.to_dict(), "logs": known})

    def _groups(self) -> dict[str, Any]:
        """The groups with scores, as in the manifest; empty without groups."""
        specs = self._plan.groups.values()
        groups = [spec.model_dump(mode="json", exclude_none=True) for spec in specs]
        return {"groups": groups} if groups else {}

    def update_groups(self) -> None:
        """Record the present definitions of groups in the manifest of a finished run."""
        before = read_manifest(self.path).to_dict()
        after = {name: value for name, value in before.items() if name != "groups"}
        after |= self._groups()
        if after != before:
            write_json(self.path / "manifest.json", after)

    def write_results(self, results: Results) -> None:
        write_json(self.path / "results.json", results.to_dict())

    # --- lines -----------------------------------------------------------------------------------

    def log_path(self, cell: Cell) -> Path:
        return log_path(self.path, cell)

    def finished_lines(
        self, cells: Iterable[Cell], planned: Container[tuple[Any, ...]]
    ) -> dict[tuple[Any, ...], LogLine]:
        """Lines to resume from, by key: planned lines in the logs that are not errors.

        Failed samples are left out, so that they are retried. Files are unchanged until ``repair``.
        """
        finished: dict[tuple[Any, ...], LogLine] = {}
        for path in dict.fromkeys(self.log_path(cell) for cell in cells):
            if not path.exists():
                continue
            n_read = n_bytes = 0
            lines = {}
            for line, data in read_raw_lines(path):
                n_read += 1
                n_bytes += len(data)
                if line.status != "error" and line.key in planned:
                    lines[line.key] = line
            if len(lines) != n_read or n_bytes != path.stat().st_size:
                self._unrepaired[path] = lines.keys()
            finished.update(lines)
        return finished

    def check_line(self, line: LogLine, item: Item) -> None:
        """Refuse to resume from a line that contradicts the task."""
        sample = item.sample
        for name, found, expected in (
            ("options", line.options, list(sample.options)),
            ("target_original", line.target_original, sample.target_original),
            ("pair", line.pair, sample.pair),
            ("set", line.set, sample.set),
            ("order_index", line.order_index, item.order_index),
        ):
            if found != expected:
                raise InputError(
                    f"the log line of sample {sample.id} was changed: {name} is {shown(found)}, "
                    f"expected {shown(expected)}",
                    where=self.log_path(item.planned.cell),
                    hint="Delete the line and rerun the same command to retry the sample.",
                )

    def repair(self) -> list[Path]:
        """Remove truncated, duplicate, failed and unplanned lines, before new lines are appended.

        Returns:
            The changed files.
        """
        for path, keys in self._unrepaired.items():
            kept = {
                line.key: data
                for line, data in read_raw_lines(path)
                if line.status != "error" and line.key in keys
            }
            write_bytes(path, b"".join(kept.values()))
        repaired = list(self._unrepaired)
        self._unrepaired.clear()
        return repaired

    def check_same_images(self, lines: Iterable[LogLine]) -> None:
        """Refuse to resume a run whose images have changed.

        For a finished run, which computes nothing new, only about ``IMAGES_CHECKED`` are verified.
        """
        checksums = {
            image.path: image.sha256
            for line in lines
            for image in line.images or ()
            if image.sha256 is not None
        }
        if not checksums:
            return
        refs = {
            ref.path: ref
            for task in self._plan.tasks.values()
            for sample in task.samples
            for ref in sample.images
            if ref.path in checksums
        }
        step = max(1, len(refs) // IMAGES_CHECKED) if self.finished else 1
        changed = [
            path for path in list(refs)[::step] if not _has_checksum(refs[path], checksums[path])
        ]
        if changed:
            raise InputError(
                f"the run was started with different images: {listing(changed, 3)}",
                where=self.path,
                hint="Choose another --run-id, or overwrite the run with --fresh.",
            )

    def write(
        self, item: Item, response: Response, outcome: Outcome, checksums: Mapping[str, str]
    ) -> LogLine:
        """Append the log line of one sample."""
        line = make_line(item, response, outcome, checksums)
        path = self.log_path(item.planned.cell)
        try:
            if path not in self._streams:
                self._streams[path] = path.open("a", encoding="utf-8")
            stream = self._streams[path]
            stream.write(dump_line(line))
            stream.flush()
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", where=path) from None
        return line

    def log_traceback(self, text: str) -> None:
        # The log line of the sample has the error. Failing to write the traceback is not fatal.
        path = self.path / "errors.log"
        with suppress(OSError), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{_now()}\n{text}\n")


def _has_checksum(ref: ImageRef, sha256: str) -> bool:
    try:
        return images.checksum(ref) == sha256
    except SampleError:
        return True  # unreadable now, but not a different image; its sample was answered before


def make_line(
    item: Item, response: Response, outcome: Outcome, checksums: Mapping[str, str]
) -> LogLine:
    """The log line of one sample; can be scored again without model, data or images."""
    sample, request = item.sample, item.request
    return LogLine(
        **item.planned.cell.fields,
        task_version=item.planned.task.spec.version,
        sample_id=sample.id,
        pair=sample.pair,
        set=sample.set,
        category=sample.category,
        images=[ImageRecord(path=r.path, sha256=checksums.get(r.path)) for r in request.images],
        prompt=request.prompt or None,
        options=list(sample.options),
        shown=list(item.prompt.shown),
        candidates=list(request.candidates) or None,
        order=list(item.prompt.order),
        order_index=item.order_index,
        response=_answer(response),
        pair_cosine=_number(response.pair_cosine),
        target_original=sample.target_original,
        **outcome.verdict(sample.target),
    )


def _answer(response: Response) -> AnswerRecord:
    over_limit = response.over_limit or None
    if response.text is not None:
        cut = response.finish_reason if response.finish_reason != "stop" else None
        return AnswerRecord(text=response.text, finish_reason=cut, over_limit=over_limit)
    if response.scores is None:
        return AnswerRecord(over_limit=over_limit)
    # Lists of numbers are smaller and easier to read than a list of objects.
    # JSON has no NaN; a line with such a score already has status error.
    scores = [_number(option.score) for option in response.scores]
    if all(option.n_tokens is None for option in response.scores):
        return AnswerRecord(scores=scores, over_limit=over_limit)
    return AnswerRecord(
        scores=scores,
        sum_logprobs=[_number(option.sum_logprob) for option in response.scores],
        n_tokens=[option.n_tokens for option in response.scores],
        over_limit=over_limit,
    )


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
