"""Metrics on tables of cases with hand-computed values."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.records import RULES, records
from vlm_harness import metrics
from vlm_harness.metrics import METRICS, Record
from vlm_harness.metrics.stats import Units, estimate, interval
from vlm_harness.protocols.protocol import highest
from vlm_harness.specs.schemas import GroupRule, GroupRules
from vlm_harness.types import OptionScore

FOUR = "Aa1+ Aa2+ Ab1+ Ab2+"
CASES = [
    # metric, samples, value, n
    ("individual_accuracy", "a1+ a2- b1+ b2+", 3 / 4, 4),
    ("individual_accuracy", "a1-", 0.0, 1),
    ("pair_accuracy", "a1+ a2- b1+ b2+", 1 / 2, 2),
    ("pair_accuracy", "a1- a2- b1- b2-", 0.0, 2),
    ("pair_accuracy", "a1+ a2+ b1+ b2+ c1+ c2-", 2 / 3, 3),
    ("pair_accuracy", "a1+ a2+ b1+", 1.0, 1),  # b is incomplete: not in pair metrics
    ("pair_accuracy", "a1+ b1+", None, 0),
    ("set_accuracy", FOUR, 1.0, 1),
    ("set_accuracy", FOUR + " Ba1+ Ba2+ Bb1+ Bb2-", 1 / 2, 2),
    ("set_accuracy", FOUR + " Ba1+ Ba2+ Bb1+", 1.0, 1),
    ("pair_accuracy", FOUR + " Ba1+ Ba2+ Bb1+ Bb2-", 3 / 4, 4),
    # formula of What'sUp: correct pairs over n/2, correct sets over n/4
    ("whatsup_official_pair_accuracy", FOUR + " Ba1+ Ba2+ Bb1+ Bb2-", 3 / 4, 8),
    ("whatsup_official_pair_accuracy", FOUR + " Ba1+ Bb1+", 2 / 3, 6),
    ("whatsup_official_set_accuracy", FOUR + " Ba1+ Bb1+", 1 / 1.5, 6),
    ("whatsup_official_set_accuracy", "Aa1+ Aa2+ Ab1+ Ab2-", 0.0, 4),
    # yes is the positive option: TP 3, FN 1, FP 1, TN 3
    ("f1", "yy yy yy yn ny nn nn nn", 6 / 8, 8),
    ("precision", "yy yy yy yn ny nn nn nn", 3 / 4, 4),
    ("recall", "yy yy yy yn ny nn nn nn", 3 / 4, 4),
    ("yes_ratio", "yy yy yy yn ny nn nn nn", 4 / 8, 8),
    # precision 2/2, recall 2/3: 2 * 1 * (2/3) / (1 + 2/3)
    ("f1", "yy yy yn nn", 4 / 5, 4),
    ("precision", "yy yy yn nn", 1.0, 2),
    ("recall", "yy yy yn nn", 2 / 3, 3),
    # always yes, always no, all correct
    ("f1", "yy ny", 2 / 3, 2),
    ("f1", "yn nn", 0.0, 2),
    ("precision", "yn nn", None, 0),
    ("recall", "yn nn", 0.0, 1),
    ("yes_ratio", "yn nn", 0.0, 2),
    ("f1", "yy nn", 1.0, 2),
    # no answer: a false negative if yes is correct, a false positive if no is
    ("f1", "yy y- nn", 2 / 3, 3),
    ("f1", "yy n- nn", 2 / 3, 3),
    ("f1", "y- n-", 0.0, 2),
    ("precision", "yy y- nn", 1.0, 1),
    ("precision", "yy n- nn", 1 / 2, 2),
    ("recall", "yy y- n-", 1 / 2, 2),
    ("yes_ratio", "yy y- n- nn", 1 / 2, 2),
    ("yes_ratio", "y- n-", None, 0),
    # a third option: a false negative if yes is correct, otherwise not counted
    ("f1", "yy no on yo", 2 / 3, 4),
    ("f1", "nn nn", None, 2),  # yes is never correct and never answered
    ("recall", "nn ny", None, 0),
    ("f1", "a1+ a2-", None, 0),  # samples without the positive option
    ("yes_ratio", "yy a1+ a2-", 1.0, 1),
]


@pytest.mark.parametrize(("name", "samples", "value", "n"), CASES)
def test_metric(name: str, samples: str, value: float | None, n: int) -> None:
    units = METRICS.get(name)(records(samples), RULES)
    assert units.n == n
    assert units.value == pytest.approx(value) if value is not None else units.value is None


def test_mean_pair_cosine_counts_a_pair_once() -> None:
    made = [*records("a1+ a2+", pair_cosine=0.9), *records("b1+ b2+", pair_cosine=0.7)]
    made += records("c1+", pair_cosine=0.1)  # incomplete
    units = METRICS.get("mean_pair_cosine")(made, RULES)
    assert (units.value, units.n) == (pytest.approx(0.8), 2)


def test_groups_of_three() -> None:
    rules = GroupRules(pair=GroupRule(size=3))
    made = records("a1+ a2+ a3+ b1+ b2+ b3- c1+ c2+")
    units = METRICS.get("pair_accuracy")(made, rules)
    assert (units.value, units.n) == (0.5, 2)


def test_orders_are_scored_separately() -> None:
    """A pair evaluated in two orders counts as two pairs, one per order."""
    first = Record("1", 0, 2, True, pair="p")
    swapped = Record("1", 1, 2, False, pair="p")
    other = [Record("2", order, 2, True, pair="p") for order in (0, 1)]
    units = METRICS.get("pair_accuracy")([first, swapped, *other], RULES)
    assert (units.value, units.n) == (0.5, 2)
    assert len(units.numerators) == 1  # but one cluster, because the images are the same


@pytest.mark.parametrize(
    ("name", "samples", "value"),
    [
        ("individual_accuracy", "a1+ a2-", 0.5),
        ("pair_accuracy", "a1+ a2-", 0.25),
        ("individual_accuracy", FOUR, 0.25),
        ("pair_accuracy", FOUR, 1 / 16),
        ("set_accuracy", FOUR, 1 / 256),
        ("pair_accuracy", "a1+", None),
        ("mean_pair_cosine", "a1+ a2+", None),
        ("whatsup_official_pair_accuracy", FOUR + " Ba1+ Bb1+", 2 * (1 / 16) / 3),
        # a coin on one positive and three negatives: TP 1/2, FN 1/2, FP 3/2
        ("f1", "yy nn nn nn", 1 / 3),
        ("precision", "yy nn nn nn", 1 / 4),
        ("recall", "yy nn nn nn", 1 / 2),
        ("yes_ratio", "yy nn nn nn", 1 / 2),
        ("f1", "yn nn", 1 / 2),
        ("recall", "nn", None),
    ],
)
def test_chance(name: str, samples: str, value: float | None) -> None:
    assert METRICS.get(name)(records(samples), RULES).chance == pytest.approx(value)


@pytest.mark.parametrize(
    ("scores", "prediction", "tied", "status"),
    [
        ([0.1, 0.2], 1, False, "ok"),
        ([0.2, 0.1, 0.0], 0, False, "ok"),
        ([-3.0, -1.0, -2.0], 1, False, "ok"),
        ([0.5, 0.5], None, True, "ok"),
        ([0.5, 0.1, 0.5], None, True, "ok"),
        ([0.5, 0.5, 0.6], 2, False, "ok"),  # a tie below the highest score has no effect
        ([0.1, math.nan], None, False, "error"),
        ([-math.inf, 0.0], None, False, "error"),
        ([], None, False, "error"),
    ],
)
def test_highest(scores: list[float], prediction: int | None, tied: bool, status: str) -> None:
    outcome = highest([OptionScore(score) for score in scores])
    assert (outcome.prediction, outcome.tied, outcome.status) == (prediction, tied, status)


def test_interval_of_independent_samples_is_binomial() -> None:
    """600 of 1,000: the normal approximation gives 0.6 +- 1.96 * 0.01549."""
    units = Units.of([1.0] * 600 + [0.0] * 400, [str(i) for i in range(1000)])
    low, high = interval(units)
    assert low == pytest.approx(0.6 - 1.96 * 0.01549, abs=0.004)
    assert high == pytest.approx(0.6 + 1.96 * 0.01549, abs=0.004)


def test_interval_is_wider_for_clustered_samples() -> None:
    values = [1.0] * 100 + [0.0] * 100
    independent = interval(Units.of(values, [str(i) for i in range(200)]))
    clustered = interval(Units.of(values, [str(i // 4) for i in range(200)]))
    width = [high - low for low, high in (independent, clustered)]  # type: ignore[operator]
    assert width[1] == pytest.approx(2 * width[0], rel=0.15)  # sqrt(4) times as wide


def test_interval_is_reproducible_and_depends_on_the_seed() -> None:
    rng = np.random.default_rng(0)
    units = Units.of(rng.random(50), [str(i) for i in range(50)])
    assert interval(units, seed=1) == interval(units, seed=1)
    assert interval(units, seed=1) != interval(units, seed=2)


@pytest.mark.parametrize(("samples", "expected"), [("a1+", (None, None)), ("", (None, None))])
def test_undefined_intervals(samples: str, expected: tuple[float | None, float | None]) -> None:
    units = METRICS.get("individual_accuracy")(records(samples), RULES)
    assert interval(units) == expected


def test_interval_without_variation_is_the_wilson_interval() -> None:
    """3 of 3 is not certain. Wilson: centre (1 + z2/2n) / (1 + z2/n), z = 1.95996, n = 3."""
    low, high = interval(METRICS.get("individual_accuracy")(records("a1+ b1+ c1+"), RULES))
    assert (low, high) == (pytest.approx(0.43850, abs=1e-5), pytest.approx(1.0))
    biased = interval(METRICS.get("individual_accuracy")(records("a1+ a2- b1+ b2-"), RULES))
    assert biased == (pytest.approx(0.09453, abs=1e-5), pytest.approx(0.90547, abs=1e-5))
    none = interval(
        METRICS.get("whatsup_official_set_accuracy")(records(FOUR[:-1] + "- Ba1+"), RULES)
    )
    assert none[0] == 0.0
    assert none[1] > 0.5  # type: ignore[operator]  # two clusters carry little information
    same = METRICS.get("mean_pair_cosine")(records("a1+ a2+ b1+ b2+", pair_cosine=0.9), RULES)
    assert interval(same) == (pytest.approx(0.9), pytest.approx(0.9))


def test_true_negatives_do_not_narrow_the_interval_of_f1() -> None:
    few = interval(METRICS.get("f1")(records("yy yy yy"), RULES))
    assert few == (pytest.approx(0.43850, abs=1e-5), pytest.approx(1.0))
    assert interval(METRICS.get("f1")(records("yy yy yy" + 97 * " nn"), RULES)) == few


def test_undefined_resamples_are_excluded() -> None:
    """2 of 12 samples are answered yes: about one resample in nine has neither."""
    low, high = interval(METRICS.get("precision")(records("yy ny" + 10 * " nn"), RULES))
    assert (low, high) == (0.0, 1.0)


@given(st.lists(st.sampled_from(["yy", "yn", "y-", "ny", "nn", "n-"]), min_size=1, max_size=8))
def test_f1_is_the_lowest_over_all_readings_of_missing_answers(samples: list[str]) -> None:
    def reading(answers: tuple[str, ...]) -> float | None:
        pairs = list(zip((word[0] for word in samples), answers, strict=True))
        tp, wrong = pairs.count(("y", "y")), pairs.count(("y", "n")) + pairs.count(("n", "y"))
        return 2 * tp / (2 * tp + wrong) if tp + wrong else None

    readings = [
        reading(answers)
        for answers in product(*("yn" if word[1] == "-" else word[1] for word in samples))
    ]
    lowest = min((value for value in readings if value is not None), default=None)
    assert METRICS.get("f1")(records(" ".join(samples)), RULES).value == pytest.approx(lowest)


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    made = records("yy yy yn y- ny ny n- nn")
    p, r = (METRICS.get(name)(made, RULES).value for name in ("precision", "recall"))
    assert (p, r) == (2 / 5, 2 / 4)
    assert METRICS.get("f1")(made, RULES).value == pytest.approx(2 * p * r / (p + r))


def test_the_samples_of_a_pair_can_have_different_numbers_of_options() -> None:
    made = [Record("1", 0, 2, True, pair="p"), Record("2", 0, 3, True, pair="p")]
    units = METRICS.get("pair_accuracy")(made, RULES)
    assert (units.value, units.n, units.chance) == (1.0, 1, pytest.approx(1 / 6))


def test_sets_pairs_and_samples_with_the_same_name_are_distinct() -> None:
    made = [Record("1", 0, 2, True), Record("2", 0, 2, True, pair="1")]
    made.append(Record("3", 0, 2, True, set="1"))
    assert len({record.cluster for record in made}) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_properties(samples: list[tuple[int, bool]]) -> None:
    """Pairs cannot beat individuals on complete pairs, and an interval contains its value."""
    counts: dict[int, int] = {}
    made = []
    for key, correct in samples:
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= 2:
            made.append(Record(f"{key}-{counts[key]}", 0, 2, correct, pair=str(key)))
    complete, incomplete = metrics.groups(made, "pair", 2)
    assert sum(map(len, complete)) + sum(map(len, incomplete)) == len(made)
    pairs = METRICS.get("pair_accuracy")(made, RULES)
    singles = METRICS.get("individual_accuracy")([r for g in complete for r in g], RULES)
    if pairs.value is not None:
        assert singles.value is not None
        assert pairs.value <= singles.value
    result = estimate(METRICS.get("individual_accuracy")(made, RULES))
    if result.ci_low is not None:
        assert result.value is not None
        assert result.ci_high is not None
        assert result.ci_low <= result.value <= result.ci_high


# --- four scores of a pair ------------------------------------------------------------------------

# (s11, s12, s21, s22): score of image i with the correct option of image j.
#   plain: s11 > s12 and s22 > s21. In the cases, both images, one image or no image is correct.
BOTH = (0.30, 0.20, 0.10, 0.25)
FIRST_CAPTION_ALWAYS = (0.30, 0.20, 0.28, 0.25)  # both images prefer option 1
CROSSED = (0.20, 0.30, 0.25, 0.10)
CONSTANT = (0.2, 0.2, 0.2, 0.2)
TEXT_ONLY = (
    0.30,
    0.40,
    0.10,
    0.50,
)  # both options choose correctly (0.50 > 0.40 for 2); image 1 does not
NEGATIVE = (-0.1, -0.2, -0.3, -0.1)
MATCHES = [
    # scores, metric, value, n
    (BOTH, "relaxed_pair_accuracy", 1.0, 1),  # 0.6 > 0.286
    (BOTH, "relaxed_pair_accuracy_sum", 1.0, 1),  # 0.55 > 0.30
    (BOTH, "text_to_image_accuracy", 1.0, 2),
    (BOTH, "text_to_image_pair_accuracy", 1.0, 1),
    (BOTH, "group_accuracy", 1.0, 1),
    (BOTH, "two_way_accuracy", 1.0, 2),
    (BOTH, "two_way_pair_accuracy", 1.0, 1),
    (FIRST_CAPTION_ALWAYS, "relaxed_pair_accuracy", 1.0, 1),  # 0.6 > 0.528: Table 7's effect
    (FIRST_CAPTION_ALWAYS, "relaxed_pair_accuracy_sum", 1.0, 1),  # 0.55 > 0.48
    (FIRST_CAPTION_ALWAYS, "two_way_accuracy", 0.5, 2),
    (FIRST_CAPTION_ALWAYS, "two_way_pair_accuracy", 0.0, 1),
    (FIRST_CAPTION_ALWAYS, "text_to_image_pair_accuracy", 1.0, 1),  # 0.30 > 0.28, 0.25 > 0.20
    (FIRST_CAPTION_ALWAYS, "group_accuracy", 0.0, 1),
    (CROSSED, "relaxed_pair_accuracy", 0.0, 1),
    (CROSSED, "relaxed_pair_accuracy_sum", 0.0, 1),
    (CROSSED, "text_to_image_accuracy", 0.0, 2),
    (CROSSED, "group_accuracy", 0.0, 1),
    (TEXT_ONLY, "text_to_image_pair_accuracy", 1.0, 1),
    (TEXT_ONLY, "two_way_accuracy", 0.5, 2),
    (TEXT_ONLY, "group_accuracy", 0.0, 1),
    (TEXT_ONLY, "relaxed_pair_accuracy", 1.0, 1),  # 0.4286 > 0.1667
    (NEGATIVE, "relaxed_pair_accuracy", None, 0),  # the ratio is meaningless
    (NEGATIVE, "relaxed_pair_accuracy_sum", 1.0, 1),  # -0.2 > -0.5
    (NEGATIVE, "text_to_image_accuracy", 1.0, 2),
    *[
        (CONSTANT, name, 0.0, n)
        for name, n in [
            ("relaxed_pair_accuracy", 1), ("relaxed_pair_accuracy_sum", 1),
            ("text_to_image_accuracy", 2), ("text_to_image_pair_accuracy", 1),
            ("group_accuracy", 1), ("two_way_accuracy", 2), ("two_way_pair_accuracy", 1),
        ]
    ],
]  # fmt: skip


def scored(
    scores: tuple[float, float, float, float], key: str = "p", logprobs: bool = False
) -> list[Record]:
    """A pair whose samples have the targets 0 and 1."""
    common = {"order_index": 0, "n_options": 2, "correct": False, "pair": key, "logprobs": logprobs}
    return [
        Record(sample_id=f"{key}1", scores=scores[:2], target=0, **common),  # type: ignore[arg-type]
        Record(sample_id=f"{key}2", scores=scores[2:], target=1, **common),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(("scores", "name", "value", "n"), MATCHES)
def test_matches(
    scores: tuple[float, float, float, float], name: str, value: float | None, n: int
) -> None:
    units = METRICS.get(name)(scored(scores), RULES)
    assert (units.value, units.n) == (value, n)


CHANCES = {
    "relaxed_pair_accuracy": 1 / 2, "relaxed_pair_accuracy_sum": 1 / 2,
    "text_to_image_accuracy": 1 / 2, "text_to_image_pair_accuracy": 1 / 4,
    "group_accuracy": 1 / 6, "two_way_accuracy": 1 / 2, "two_way_pair_accuracy": 1 / 4,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANCES)
def test_chance_of_matches_is_the_value_of_random_scores(name: str) -> None:
    draws = np.random.default_rng(0).random((10_000, 4))
    made = [record for i, s in enumerate(draws) for record in scored(tuple(s), f"p{i}")]
    units = METRICS.get(name)(made, RULES)
    assert units.chance == CHANCES[name]
    assert units.value == pytest.approx(CHANCES[name], abs=0.015)


def test_perplexities_are_compared_as_in_the_paper_with_the_opposite_sign() -> None:
    """p11 / (p11 + p12) < p21 / (p21 + p22): lower is better."""
    rng = np.random.default_rng(1)
    for logs in rng.normal(-3, 2, (300, 4)):
        p11, p12, p21, p22 = np.exp(-logs)
        expected = p11 / (p11 + p12) < p21 / (p21 + p22)
        units = METRICS.get("relaxed_pair_accuracy")(scored(tuple(logs), logprobs=True), RULES)
        assert units.value == float(expected)


def test_matches_of_four_options_use_the_two_correct_ones() -> None:
    common = {"order_index": 0, "n_options": 4, "correct": False, "pair": "p"}
    made = [
        Record(sample_id="a", scores=(0.9, 0.2, 0.8, 0.1), target=1, **common),  # type: ignore[arg-type]
        Record(sample_id="b", scores=(0.9, 0.3, 0.8, 0.4), target=3, **common),  # type: ignore[arg-type]
    ]
    assert METRICS.get("two_way_pair_accuracy")(made, RULES).value == 1  # 0.2 > 0.1, 0.4 > 0.3


def test_a_pair_with_a_failed_sample_is_incorrect_and_generated_text_is_undefined() -> None:
    first, second = scored(BOTH)
    failed = replace(second, scores=None)
    other = scored(BOTH, "q")
    for name in CHANCES:
        units = METRICS.get(name)([first, failed, *other], RULES)
        assert units.value == 0.5
        assert METRICS.get(name)(records("a1+ a2+"), RULES).value is None
        assert METRICS.get(name)([first], RULES).n == 0  # incomplete


def test_a_score_that_is_not_finite_is_incorrect() -> None:
    first, second = scored(BOTH)
    for bad in (None, float("nan")):
        broken = replace(second, scores=(bad, 0.3))  # the log has null for NaN
        for name in CHANCES:
            assert METRICS.get(name)([first, broken], RULES).value == 0
