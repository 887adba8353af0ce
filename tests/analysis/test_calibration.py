"""Calibration: hand-computed cases, and general properties."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.runs import log_line
from vlm_harness.analysis.calibration import Calibration, calibration, probabilities
from vlm_harness.protocols.protocol import highest
from vlm_harness.types import LogLine, OptionScore


def line(sums: Sequence[float | None] | None, target: int = 0, **fields: Any) -> LogLine:
    """The prediction is the option with the highest sum, unless ``prediction`` is given."""
    known = sums if sums and None not in sums else None
    outcome = highest([OptionScore(each) for each in known if each is not None] if known else None)
    made = {
        "target": target, "status": outcome.status, "prediction": outcome.prediction,
        "response": {} if sums is None else {"sum_logprobs": sums}, **fields,
    }  # fmt: skip
    correct = made["status"] == "ok" and made["prediction"] == target
    options = [f"option {n}" for n in range(len(sums or (0, 1)))]
    return log_line(**{"correct": correct, "options": options, **made})


def of(*shares: float, **fields: Any) -> LogLine:
    """A line with these probabilities."""
    return line([math.log(each) - 7 for each in shares], **fields)


def found(*lines: LogLine, **options: Any) -> Calibration:
    result = calibration(lines, **options)
    assert result is not None
    return result


CASES: list[tuple[str, list[LogLine], tuple[float, ...]]] = [
    # what, lines, (accuracy, confidence, ece, brier)
    ("confident and correct", [line([0, -900])], (1, 1, 0, 0)),
    ("confident and incorrect", [line([-900, 0])], (0, 1, 1, 2)),
    ("one line", [of(0.8, 0.2)], (1, 0.8, 0.2, 0.04 + 0.04)),
    ("one incorrect line", [of(0.2, 0.8)], (0, 0.8, 0.8, 0.64 + 0.64)),
    # 3 of 4 correct at 0.75: calibrated. Brier (3 * 2 * 0.25^2 + 2 * 0.75^2) / 4
    ("calibrated", [of(0.75, 0.25)] * 3 + [of(0.25, 0.75)], (0.75, 0.75, 0, 0.375)),
    # One bin, (0.8, 0.9]: accuracy 1/2, confidence 0.85
    ("one bin", [of(0.82, 0.18), of(0.12, 0.88)], (0.5, 0.85, 0.35, (0.0648 + 1.5488) / 2)),
    # Bins (0.5, 0.6] 1 of 1 correct at 0.6, (0.9, 1] 0 of 1 correct at 0.95: (0.4 + 0.95) / 2
    ("two bins", [of(0.6, 0.4), of(0.05, 0.95)], (0.5, 0.775, 0.675, (0.32 + 1.805) / 2)),
    # Errors within a bin cancel: 0.61 correct, 0.69 incorrect, (0.39 - 0.69) / 2
    ("within a bin", [of(0.61, 0.39), of(0.31, 0.69)], (0.5, 0.65, 0.15, (0.3042 + 0.9522) / 2)),
    ("four options", [of(0.1, 0.2, 0.3, 0.4, target=3)], (1, 0.4, 0.6, 0.01 + 0.04 + 0.09 + 0.36)),
    # The prediction has the highest mean, which need not be the highest sum.
    ("longer answer", [of(0.25, 0.75, prediction=0)], (1, 0.25, 0.75, 2 * 0.75**2)),
]


@pytest.mark.parametrize(
    ("lines", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_by_hand(lines: list[LogLine], expected: tuple[float, ...]) -> None:
    result = found(*lines)
    values = (result.accuracy, result.confidence, result.ece, result.brier)
    assert values == pytest.approx(expected, abs=1e-12)
    assert result.gap == pytest.approx(result.confidence - result.accuracy)
    assert (result.n, result.n_left_out) == (len(lines), 0)
    json.dumps(asdict(result), allow_nan=False)


def test_bins_are_closed_above() -> None:
    """Uniform guesses of 2, 4 and 5 options, on bin edges or between; 0 is in the first bin."""
    lines = [
        line([-3.0] * 2, prediction=0, status="ok"),
        line([-3.0] * 4, prediction=0, status="ok"),
        line([-3.0] * 5, prediction=0, status="ok"),
        line([-2000.0, 0.0], prediction=0, status="ok"),
        line([0.0, -2000.0]),
    ]
    bins = found(*lines).bins
    assert [each.n for each in bins] == [1, 1, 1, 0, 1, 0, 0, 0, 0, 1]
    assert [(each.low, each.high) for each in bins][2:4] == [(0.2, 0.3), (0.3, 0.4)]
    assert (bins[4].confidence, bins[4].accuracy) == (0.5, 1.0)
    assert (bins[3].confidence, bins[3].accuracy, bins[3].ci_low) == (None, None, None)
    assert [each.n for each in found(*lines, bins=2).bins] == [4, 1]


def test_what_is_left_out() -> None:
    fine = of(0.8, 0.2)
    lines = [
        fine,
        line([-1.0, -1.0]),  # tied
        line([-1.0, None]),  # no finite number
        line([-1.0, -math.inf], prediction=0, status="ok"),
        line([-1.0, math.nan], prediction=0, status="ok"),
        line(None),  # failed
        line([-1.0, -2.0], status="error", prediction=None),
        line(None, response={"text": "left"}, prediction=0, status="ok"),
    ]
    result = found(*lines)
    assert (result.n, result.n_left_out, result.accuracy) == (1, 7, 1.0)
    assert calibration(lines[1:]) is None
    assert calibration([]) is None
    cosines = line(None, response={"scores": [0.2, 0.1]}, prediction=0, status="ok")
    assert calibration([cosines]) is None


def test_sums_of_any_size() -> None:
    assert probabilities([-5000.0, -5000.0]) == [0.5, 0.5]
    assert probabilities([-1e308, 1e308]) == [0.0, 1.0]
    assert probabilities([-1e5, -1e5 - math.log(3)]) == pytest.approx([0.75, 0.25])
    assert probabilities([-3.0]) == [1.0]


def test_intervals_are_over_groups() -> None:
    """The same lines in fewer groups, which are correct or incorrect together, are less certain."""

    def lines(size: int) -> list[LogLine]:
        return [
            (of(0.75, 0.25) if i % 40 < 30 else of(0.25, 0.75)).model_copy(
                update={"sample_id": str(i), "pair": f"{i % 40} {i // 40 // size}"}
            )
            for i in range(160)
        ]

    def widths(size: int) -> tuple[float, float]:
        result = found(*lines(size))
        (one,) = (each for each in result.bins if each.n)
        assert (one.n, one.accuracy, one.confidence) == (160, 0.75, pytest.approx(0.75))
        assert one.ci_low is not None
        assert one.ci_high is not None
        assert result.gap_low is not None
        assert result.gap_high is not None
        assert one.ci_low < 0.75 < one.ci_high
        assert result.gap_low < 0 < result.gap_high
        return one.ci_high - one.ci_low, result.gap_high - result.gap_low

    single, grouped = widths(1), widths(4)
    # Groups of 4 that agree: intervals twice as wide, 2 * 1.96 sqrt(0.75 * 0.25 / 40) = 0.27
    assert single == pytest.approx((0.134, 0.134), abs=0.02)
    assert grouped == pytest.approx((0.268, 0.268), abs=0.04)
    assert found(*lines(4), seed=3) == found(*lines(4), seed=3)


def test_intervals_do_not_vanish_if_all_lines_agree() -> None:
    lines = [of(0.95, 0.05, sample_id=str(i)) for i in range(6)]
    result = found(*lines)
    # Wilson's lower bound for 6 of 6, as in the results
    assert (result.bins[9].ci_low, result.bins[9].ci_high) == pytest.approx((0.60967, 1), abs=1e-5)
    assert result.gap == pytest.approx(-0.05)
    assert (result.gap_low, result.gap_high) == pytest.approx((-0.44033, 0.34033), abs=1e-5)
    one = found(lines[0])
    assert (one.gap_low, one.bins[9].ci_low) == (None, None)


# --- any scores -----------------------------------------------------------------------------------

# Eighths, so that a shift is exact: a rounding could move a line over the edge of a bin.
sums = st.integers(-80_000, 0).map(lambda eighths: eighths / 8) | st.integers(-40, 0).map(
    lambda eighths: eighths / 8
)
answers = st.integers(1, 5).flatmap(
    lambda n: st.tuples(st.lists(sums, min_size=n, max_size=n), st.integers(0, n - 1))
)


@settings(max_examples=200, deadline=None)
@given(st.lists(answers, min_size=1, max_size=12), st.integers(-8000, 8000), st.randoms())
def test_properties_for_any_scores(
    asked: list[tuple[list[float], int]], shift: int, random: Any
) -> None:
    lines = [line(each, target, sample_id=str(i)) for i, (each, target) in enumerate(asked)]
    result = calibration(lines)
    if result is None:
        assert all(each["prediction"] is None for each in lines)
        return
    assert 0 <= result.ece <= 1
    assert 0 <= result.brier <= 2
    assert abs(result.gap) <= result.ece + 1e-12  # the gap cannot exceed the sum over bins
    assert sum(each.n for each in result.bins) == result.n
    assert result.n + result.n_left_out == len(lines)
    for each in result.bins:
        if each.confidence is not None:
            assert each.low - 1e-12 <= each.confidence <= each.high + 1e-12

    moved = []
    for (scores, target), old in zip(asked, lines, strict=True):
        order = random.sample(range(len(scores)), len(scores))
        new = [scores[i] + shift / 8 for i in order]
        moved.append(line(new, order.index(target), sample_id=old["sample_id"]))
    random.shuffle(moved)
    assert _numbers(calibration(moved)) == _numbers(result)


def _numbers(result: Calibration | None) -> Any:
    """All values except the bootstrap intervals."""
    assert result is not None
    kept = {key: value for key, value in asdict(result).items() if not key.startswith("gap_")}
    kept["bins"] = [(each.n, each.confidence, each.accuracy) for each in result.bins]
    return kept
