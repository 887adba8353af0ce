"""Log lines, results and manifests as types, and their import cost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from helpers.bench import python
from helpers.runs import log_line
from vlm_harness import types
from vlm_harness.types import GRID, SETTINGS, Cell, LogLine

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.from_regex(r"x_[a-z]{1,8}", fullmatch=True), JSON, max_size=4))
def test_unknown_fields_are_kept(extra: dict[str, Any]) -> None:
    line = {**log_line().to_dict(), **extra}
    assert LogLine.model_validate(line).to_dict() == line
    for name, value in extra.items():
        assert LogLine.model_validate(line)[name] == value


def test_fields_keep_the_order_of_the_type() -> None:
    line = log_line()
    assert list(LogLine.model_validate_json(json.dumps(line.to_dict())).to_dict()) == list(
        line.to_dict()
    )


def test_a_grid_field_at_its_default_is_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Repeated(LogLine):
        repeat: int = Field(0)

    line = log_line().to_dict()
    monkeypatch.setattr(types, "DEFAULTS", {"repeat": 0})
    assert Repeated.model_validate(line).to_dict() == line
    assert Repeated.model_validate({**line, "repeat": 2}).to_dict() == {**line, "repeat": 2}


def test_every_grid_field_distinguishes_cells() -> None:
    values = dict.fromkeys(GRID, "a")
    cell = Cell.model_validate(values)
    for name, attribute in GRID.items():
        assert Cell.model_validate({**values, name: "b"}) != cell
        assert getattr(cell, attribute) == "a"
    assert set(SETTINGS) == set(GRID) - {"model", "task", "protocol"}


def test_reading_a_line_imports_nothing_heavy() -> None:
    heavy = ("numpy", "jinja2", "yaml", "torch", "transformers", "click")
    code = (
        "import sys; from vlm_harness import LogLine; from vlm_harness.logs import read_lines\n"
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    assert python("-c", code).out.strip() == "[]"
