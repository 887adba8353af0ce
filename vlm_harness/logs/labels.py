"""What tells results apart, and what must be known to read them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from vlm_harness.logs.run import RecordedRun
from vlm_harness.metrics.display import SHORT
from vlm_harness.types import Variant

VARIANT_FIELDS = ("command", "order", "decoding", "image_mode")
"""How a model was asked, beside the protocol."""


USUAL = {"command": "default", "order": "fixed", "decoding": "greedy", "image_mode": "normal"}
"""What goes without saying where all have it."""


def common_prefix(names: Iterable[str]) -> str:
    """What several names begin with, up to an underscore; of a single name nothing."""
    several = set(names)
    if len(several) < 2:
        return ""
    parts = zip(*(name.split("_")[:-1] for name in several), strict=False)
    return "".join(f"{same[0]}_" for same in takewhile(lambda each: len(set(each)) == 1, parts))


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of ``VARIANT_FIELDS`` those worth a column: rows differ in them, or are not as usual.

    Commands and decodings are "none" where no words are asked or written, which is no other way.
    What a task's first command is called is its own affair.
    """
    found = []
    for name in VARIANT_FIELDS:
        values = {row[name] for row in rows}
        if name in ("command", "decoding"):
            values.discard("none")
        if len(values) > 1 or (name != "command" and values - {USUAL[name]}):
            found.append(name)
    return found


def told_apart(
    rows: Sequence[Mapping[str, Any]], fields: Sequence[str] = VARIANT_FIELDS
) -> list[dict[str, str]]:
    """Of each row what tells it from others of its model and protocol, by field.

    What differs between tasks alone tells nothing apart.
    """
    values: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        for field in fields:
            key = (row["model"], row["protocol"], field, row["task"])
            values.setdefault(key, set()).add(row[field])
    varying = {key[:3] for key, found in values.items() if len(found) > 1}
    return [
        {field: row[field] for field in fields if (row["model"], row["protocol"], field) in varying}
        for row in rows
    ]


def shown_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those that have a value somewhere, and those to quote."""
    names = dict.fromkeys(
        name
        for row in rows
        for name, metric in row["metrics"].items()
        if metric["value"] is not None or name == row["primary_metric"]
    )
    # Over whole groups the official formula is the plain one: no need to show it twice.
    incomplete = any(row["n_incomplete"] for row in rows)
    return [name for name in names if incomplete or "official" not in name]


def caveats(row: Mapping[str, Any]) -> list[str]:
    """What must be known to read a row of results rightly."""
    notes = []
    if row["n_samples"] < row["n_expected"]:
        notes.append(f"{row['n_expected'] - row['n_samples']} of {row['n_expected']} not answered")
    for kind, count in row["groups"].items():
        if count["n_incomplete"]:
            notes.append(f"{count['n_incomplete']} of {count['n']} {kind}s incomplete, not scored")
    for field, text in (("n_unparsed", "unparsed"), ("n_errors", "failed")):
        if row[field]:
            notes.append(f"{row[field]} {text} (count as wrong)")
    if row["n_tied"]:
        notes.append(f"{row['n_tied']} tied (count as wrong)")
    n_pairs = row["groups"].get("pair", {"n": 0, "n_incomplete": 0})
    whole = n_pairs["n"] - n_pairs["n_incomplete"]
    for name, metric in row["metrics"].items():
        if name.startswith("relaxed_pair") and metric["value"] is not None and metric["n"] < whole:
            notes.append(
                f"{SHORT.get(name, name)} over {metric['n']} of {whole} pairs: ratios need scores "
                "above 0"
            )
    if row["limit"]:
        notes.append(f"limited to {row['limit']}: not a complete run")
    elif not row["complete"] and row["n_samples"] == row["n_expected"] and not row["n_errors"]:
        notes.append("some of the samples alone: not a complete run")
    return notes


def run_names(runs: Sequence[RecordedRun]) -> dict[Path, str]:
    """What runs are called: by their folders where several have one name."""
    names = Counter(run.name for run in runs)
    return {r.folder: r.name if names[r.name] == 1 else str(r.folder) for r in runs}


WORDS = {"command": "command ", "order": "order ", "image_mode": "images ", "labels": "labels "}
"""Before values that do not say themselves what they are of."""


def labels(cells: Sequence[tuple[str, Variant]]) -> list[str]:
    """The model of each cell of some runs (by name), and what tells it from others of its task.

    A model has one label in all tasks that it was asked in one way.
    """
    found = [variant.model for _, variant in cells]
    fields = [variant._asdict() | {"run": run} for run, variant in cells]
    for name in (*Variant._fields[2:], "run"):
        values: dict[tuple[str, str], set[str]] = {}
        for label, each in zip(found, fields, strict=True):
            values.setdefault((label, each["task"]), set()).add(each[name])
        several = {label for (label, _), own in values.items() if len(own) > 1}
        found = [
            f"{label} / {WORDS.get(name, '')}{each[name]}" if label in several else label
            for label, each in zip(found, fields, strict=True)
        ]
    return found
