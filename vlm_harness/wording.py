"""How scores are said, wherever they are shown: names of metrics, numbers, what is worth naming."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

SHORT = {
    "individual_accuracy": "individual",
    "pair_accuracy": "pair",
    "set_accuracy": "set",
    "mean_pair_cosine": "pair cosine",
    "relaxed_pair_accuracy": "relaxed pair",
    "relaxed_pair_accuracy_sum": "relaxed (sum)",
    "text_to_image_accuracy": "text-to-image",
    "text_to_image_pair_accuracy": "text-to-image pair",
    "group_accuracy": "group",
    "two_way_accuracy": "two-way",
    "two_way_pair_accuracy": "two-way pair",
    "f1": "F1",
    "yes_ratio": "yes",
    "whatsup_official_pair_accuracy": "pair/(n/2)",
    "whatsup_official_set_accuracy": "set/(n/4)",
}

COMPARED = {
    "individual_accuracy": "Indiv.",
    "pair_accuracy": "Pairs",
    "set_accuracy": "Set of 4",
}
"""What the paper's Tables 1 and 2 show of each task, in their order and words."""

HIGHER_IS_BETTER = frozenset(SHORT) - {"mean_pair_cosine", "yes_ratio"} | {"precision", "recall"}
"""Of others it is not known (modules of ``evaluate``), or nothing is better."""

VARIANT_FIELDS = ("command", "order", "decoding", "image_mode")
"""How a model was asked, beside the protocol."""

USUAL = {"command": "default", "order": "fixed", "decoding": "greedy", "image_mode": "normal"}
"""What goes without saying where all have it."""


def is_cosine(metric: str) -> bool:
    return "cosine" in metric


def number(metric: str, value: float) -> str:
    """Percent with one decimal; cosines as they are, with three."""
    return f"{value:.3f}" if is_cosine(metric) else f"{100 * value:.1f}"


def signed(metric: str, value: float) -> str:
    """A difference of two values, in percentage points; cosines as they are."""
    value, digits = (value, 3) if is_cosine(metric) else (100 * value, 1)
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no "-0.0"


def signed_interval(metric: str, low: float | None, high: float | None) -> str:
    """Of such a difference. Empty where there is none."""
    if low is None or high is None:
        return ""
    return f"{signed(metric, low)} to {signed(metric, high)}"


def interval(metric: str, low: float | None, high: float | None, dash: str = "-") -> str:
    """In whole percent; of a cosine with three decimals. Empty where there is none."""
    if low is None or high is None:
        return ""
    if is_cosine(metric):
        return f"{low:.3f}{dash}{high:.3f}"
    return f"{100 * low:.0f}{dash}{100 * high:.0f}"


def chance(metrics: Iterable[Mapping[str, Any] | None], dash: str = "-") -> str:
    """A range where it differs, as it may where some groups are incomplete."""
    known = sorted(each["chance"] for each in metrics if each and each["chance"] is not None)
    return dash.join(dict.fromkeys(f"{100 * chance:.3g}" for chance in known[:1] + known[-1:]))


def p_value(value: float | None, none: str = "-") -> str:
    if value is None:
        return none
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def words(metric: str) -> str:
    """The name of a metric within a sentence."""
    return metric.replace("_", " ")


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
