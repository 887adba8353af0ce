"""A small task as YAML text, and functions that load it."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from PIL import Image

from vlm_harness.errors import InputError
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.task import Task, load_task
from vlm_harness.types import Sample

BASE = """\
task: t
version: 1
dataset: {reader: jsonl, path: rows.jsonl}
sample:
  id: "{{ name }}"
  options: [left, right]
  target: "{{ side }}"
protocols: {generate: {}}
"""
ROWS = [{"name": f"s{n}", "side": n % 2, "key": n // 2} for n in range(6)]


def png(colour: tuple[int, int, int] = (9, 8, 7)) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (3, 2), colour).save(stream, "PNG")
    return stream.getvalue()


def write_rows(root: Path, rows: Sequence[Any] = ROWS) -> None:
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make(root: Path, text: str = BASE, **options: Any) -> Task:
    spec = spec_check.parse(specs.TaskSpec, yamlfile.loads(text, Path("t.yaml")))
    return load_task(spec, Registry([root / "specs"]), root, **options)


def refusal(root: Path, text: str = BASE, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        make(root, text, **options)
    return str(caught.value)


def change(*pairs: tuple[str, str]) -> str:
    text = BASE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def dataset(section: str, sample: str = "") -> str:
    """``BASE`` with a different dataset section."""
    text = change(("dataset: {reader: jsonl, path: rows.jsonl}", f"dataset: {section}"))
    return text.replace('  target: "{{ side }}"', sample) if sample else text


def sample_list(keys: Sequence[int | None], n_options: int = 3) -> list[Sample]:
    return [
        Sample(
            f"id{i}", (), tuple("abcdefgh"[:n_options]), 0, 0, pair=None if k is None else f"g{k}"
        )
        for i, k in enumerate(keys)
    ]


KEYS = st.lists(st.none() | st.integers(0, 6), min_size=1, max_size=20)
