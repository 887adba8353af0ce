"""Options, captions and ids that are missing in a row are errors, in every reader."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.tasks import BASE, change, dataset, make, refusal, write_rows

COLUMNS = ("A", "B", "C", "D")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def task(options: str, section: str = "{reader: jsonl, path: rows.jsonl}", more: str = "") -> str:
    return dataset(section).replace("[left, right]", options) + more


def row(**values: object) -> dict[str, object]:
    return {"name": "a", "side": 0, "A": "left", "B": "right", "C": "above", "D": "below", **values}


WAYS = {
    "a list of columns": '"{{ [A, B, C, D] }}"',
    "one template each": '["{{ A }}", "{{ B }}", "{{ C }}", "{{ D }}"]',
    "with labels": '["(a) {{ A }}", "(b) {{ B }}", "(c) {{ C }}", "(d) {{ D }}"]',
    "with filters": '["{{ A | trim }}", "{{ B | trim }}", "{{ C | trim }}", "{{ D | trim }}"]',
    "joined": '["{{ A ~ \'.\' }}", "{{ B ~ \'.\' }}", "{{ C }}", "it is {{ D }}"]',
    "by name": "\"{{ [row['A'], row['B'], row['D']] }}\"",
    "through a field": '"{{ all }}"',
    "from an object": '"{{ {1: A, 2: B, 3: D}.values() | list }}"',
}
FIELDS = 'fields: {one: "{{ D }}", all: ["{{ A }}", "{{ one }}"]}\n'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("missing", [None, float("nan"), "", "  "])
def test_missing_options(tmp_path: Path, way: str, missing: object) -> None:
    write_rows(tmp_path, [row(), row(name="b", D=missing)])
    message = refusal(tmp_path, task(WAYS[way], more=FIELDS))
    assert "t.yaml:6: sample.options, row 1 of rows.jsonl: item " in message
    kind = "empty" if isinstance(missing, str) else "null" if missing is None else "NaN"
    assert f"is {kind} (column 'D')" in message
    assert "select | list" in message


@pytest.mark.parametrize("way", ["one template each", "with labels"])
@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_missing_captions(tmp_path: Path, way: str, missing: object) -> None:
    write_rows(tmp_path, [row(D=missing)])
    captions = f"[a, b, c, d]\n  captions: {WAYS[way]}"
    message = refusal(tmp_path, task(captions))
    assert "t.yaml:7: sample.captions, row 0 of rows.jsonl: item 4 of 4 is " in message
    assert "(column 'D')" in message


@pytest.mark.parametrize("missing", ["null", '""', "[]"])
def test_missing_lists(tmp_path: Path, missing: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"name": "a", "side": 0, "choices": {missing}}}')
    for name in ("options", "captions"):
        text = task('"{{ choices }}"' if name == "options" else "[a, b]")
        text = text.replace("[a, b]", '[a, b]\n  captions: "{{ choices }}"')
        assert f"{name} must be a list with at least one item" in refusal(tmp_path, text)


@pytest.mark.parametrize("reader", ["csv", "json", "parquet"])
def test_missing_options_in_other_readers(tmp_path: Path, reader: str) -> None:
    section = f"{{reader: {reader}, path: x}}"
    if reader == "csv":
        (tmp_path / "x").write_text("name,side,A,B,D\na,0,left,right,\n")
    elif reader == "json":
        (tmp_path / "x").write_text(json.dumps([row(D=None)]))
    else:
        pq.write_table(pa.table({k: [v] for k, v in row(D=None).items()}), tmp_path / "x")
    message = refusal(tmp_path, task('["{{ A }}", "{{ B }}", "{{ D }}"]', section))
    assert "row 0 of x: item 3 of 3 is" in message
    assert "(column 'D')" in message


def test_a_parquet_list_with_null_and_a_column_of_nan(tmp_path: Path) -> None:
    columns = {"name": ["a"], "side": [0], "list": [["left", None]], "number": [float("nan")]}
    pq.write_table(pa.table(columns), tmp_path / "x")
    section = "{reader: parquet, path: x}"
    assert "item 2 of 2 is null" in refusal(tmp_path, task('"{{ list }}"', section))
    message = refusal(tmp_path, task('[left, "{{ number }}"]', section))
    assert "item 2 of 2 is NaN (column 'number')" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('"{{ [A, B, C, D] | select | list }}"', ("left", "right", "above")),
        ("\"{{ [A, B, D or 'None of these'] }}\"", ("left", "right", "None of these")),
        ('["{{ A }}", "{{ D | default(\'None\', true) }}"]', ("left", "None")),
        ('"{{ [A, B, E, D] | select | list }}"', ("left", "right", "None")),
        ('["{{ A }}{{ D or \'\' }}", "{{ B }}"]', ("left", "right")),
        ('[left, "{{ side }}"]', ("left", "0")),
    ],
)
def test_options_that_leave_the_missing_out(
    tmp_path: Path, options: str, expected: tuple[str, ...]
) -> None:
    """Also options whose text is "None", which are not null."""
    write_rows(tmp_path, [row(D=None, E="None")])
    (sample,) = make(tmp_path, task(options)).samples
    assert sample.options == expected


def test_rows_that_are_skipped_may_miss_options(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(D=None), row(name="b")])
    text = task('"{{ [A, D] }}"', more='where: "{{ D is not none }}"\n')
    assert [sample.id for sample in make(tmp_path, text).samples] == ["b"]


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_missing_ids(tmp_path: Path, missing: object) -> None:
    write_rows(tmp_path, [row(name=missing)])
    message = refusal(tmp_path)
    assert "sample.id, row 0 of rows.jsonl: the id must not be null, NaN or empty" in message


def test_missing_groups_are_no_groups(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(key=value, name=str(value)) for value in (None, float("nan"), "")])
    text = change(('"{{ side }}"', '"{{ side }}"\n  pair: "{{ key }}"\n  category: "{{ key }}"'))
    text = text.replace('"{{ name }}"', '"{{ row_index }}"')
    assert {(s.pair, s.category) for s in make(tmp_path, text).samples} == {(None, None)}


@pytest.mark.parametrize("ids", [[1, "1", 2], ["1", 1.0, "1"], ["a", "b", "a"]])
def test_several_samples_of_one_id(tmp_path: Path, ids: list[object]) -> None:
    write_rows(tmp_path, [row(name=each) for each in ids])
    message = refusal(tmp_path, BASE)
    assert message.startswith("t.yaml:5: sample.id: duplicate ids (1): ")
    assert "several samples have the id" in message
    assert "(rows 0, " in message
    assert "{{ row_index }}" in message
