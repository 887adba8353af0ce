"""Patterns give the results of ``re``, in bounded time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_harness.errors import InputError
from vlm_harness.specs import patterns
from vlm_harness.specs.patterns import compile_pattern
from vlm_harness.specs.templates import TemplateError, render_tree

PATTERNS = [
    r"\w+", r"(\d+)-(\w)", r"^a|b$", r"(?P<x>[a-c]+)?\b", r"(?i)É", r"a(?=b)", r"(a)\1", r"\s*$",
    "",
]  # fmt: skip


@given(st.sampled_from(PATTERNS), st.text("abc1- É\nß_", max_size=30), st.booleans())
def test_matches_are_those_of_re(pattern: str, text: str, ignore_case: bool) -> None:
    expected = re.finditer(pattern, text, re.IGNORECASE if ignore_case else 0)
    found = compile_pattern(pattern, ignore_case).finditer(text)
    assert [(m.start(), m.end(), m.groups("")) for m in found] == [
        (m.start(), m.end(), m.groups("")) for m in expected
    ]


def test_groups_by_number_and_name() -> None:
    pattern = compile_pattern(r"(?P<x>\w+)=(\d)")
    assert (pattern.groups, pattern.groupindex) == (2, {"x": 1})
    match = pattern.search("a=1")
    assert match is not None
    assert (match["x"], match[2], match.expand(r"\2\g<x>")) == ("a", "1", "1a")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+$b", "(.*)*x"])
def test_patterns_that_backtrack_in_re_are_linear(pattern: str) -> None:
    assert compile_pattern(pattern).linear
    start = time.perf_counter()
    assert compile_pattern(pattern).search("a" * 5000) is None
    assert time.perf_counter() - start < 5  # `re` takes longer than the age of the universe


def test_look_around_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    slow = compile_pattern("(?!b)(a|aa)+c")
    assert not slow.linear
    with pytest.raises(InputError, match=r"takes longer than 0\.1 s on a text of 40 characters"):
        slow.search("a" * 40)
    with pytest.raises(TemplateError, match="takes longer than"):
        render_tree("{{ ('a' * 40) | regex_findall('(?!b)(a|aa)+c') }}", {})


def test_invalid_patterns() -> None:
    with pytest.raises(ValueError, match=r"invalid pattern '\(': "):
        compile_pattern("(")
