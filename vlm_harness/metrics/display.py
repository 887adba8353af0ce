"""How scores are said, wherever they are shown: names of metrics, numbers, what is worth naming."""

from collections.abc import Iterable, Mapping
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
