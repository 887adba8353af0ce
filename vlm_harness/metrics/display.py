"""Format the values of metrics, by the unit that each metric declares."""

from collections.abc import Iterable, Sequence
from html import escape

from vlm_harness.errors import printable
from vlm_harness.metrics.metric import Unit
from vlm_harness.metrics.registry import METRICS
from vlm_harness.types import Estimate

COMPARED = {
    "individual_accuracy": "Indiv.",
    "pair_accuracy": "Pairs",
    "set_accuracy": "Set of 4",
}
"""The columns of Tables 1 and 2 of the paper, with their headings."""
DECIMALS: dict[Unit, int] = {"share": 1, "cosine": 3, "count": 1, "number": 3}


def short(metric: str) -> str:
    """Heading of a column."""
    return METRICS.declared(metric).short


def title(metric: str) -> str:
    """Name within a sentence."""
    return METRICS.declared(metric).title


def unit(metric: str) -> Unit:
    return METRICS.declared(metric).unit


def scale(metric: str) -> int:
    """Factor from a value to the printed value: 100 for shares, which are in percent."""
    return 100 if unit(metric) == "share" else 1


def decimals(metric: str) -> int:
    return DECIMALS[unit(metric)]


def percent(share: float) -> str:
    """Format a share that is not a metric."""
    return f"{100 * share:.{DECIMALS['share']}f}"


def points(difference: float) -> str:
    """Format a difference of two shares that are not metrics, in percentage points."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # no "-0.0"


def number(metric: str, value: float) -> str:
    """Shares in percent, with one decimal; cosines and numbers as they are, with three."""
    return f"{scale(metric) * value:.{decimals(metric)}f}"


def signed(metric: str, value: float) -> str:
    """A difference of two values; for shares, in percentage points."""
    digits = decimals(metric)
    return f"{round(scale(metric) * value, digits) + 0.0:+.{digits}f}"  # no "-0.0"


def signed_interval(metric: str, low: float | None, high: float | None) -> str:
    """Interval of a difference; empty if there is none."""
    if low is None or high is None:
        return ""
    return f"{signed(metric, low)} to {signed(metric, high)}"


def interval(metric: str, low: float | None, high: float | None, dash: str = "-") -> str:
    """Interval of a value; for shares, in whole percent. Empty if there is none."""
    if low is None or high is None:
        return ""
    if unit(metric) == "share":
        return f"{100 * low:.0f}{dash}{100 * high:.0f}"
    return f"{number(metric, low)}{dash}{number(metric, high)}"


def chance(metric: str, estimates: Iterable[Estimate | None], dash: str = "-") -> str:
    """Chance; a range if it differs between the estimates, as with incomplete groups."""
    known = sorted(each.chance for each in estimates if each and each.chance is not None)
    texts = (f"{scale(metric) * chance:.3g}" for chance in known[:1] + known[-1:])
    return dash.join(dict.fromkeys(texts))


def units_note(metrics: Iterable[str]) -> str:
    """Units of the printed values, if any is in percent; otherwise empty."""
    units = {unit(name) for name in metrics}
    if "share" not in units:
        return ""
    others = [f"{each}s" for each in DECIMALS if each in units - {"share"}]
    return f"percent, except {' and '.join(others)}" if others else "percent"


def p_value(value: float | None, none: str = "-") -> str:
    if value is None:
        return none
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str]) -> str:
    """A table for a notebook, with notes below it."""

    def cells(tag: str, texts: Iterable[str]) -> str:
        return "".join(f"<{tag}>{escape(printable(text))}</{tag}>" for text in texts)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    below = "".join(f"<p>{escape(printable(note[:1].upper() + note[1:]))}.</p>" for note in notes)
    return (
        f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>{below}"
    )
