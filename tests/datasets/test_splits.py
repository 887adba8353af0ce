"""Which files are read: splits of local clones, patterns, Arrow folders; keys without effect."""

from pathlib import Path

import pytest

from datasets import Dataset, DatasetDict
from helpers.tasks import dataset, make, refusal

NAMES = {
    "test-00000-of-00002": ["t0", "t1"],
    "test-00001-of-00002": ["t2"],
    "train-00000-of-00001": ["x0", "x1"],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def write(path: Path, ids: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset.from_dict({"name": ids, "side": [0] * len(ids)})
    if path.suffix == ".parquet":
        data.to_parquet(str(path))
    elif path.suffix == ".csv":
        data.to_csv(str(path), index=False)
    else:
        data.to_json(str(path), lines=path.suffix == ".jsonl")


def write_clone(root: Path, folder: str = "clone/data") -> None:
    for name, ids in NAMES.items():
        write(root / folder / f"{name}.parquet", ids)


def ids(root: Path, section: str) -> list[str]:
    return [sample.id for sample in make(root, dataset(section)).samples]


@pytest.mark.parametrize(
    "section",
    [
        "{reader: hub, path: clone, split: test}",
        "{reader: parquet, path: clone, split: test}",
        "{reader: parquet, path: clone/data, split: test}",
        '{reader: parquet, path: "clone/data/test-*.parquet"}',
        '{reader: parquet, path: "clone/*/test-*"}',
        '{reader: parquet, path: "clone/data/test-0000[01]-of-00002.parquet"}',
        '{reader: parquet, path: [none, "none/*", "clone/data/test-?????-of-*"]}',
    ],
)
def test_shards_of_one_split(tmp_path: Path, section: str) -> None:
    write_clone(tmp_path)
    task = make(tmp_path, dataset(section))
    assert [sample.id for sample in task.samples] == ["t0", "t1", "t2"]
    assert list(task.data_sha256) == [f"clone/data/test-0000{n}-of-00002.parquet" for n in range(2)]


@pytest.mark.parametrize("reader", ["parquet", "hub"])
@pytest.mark.parametrize(
    ("test", "train"),
    [
        ("test.parquet", "train.parquet"),
        ("test/0.parquet", "train/0.parquet"),
        ("data/test-00000-of-00001-ab12cd34.parquet", "data/train-00000-of-00001-ab12.parquet"),
        ("test_1.parquet", "train_1.parquet"),
    ],
)
def test_splits_by_the_names_of_files_and_folders(
    tmp_path: Path, reader: str, test: str, train: str
) -> None:
    write(tmp_path / "p" / test, ["t0"])
    write(tmp_path / "p" / train, ["x0"])
    assert ids(tmp_path, f"{{reader: {reader}, path: p, split: test}}") == ["t0"]


def test_a_split_of_another_name(tmp_path: Path) -> None:
    for name, one in (("minival", "v0"), ("test", "t0")):
        write(tmp_path / "p" / "data" / f"{name}-00000-of-00001.parquet", [one])
    for reader in ("parquet", "hub"):
        assert ids(tmp_path, f"{{reader: {reader}, path: p, split: minival}}") == ["v0"]


def test_a_clone_with_configurations(tmp_path: Path) -> None:
    """The card of the data set names the files."""
    for config in ("one", "two"):
        write(tmp_path / "clone" / config / "val-00000-of-00001.parquet", [config])
    (tmp_path / "clone" / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {name}\n  data_files:\n  - {{split: val, path: {name}/val-*}}\n"
            for name in ("one", "two")
        )
        + "---\n"
    )
    assert ids(tmp_path, "{reader: hub, path: clone, config: two, split: val}") == ["two"]
    message = refusal(tmp_path, dataset("{reader: hub, path: clone, split: val}"))
    assert "one" in message
    assert "two" in message


def test_splits_are_not_mixed(tmp_path: Path) -> None:
    write_clone(tmp_path)
    for path in ("clone", "clone/data"):
        message = refusal(tmp_path, dataset(f"{{reader: parquet, path: {path}}}"))
        assert "the folder has several splits, which would be mixed: test, train" in message
        assert "dataset.split" in message
    assert len(ids(tmp_path, '{reader: parquet, path: "clone/data/*.parquet"}')) == 5
    message = refusal(tmp_path, dataset("{reader: hub, path: clone}"))
    assert "dataset.split is required: one of train, test" in message


def test_a_folder_without_splits(tmp_path: Path) -> None:
    write(tmp_path / "p" / "1.parquet", ["b"])
    write(tmp_path / "p" / "0.parquet", ["a"])
    write(tmp_path / "p" / ".cache" / "2.parquet", ["hidden"])
    assert ids(tmp_path, "{reader: parquet, path: p}") == ["a", "b"]
    message = refusal(tmp_path, dataset("{reader: parquet, path: p, split: test}"))
    assert "unknown split 'test'; available: none" in message


@pytest.mark.parametrize("reader", ["parquet", "hub"])
def test_an_unknown_split(tmp_path: Path, reader: str) -> None:
    write_clone(tmp_path)
    message = refusal(tmp_path, dataset(f"{{reader: {reader}, path: clone, split: tets}}"))
    assert "unknown split 'tets'; available: " in message
    assert "test" in message


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{reader: parquet, path: a.parquet, split: test}", "dataset.split has no effect: a.parq"),
        ('{reader: parquet, path: "*.parquet", split: test}', "dataset.split has no effect: "),
        ("{reader: hub, path: saved, split: test}", "the folder holds one data set"),
        ("{reader: arrow, path: saved, split: test}", "the folder holds one data set"),
        ("{reader: jsonl, path: a.jsonl, split: test}", "dataset.split has no effect with the rea"),
        ("{reader: json, path: a.json, split: test}", "dataset.split has no effect"),
        ("{reader: csv, path: a.csv, split: test}", "dataset.split has no effect"),
        ("{reader: image_folder, path: saved, split: test}", "dataset.split has no effect"),
        ("{reader: csv, path: a.csv, key: rows}", "dataset.key has no effect"),
        ('{reader: jsonl, path: a.jsonl, delimiter: ";"}', "dataset.delimiter has no effect"),
        ("{reader: json, path: a.json, revision: abc}", "dataset.revision has no effect"),
        ("{reader: jsonl, path: a.jsonl, args: {split: test}}", "dataset.args has no effect"),
    ],
)
def test_keys_without_effect(tmp_path: Path, section: str, message: str) -> None:
    for suffix in ("parquet", "jsonl", "json", "csv"):
        write(tmp_path / f"a.{suffix}", ["a"])
    Dataset.from_dict({"name": ["a"], "side": [0]}).save_to_disk(str(tmp_path / "saved"))
    found = refusal(tmp_path, dataset(section))
    assert message in found
    assert found.startswith(("t.yaml:3", str(tmp_path)))


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_patterns_for_other_readers(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        write(tmp_path / "p" / f"{name}.{suffix}", [name, name * 2])
    write(tmp_path / "p" / f".hidden.{suffix}", ["no"])
    (tmp_path / "p" / f"folder.{suffix}").mkdir()
    task = make(tmp_path, dataset(f'{{reader: {suffix}, path: "p/*.{suffix}"}}'))
    assert [sample.id for sample in task.samples] == ["a", "aa", "b", "bb"]
    assert list(task.data_sha256) == [f"p/a.{suffix}", f"p/b.{suffix}"]


def test_patterns_that_match_nothing_or_leave_the_folder(tmp_path: Path) -> None:
    assert "data not found" in refusal(tmp_path, dataset('{reader: jsonl, path: "p/*.jsonl"}'))
    message = refusal(tmp_path, dataset('{reader: jsonl, path: "../*.jsonl"}'))
    assert "is outside the data directory" in message


def test_a_pattern_for_a_reader_of_one_path(tmp_path: Path) -> None:
    write_clone(tmp_path)
    message = refusal(tmp_path, dataset('{reader: hub, path: "clone/data/*", split: test}'))
    assert "3 files match clone/data/*, but the reader 'hub' takes one path" in message


def test_tabs_are_the_default_for_tsv(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("name\tside\na\t1\n")
    (tmp_path / "y.tsv").write_text("name,side\na,1\n")
    for section in ("path: x.tsv", 'path: y.tsv, delimiter: ","'):
        (sample,) = make(tmp_path, dataset(f"{{reader: csv, {section}}}")).samples
        assert (sample.id, sample.target) == ("a", 1)


def test_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a[1].jsonl", ["brackets"])
    write(tmp_path / "a1.jsonl", ["one"])
    assert ids(tmp_path, '{reader: jsonl, path: "a[1].jsonl"}') == ["brackets"]


@pytest.mark.parametrize("reader", ["hub", "arrow"])
def test_folders_written_by_save_to_disk(tmp_path: Path, reader: str) -> None:
    parts = {name: Dataset.from_dict({"name": [name], "side": [0]}) for name in ("test", "train")}
    DatasetDict(parts).save_to_disk(str(tmp_path / "both"))
    assert ids(tmp_path, f"{{reader: {reader}, path: both, split: test}}") == ["test"]
    assert ids(tmp_path, f"{{reader: {reader}, path: both/train}}") == ["train"]
    message = refusal(tmp_path, dataset(f"{{reader: {reader}, path: both}}"))
    assert "dataset.split is required: one of test, train" in message
    message = refusal(tmp_path, dataset("{reader: parquet, path: both}"))
    assert "use the reader arrow" in message


def test_arrow_files(tmp_path: Path) -> None:
    """Shards without the files that save_to_disk adds, as in the cache of ``datasets``."""
    data = Dataset.from_dict({"name": ["a", "b"], "side": [0, 0]})
    data.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    (tmp_path / "cache").mkdir()
    for path in (tmp_path / "saved").glob("*.arrow"):
        shard = path.name.split("-", 1)[1]
        path.rename(tmp_path / "cache" / f"rows-test-{shard}")
    for section in (
        "{reader: arrow, path: cache}",
        "{reader: arrow, path: cache, split: rows-test}",
        '{reader: arrow, path: "cache/*.arrow"}',
    ):
        assert ids(tmp_path, section) == ["a", "b"]
    (tmp_path / "bad.arrow").write_bytes(b"no")
    message = refusal(tmp_path, dataset("{reader: arrow, path: bad.arrow}"))
    assert "not a readable Arrow file" in message


# --- texts ---------------------------------------------------------------------------------------

SEPARATORS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"


@pytest.mark.parametrize("reader", ["json", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_separators_in_records(tmp_path: Path, reader: str, mark: str) -> None:
    import json

    row = {"name": SEPARATORS, "side": 0}
    rows = [row, {"name": "z", "side": 1}]
    if reader == "parquet":
        Dataset.from_list(rows).to_parquet(str(tmp_path / "x"))
    elif reader == "csv":
        content = "name,side\n" + "".join(f"{each['name']},{each['side']}\n" for each in rows)
        (tmp_path / "x").write_text(mark + content, encoding="utf-8", newline="")
    else:
        whole = json.dumps(rows, ensure_ascii=False)
        lines = "\n".join(json.dumps(each, ensure_ascii=False) for each in rows)
        (tmp_path / "x").write_text(mark + (whole if reader == "json" else lines), encoding="utf-8")
    assert ids(tmp_path, f"{{reader: {reader}, path: x}}") == [SEPARATORS, "z"]
