"""Equality with the official scorers of What'sUp, MMVP-VLM and Winoground on random scores."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from helpers import official_scores as official
from vlm_harness.metrics import METRICS, Record
from vlm_harness.protocols.protocol import highest
from vlm_harness.specs.schemas import GroupRules
from vlm_harness.types import OptionScore

EXPECTED = json.loads(official.FILE.read_text())


def scored(sample: str, pair: str, scores: Sequence[float], target: int, **groups: str) -> Record:
    """A log line with these scores, as judged by the protocol ``similarity``."""
    outcome = highest([OptionScore(float(score)) for score in scores])
    return Record(
        sample_id=sample,
        order_index=0,
        n_options=len(scores),
        correct=outcome.prediction == target,
        pair=pair,
        scores=tuple(map(float, scores)),
        target=target,
        **groups,  # type: ignore[arg-type]
    )


def count(metric: str, records: Sequence[Record]) -> int:
    units = METRICS.get(metric)(records, GroupRules())
    return round(units.numerators.sum())


def pairs(scores: np.ndarray) -> list[Record]:
    """Records from scores of shape (pair, image, caption)."""
    return [
        scored(f"{number}.{image}", str(number), pair[image], image)
        for number, pair in enumerate(scores)
        for image in range(2)
    ]


@pytest.mark.parametrize("subset", ["A", "B"])
def test_whatsup(subset: str) -> None:
    """``Controlled_Images.evaluate_scores``: 5,000 random draws for each subset."""
    names = (
        "individual_accuracy",
        "whatsup_official_pair_accuracy",
        "whatsup_official_set_accuracy",
    )
    expected = EXPECTED[f"whatsup_{subset.lower()}"]
    for scores, counts in zip(official.whatsup(subset), expected, strict=True):
        records = [
            scored(f"{each}.{image}", f"{each}.{image // 2}", row[image], image, set=str(each))
            for each, row in enumerate(scores)
            for image in range(4)
        ]
        assert [count(name, records) for name in names] == counts
        # All groups are complete, so the formulas agree.
        assert [count("pair_accuracy", records), count("set_accuracy", records)] == counts[1:]


def test_mmvp_vlm() -> None:
    """``benchmark_model``: 10,125 pairs, each pattern separately."""
    size = official.PAIRS // official.CATEGORIES
    for scores, counts in zip(official.mmvp_vlm(), EXPECTED["mmvp_vlm"], strict=True):
        parts = np.split(scores, range(size, len(scores), size))
        assert [count("text_to_image_pair_accuracy", pairs(part)) for part in parts] == counts


def test_winoground() -> None:
    """``text_correct``, ``image_correct``, ``group_correct``: 10,000 pairs."""
    names = ("pair_accuracy", "text_to_image_pair_accuracy", "group_accuracy")
    for scores, counts in zip(official.winoground(), EXPECTED["winoground"], strict=True):
        records = pairs(scores)
        assert [count(name, records) for name in names] == counts


# The share of yes is undefined if all samples are tied.
SCORES = sorted({*METRICS.names()} - {"mean_pair_cosine", "yes_ratio"})


@pytest.mark.parametrize("name", SCORES)
def test_a_constant_model_scores_zero(name: str) -> None:
    """The official code chooses the first option, which is the correct one in What'sUp."""
    records = [
        replace(
            scored(f"{n}.{image}", f"{n}.{image // 2}", [0.5] * 4, image, set=str(n)), positive=0
        )
        for n in range(3)
        for image in range(4)
    ]
    assert METRICS.get(name)(records, GroupRules()).value == 0
