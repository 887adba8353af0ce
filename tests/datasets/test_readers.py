"""Readers: rows of files and hub data sets, and errors for invalid data."""

import re
from pathlib import Path

import pytest

from helpers.tasks import (
    dataset,
    make,
    png,
    refusal,
)
from vlm_harness.images import load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def test_the_error_for_missing_data_says_how_to_get_them(tmp_path: Path) -> None:
    source = '{hub: own/name, folder: own, urls: ["https://x.org/y"], instructions: "Fetch the z."}'
    message = refusal(tmp_path, dataset(f"{{reader: csv, path: [a.csv, b.csv], source: {source}}}"))
    assert f"data not found: {tmp_path / 'a.csv'} or {tmp_path / 'b.csv'}" in message
    for part in ("data prepare", "own/name", "Fetch the z.", "https://x.org/y", "--data-dir"):
        assert part in message
    assert f"Data directory: {tmp_path} (change it with" in message


@pytest.mark.parametrize("reader", ["json", "jsonl", "csv"])
def test_a_folder_instead_of_a_file(tmp_path: Path, reader: str) -> None:
    message = refusal(tmp_path, dataset(f'{{reader: {reader}, path: "."}}'))
    assert "cannot be read: Is a directory" in message


@pytest.mark.parametrize("reader", ["json", "jsonl", "csv"])
def test_bytes_that_are_not_text(tmp_path: Path, reader: str) -> None:
    (tmp_path / "x").write_bytes(b"a,b\n\x89\xff\x00")
    message = refusal(tmp_path, dataset(f"{{reader: {reader}, path: x}}"))
    assert message.startswith(f"{tmp_path / 'x'}:2: not UTF-8")


def test_unknown_reader_and_missing_path(tmp_path: Path) -> None:
    message = refusal(tmp_path, dataset("{reader: jsnl, path: x}"))
    assert message.startswith("t.yaml:3: unknown reader 'jsnl'; did you mean 'jsonl'?")
    message = refusal(tmp_path, dataset("{reader: json}"))
    assert "the reader 'json' requires dataset.path" in message


def test_a_path_to_data_cannot_leave_the_data_directory(tmp_path: Path) -> None:
    message = refusal(tmp_path, dataset("{reader: json, path: ../x.json}"))
    assert "is outside the data directory" in message


@pytest.mark.parametrize(
    ("content", "extra"),
    [
        ('[{"name": "a", "side": 1}]', ""),
        ('\ufeff[{"name": "a", "side": 1}]', ""),
        ('{"rows": [{"name": "a", "side": 1}]}', ", key: rows"),
        ('{"rows": {"a": {"name": "a", "side": 1}}}', ", key: rows"),
        ('{"a": {"name": "a", "side": 1}}', ""),
        ('[["a", 1]]', ", columns: [name, side]"),
    ],
)
def test_json(tmp_path: Path, content: str, extra: str) -> None:
    (tmp_path / "x.json").write_text(content)
    task = make(tmp_path, dataset(f"{{reader: json, path: x.json{extra}}}"))
    assert [(s.id, s.target) for s in task.samples] == [("a", 1)]


def test_json_keys_are_a_column(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": {"side": 1}, "b": {"side": 0}}')
    text = dataset("{reader: json, path: x.json}").replace("{{ name }}", "{{ key }}")
    assert [s.id for s in make(tmp_path, text).samples] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "extra", "message"),
    [
        ('[\n{"a": 1},\n{"a" 2}]', "", "x.json:3: not valid JSON: Expecting ':' delimiter"),
        ("", "", "x.json:1: not valid JSON"),
        ("[" * 99999, "", "x.json: not valid JSON"),
        ("5", "", "expected a list of rows, found int"),
        ('{"a": 1}', "", "expected a list of rows, found an object"),
        ("[1]", "", "row 0: expected an object, found int"),
        ("[[1]]", "", "row 0 is a list of 1 items; name them in dataset.columns"),
        ("[[1]]", ", columns: [a, b]", "row 0 is a list of 1 items, expected 2"),
        ("[]", ", key: rows", "key 'rows' not found"),
        ("[]", "", "no rows in x.json"),
    ],
)
def test_bad_json(tmp_path: Path, content: str, extra: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert message in refusal(tmp_path, dataset(f"{{reader: json, path: x.json{extra}}}"))


def test_jsonl(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '\ufeff{"name": "a", "side": 0}\n\n{"name": "b", "side": 1}'
    )
    assert [s.id for s in make(tmp_path).samples] == ["a", "b"]
    (tmp_path / "rows.jsonl").write_text('{"name": "a", "side": 0}\n\n{"name": \n')
    assert re.match(r".*rows\.jsonl:3: not valid JSON", refusal(tmp_path))
    (tmp_path / "rows.jsonl").write_text("[1]\n")
    assert "row 0 is a list" in refusal(tmp_path)


def test_csv(tmp_path: Path) -> None:
    """Values stay text, and a quoted comma or line break is part of its value."""
    (tmp_path / "x y.csv").write_bytes(
        '\ufeffname, side,text\r\n01,0,"a, b"\r\nNA,1,"two\nlines"\r\n\r\n'.encode()
    )
    task = make(tmp_path, dataset('{reader: csv, path: "x y.csv"}'))
    assert [(s.id, s.target) for s in task.samples] == [("01", 0), ("NA", 1)]
    assert [s.fields["text"] for s in task.samples] == ["a, b", "two\nlines"]


def test_csv_with_tabs_and_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\t1\nb\t0\n")
    section = '{reader: csv, path: x.tsv, delimiter: "\\t", columns: [name, side]}'
    assert [s.target for s in make(tmp_path, dataset(section)).samples] == [1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "name,side\na,0\nb\n",
            "x.csv:3: expected 2 values (name, side), found 1",
        ),
        ("name,side\na,0,5\n", "x.csv:2: expected 2 values (name, side), found 3"),
        ('name,side\na,"0\n', "x.csv:2: not valid CSV"),
        ("name,side,name\na,0,b\n", "x.csv:1: duplicate column name"),
        ("name,side\n", "no rows in x.csv"),
        ("", "no rows in x.csv"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    assert message in refusal(tmp_path, dataset("{reader: csv, path: x.csv}"))


FROM_COLUMN = '  target: "{{ side }}"\n  images: "{{ image }}"'


@pytest.mark.parametrize("with_metadata", [True, False])
def test_parquet_with_images(tmp_path: Path, with_metadata: bool) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = {
        "name": ["a", "b"],
        "side": [0, 1],
        "image": [{"bytes": png((n, 0, 0)), "path": None} for n in (1, 2)],
    }
    features = Features({"name": Value("string"), "side": Value("int64"), "image": ImageFeature()})
    data = Dataset.from_dict(rows, features=features if with_metadata else None)
    (tmp_path / "p").mkdir()
    data.to_parquet(str(tmp_path / "p" / "0.parquet"))
    for path in ("p", "p/0.parquet"):
        task = make(tmp_path, dataset(f"{{reader: parquet, path: {path}}}", FROM_COLUMN))
        assert [s.images[0].path for s in task.samples] == [f"{path}#0/image", f"{path}#1/image"]
        assert [load(s.images[0]).pixels.getpixel((0, 0)) for s in task.samples] == [
            (1, 0, 0),
            (2, 0, 0),
        ]
        assert list(task.data_sha256) == ["p/0.parquet"]


def test_bad_parquet(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    assert "no .parquet file" in refusal(tmp_path, dataset("{reader: parquet, path: p}"))
    (tmp_path / "p" / "x.parquet").write_bytes(b"PAR1 or not")
    assert "not a readable Parquet file" in refusal(tmp_path, dataset("{reader: parquet, path: p}"))


def test_hub_data_saved_to_disk(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, Features, Value
    from datasets import Image as ImageFeature

    features = Features({"name": Value("string"), "side": Value("int64"), "image": ImageFeature()})
    rows = {"name": ["a"], "side": [1], "image": [{"bytes": png((5, 6, 7)), "path": None}]}
    data = Dataset.from_dict(rows, features=features)
    data.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"test": data}).save_to_disk(str(tmp_path / "many"))
    for section in ("path: one", "path: many, split: test", "path: [none, one]"):
        task = make(tmp_path, dataset(f"{{reader: hub, {section}}}", FROM_COLUMN))
        (sample,) = task.samples
        assert load(sample.images[0]).pixels.getpixel((0, 0)) == (5, 6, 7)
        # The path identifies the image, also among those of other splits.
        assert sample.images[0].path in ("one#0/image", "many/test#0/image")
        assert all(task.data_sha256.values())
    assert "dataset.split is required: one of test" in refusal(
        tmp_path, dataset("{reader: hub, path: many}", FROM_COLUMN)
    )
    assert "unknown split 'train'; available: test" in refusal(
        tmp_path, dataset("{reader: hub, path: many, split: train}", FROM_COLUMN)
    )
    (tmp_path / "empty").mkdir()
    assert "not a data set written by save_to_disk" in refusal(
        tmp_path, dataset("{reader: hub, path: empty}")
    )
    assert "data not found" in refusal(tmp_path, dataset("{reader: hub, path: none}"))
    assert "the reader 'hub' requires dataset.name" in refusal(tmp_path, dataset("{reader: hub}"))


def test_image_folder(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.JPG", "a/notes.txt", "a/.hidden.png"):
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pics" / name).write_bytes(png())
    sample = "  target: \"{{ ['a', 'b'] | list | length - 1 }}\"\n  images: \"{{ image }}\""
    text = dataset("{reader: image_folder, path: pics}", sample).replace(
        "options: [left, right]", 'options: [a, b]\n  category: "{{ folder }}"'
    )
    task = make(tmp_path, text)
    assert [(s.id, s.category) for s in task.samples] == [("1", "a"), ("2", "b")]
    assert [s.images[0].path for s in task.samples] == ["pics/a/1.JPG", "pics/b/2.png"]
    before = dict(task.data_sha256)
    (tmp_path / "pics" / "b" / "3.png").write_bytes(png())
    assert dict(make(tmp_path, text).data_sha256) != before
    (tmp_path / "file").write_text("x")
    assert "requires a folder" in refusal(tmp_path, dataset("{reader: image_folder, path: file}"))
    (tmp_path / "empty").mkdir()
    assert "no images in this folder" in refusal(
        tmp_path, dataset("{reader: image_folder, path: empty}")
    )
