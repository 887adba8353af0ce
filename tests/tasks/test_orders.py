"""Option orders: permutations that depend only on the group and the seed."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helpers.tasks import KEYS, sample_list
from vlm_harness.tasks.orders import orders


@given(st.integers(1, 6), st.integers(), st.sampled_from(["fixed", "both", "cyclic", "random"]))
def test_orders_are_permutations(n: int, seed: int, mode: Any) -> None:
    (sample,) = sample_list([None], n)
    found = orders(mode, sample, seed)
    assert len(set(found)) == len(found)
    assert all(sorted(order) == list(range(n)) for order in found)
    expected = {"fixed": 1, "both": min(n, 2), "cyclic": n, "random": 1}
    assert len(found) == expected[mode]


@given(KEYS, st.integers(0, 99), st.randoms(use_true_random=False))
def test_random_orders_depend_on_the_group(
    keys: list[int | None], seed: int, shuffler: Any
) -> None:
    samples = sample_list(keys)
    drawn = {sample.id: orders("random", sample, seed) for sample in samples}
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    assert {sample.id: orders("random", sample, seed) for sample in shuffled} == drawn
    by_group: dict[str, Any] = {}
    for sample in samples:
        assert by_group.setdefault(sample.group, drawn[sample.id]) == drawn[sample.id]


def test_random_orders_cover_all_permutations_and_depend_on_the_seed() -> None:
    samples = sample_list([None] * 300)
    drawn = [orders("random", sample, 0)[0] for sample in samples]
    counts = {order: drawn.count(order) for order in permutations(range(3))}
    assert min(counts.values()) > 25  # expected: 50 each
    assert drawn != [orders("random", sample, 1)[0] for sample in samples]


def test_order_modes() -> None:
    (sample,) = sample_list([None])
    asked: Callable[[Any], Any] = lambda mode: orders(mode, sample, 0)  # noqa: E731
    assert asked("fixed") == [(0, 1, 2)]
    assert asked("both") == [(0, 1, 2), (2, 1, 0)]
    assert asked("cyclic") == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
