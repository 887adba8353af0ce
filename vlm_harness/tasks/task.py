"""Make samples from the YAML file of a task and its data."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from vlm_harness import datasets
from vlm_harness.errors import InputError, clip, listing, not_found, shown
from vlm_harness.files import to_json
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import OverlaySpec, TaskSpec
from vlm_harness.specs.templates import TemplateError, render_tree
from vlm_harness.tasks.sample_images import images, is_missing, oriented
from vlm_harness.tasks.texts import texts
from vlm_harness.types import Sample


@dataclasses.dataclass(frozen=True)
class Task:
    """A task with its samples."""

    spec: TaskSpec
    samples: Sequence[Sample]
    ids: Sequence[str]
    """Ids of all samples of the task, before ``--limit`` and ``--samples``."""
    data_sha256: Mapping[str, str]
    data_revision: str | None = None
    overlay: OverlaySpec | None = None

    def partners(self) -> dict[str, Sample]:
        """For each sample id in a complete pair, the other sample of the pair."""
        pairs: dict[str, list[Sample]] = {}
        for sample in self.samples:
            if sample.pair is not None:
                pairs.setdefault(sample.pair, []).append(sample)
        return {
            one.id: other
            for members in pairs.values()
            if len(members) == self.spec.grouping.pair.size == 2
            for one, other in (members, members[::-1])
        }


def load_task(
    spec: TaskSpec,
    registry: Registry,
    data_dir: Path,
    *,
    labels: str = "corrected",
    limit: int | None = None,
    samples: Sequence[str] = (),
) -> Task:
    """Read the data and make samples.

    Raises:
        InputError: missing data, rows that do not fit the task, duplicate sample ids, a group with
            too many samples, or label corrections that do not fit the data.
    """
    table = datasets.read(spec.dataset, data_dir, spec.at("dataset"))
    tables = {name: registry.table(name, spec.at("tables")).rows for name in spec.tables}
    common = {"rows": table.rows, **tables}
    combinations = [
        dict(zip(spec.each, values, strict=True)) for values in product(*spec.each.values())
    ]
    made = [
        sample
        for index, row in enumerate(table.rows)
        for own in combinations
        if (sample := _sample(spec, common, row, own, index, data_dir)) is not None
    ]
    if not made:
        raise InputError(
            f"task {spec.task}: no rows in {_place(spec)}"
            if not table.rows
            else f"task {spec.task}: none of the {len(table.rows)} rows of {_place(spec)} matches "
            "`where`",
            where=spec.at("where" if table.rows else "dataset"),
        )
    _check_ids(spec, made)
    _check_positive(spec, made)
    overlay = registry.overlay(spec.overlay, spec.at("overlay")) if spec.overlay else None
    if overlay is not None and labels == "corrected":
        made = apply_corrections(overlay, made)
    _check_groups(spec, made, labels)
    ids = [sample.id for sample in made]
    if samples:
        wanted = set(samples)
        made = [sample for sample in made if sample.id in wanted]
    checksums = {**table.sha256, **{f"table {name}": _sha256(tables[name]) for name in tables}}
    return Task(spec, _limit(made, limit), ids, checksums, table.revision, overlay)


def apply_corrections(overlay: OverlaySpec, samples: Sequence[Sample]) -> list[Sample]:
    """Apply label corrections. Corrections of samples that the task does not have are ignored.

    Raises:
        InputError: the label in the data is not the one that the correction replaces, for instance
            because the data are already corrected.
    """
    corrections = {str(c.id): (i, c) for i, c in enumerate(overlay.corrections)}
    corrected = []
    for sample in samples:
        index, correction = corrections.get(sample.id, (0, None))
        if correction is None or not {correction.was, correction.answer} & {*sample.options}:
            corrected.append(sample)
            continue
        if correction.answer not in sample.options:
            raise not_found(
                f"label correction of sample {sample.id}: unknown option {correction.answer!r}",
                correction.answer,
                sample.options,
                where=overlay.at("corrections", index),
                hint="Options of the sample: {}",
            )
        if sample.options[sample.target] != correction.was:
            raise InputError(
                f"label correction of sample {sample.id}: expected the label {correction.was!r} in "
                f"the data, found {shown(sample.options[sample.target])}",
                where=overlay.at("corrections", index),
                hint="Your copy of the data may already be corrected. Use --labels original to "
                "evaluate with the labels in the data.",
            )
        corrected.append(
            dataclasses.replace(sample, target=sample.options.index(correction.answer))
        )
    return corrected


def _sha256(rows: Mapping[Any, Any]) -> str:
    text = to_json(rows, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sample(
    spec: TaskSpec,
    common: Mapping[str, Any],
    row: datasets.Row,
    own: Mapping[str, Any],
    index: int,
    root: Path,
) -> Sample | None:
    """One sample of a row; ``own`` has its values of ``each``. None if ``where`` excludes it."""
    step: tuple[str | int, ...] = ()
    context: dict[str, Any] = {**common, **row, **own, "row": row, "row_index": index}
    try:
        for name, source in spec.fields.items():
            step = ("fields", name)
            context[name] = render_tree(source, context)
        step = ("where",)
        if spec.where is not None and not _truth(render_tree(spec.where, context)):
            return None
        values: dict[str, Any] = {}
        for name in ("id", "target", "pair", "set", "category"):
            step = ("sample", name)
            values[name] = render_tree(getattr(spec.sample, name), context)
        step = ("sample", "id")
        if is_missing(values["id"]):
            raise ValueError(f"the id must not be null, NaN or empty, found {values['id']!r}")
        step = ("sample", "options")
        options = texts(spec, "options", context, row)
        if len(set(options)) < len(options):
            raise ValueError(f"duplicate options: {shown(list(options))}")
        step = ("sample", "captions")
        captions = None
        if spec.sample.captions is not None:
            captions = texts(spec, "captions", context, row)
        if captions is not None and len(captions) != len(options):
            raise ValueError(f"{len(captions)} captions for {len(options)} options")
        step = ("sample", "target")
        target = _target(values["target"], options)
        step = ("sample", "images")
        shown_images = images(spec.sample.images, context, root, f"{spec.task}#{index}")
        return Sample(
            id=str(values["id"]),
            images=oriented(shown_images, spec.exif),
            options=options,
            target=target,
            target_original=target,
            captions=captions,
            pair=_key(values["pair"]),
            set=_key(values["set"]),
            category=_key(values["category"]),
            fields=context,
        )
    except (TemplateError, ValueError, InputError) as error:
        message = error.message if isinstance(error, InputError) else str(error)
        hint = f"Row {index}: {shown(dict(row))}"
        if isinstance(error, InputError) and error.hint:
            hint = f"{error.hint}\n{hint}"
        raise InputError(
            f"{'.'.join(map(str, step))}, row {index} of {_place(spec)}: {message}",
            where=spec.at(*step),
            hint=hint,
        ) from None


def _place(spec: TaskSpec) -> str:
    """The origin of the rows, for messages."""
    path = spec.dataset.path
    return " or ".join(path) if isinstance(path, list) else path or "the data set"


def _truth(value: Any) -> bool:
    # If `where` has text around its expression, the result is the text 'True' or 'False'.
    return value not in ("False", "false", "") if isinstance(value, str) else bool(value)


def _target(value: Any, options: Sequence[str]) -> int:
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(
            f"the target must be the index of an option (0 to {len(options) - 1}), found "
            f"{shown(value)}"
        )
    if not 0 <= value < len(options):
        raise ValueError(
            f"the target {clip(value)} is out of range for the {len(options)} options "
            f"{shown(list(options))}; "
            f"allowed: 0 to {len(options) - 1}"
        )
    return value


def _key(value: Any) -> str | None:
    return None if is_missing(value) else str(value)


def _check_ids(spec: TaskSpec, samples: Sequence[Sample]) -> None:
    counts = Counter(sample.id for sample in samples)
    duplicates = [name for name, count in counts.items() if count > 1]
    if duplicates:
        rows = [s.fields["row_index"] for s in samples if s.id == duplicates[0]]
        raise InputError(
            f"sample.id: duplicate ids ({len(duplicates)}): {listing(duplicates, 5)}; several "
            f"samples have the id {shown(duplicates[0])} (rows {clip(', '.join(map(str, rows)))})",
            where=spec.at("sample", "id"),
            hint="Make the id of every sample unique, for instance with {{ row_index }}.",
        )


def _check_positive(spec: TaskSpec, samples: Sequence[Sample]) -> None:
    options = {option for sample in samples for option in sample.options}
    if spec.positive is not None and spec.positive not in options:
        raise not_found(
            f"positive: no sample has an option {spec.positive!r}",
            spec.positive,
            options,
            where=spec.at("positive"),
            hint=f"Options: {listing(sorted(options), 5)}",
        )


def _check_groups(spec: TaskSpec, samples: Sequence[Sample], labels: str) -> None:
    for kind in ("pair", "set"):
        rule = getattr(spec.grouping, kind)
        members: dict[str, list[Sample]] = {}
        for sample in samples:
            key = getattr(sample, kind)
            if key is not None:
                members.setdefault(key, []).append(sample)
        for key, group in members.items():
            if len(group) > rule.size:
                raise InputError(
                    f"the {kind} {shown(key)} has {len(group)} samples, expected at most "
                    f"{rule.size}: {listing((s.id for s in group), 6)}",
                    where=spec.at("sample", kind),
                    hint=f"Change sample.{kind}, or grouping.{kind}.size.",
                )
            complete = len(group) == rule.size
            if rule.distinct_targets and complete and len({s.target for s in group}) < rule.size:
                raise InputError(
                    f"several samples of the {kind} {shown(key)} have the same correct option "
                    f"under the {labels} labels: {listing(s.id for s in group)}",
                    where=spec.at("grouping", kind, "distinct_targets"),
                    hint="Check the data and the label corrections.",
                )


def _limit(samples: list[Sample], limit: int | None) -> list[Sample]:
    """The first groups with at most ``limit`` samples in total, but at least one group."""
    if limit is None:
        return samples
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    chosen: set[str] = set()
    total = 0
    for key, members in groups.items():
        if chosen and total + len(members) > limit:
            break
        chosen.add(key)
        total += len(members)
    return [sample for sample in samples if sample.group in chosen]
