"""From YAML and data to samples: readers, rendering, groups, overlays, limits, orders."""

import json
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_harness.errors import InputError
from vlm_harness.images import load
from vlm_harness.specs import schemas as specs
from vlm_harness.specs import validation as spec_check
from vlm_harness.specs import yamlfile
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.orders import orders
from vlm_harness.tasks.task import Task, _limit, apply_overlay, load_task
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


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


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
    """The task above with other data."""
    text = change(("dataset: {reader: jsonl, path: rows.jsonl}", f"dataset: {section}"))
    return text.replace('  target: "{{ side }}"', sample) if sample else text


# --- rendering ------------------------------------------------------------------------------------


def test_fields_where_and_sample(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"file": f"data/{n}_x.png", "n": n, "odd key": "o"} for n in range(4)])
    text = """\
task: t
version: 1
dataset: {reader: jsonl, path: rows.jsonl}
fields:
  number: "{{ n + 1 }}"
  twice: "{{ number * 2 }}"
  words: ["{{ twice }}", plain, 3]
  odd: "{{ row['odd key'] }}"
where: "{{ number > 1 }}"
sample:
  id: "{{ file | stem }}"
  images: ["{{ file | basename }}", fixed.png]
  options: ["{{ number }}", 7.5, "no"]
  captions: "{{ [odd, 'b', 'c'] }}"
  target: "{{ n % 3 }}"
  pair: "{{ n // 2 }}"
  set: ""
  category: "{{ odd }}/{{ row_index }}"
protocols: {similarity: {}}
"""
    task = make(tmp_path, text)
    assert [sample.id for sample in task.samples] == ["1_x", "2_x", "3_x"]
    first = task.samples[0]
    assert [ref.path for ref in first.images] == ["1_x.png", "fixed.png"]
    assert first.options == ("2", "7.5", "no")
    assert first.captions == ("o", "b", "c")
    assert (first.target, first.target_original) == (1, 1)
    assert (first.pair, first.set, first.category) == ("0", None, "o/1")
    assert first.fields["words"] == [4, "plain", 3]
    assert len(task.ids) == 3
    assert set(task.data_sha256) == {"rows.jsonl"}
    assert set(task.partners()) == {"2_x", "3_x"}
    assert task.partners()["2_x"].id == "3_x"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"{{ side }}"',
            '"{{ sied }}"',
            "t.yaml:7: sample.target, row 0 of rows.jsonl: 'sied' is undefined; did ",
        ),
        (
            '"{{ side }}"',
            "2",
            "the target 2 lies outside the 2 options ['left', 'right']; allowed: 0",
        ),
        ('"{{ side }}"', '"-1"', "the target must be the index of an option, found '-1'"),
        ('"{{ side }}"', '"{{ true }}"', "the target must be the index of an option, found True"),
        ('"{{ side }}"', '"{{ none }}"', "the target must be the index of an option, found None"),
        ('"{{ side }}"', f'"{9**60}"', "lies outside the 2 options"),
        ("[left, right]", "left and right", "options must be a list with at least one item"),
        ("[left, right]", '"{{ [] }}"', "options must be a list with at least one item"),
        ("[left, right]", "[left, left]", "two options are the same"),
        ("[left, right]", "[a, b]\n  captions: [x]", "1 captions for 2 options"),
        (
            "[left, right]",
            '[a, b]\n  images: ["{{ side }}"]',
            "an image is a path or an image column",
        ),
        ("[left, right]", "[a, b]\n  images: [../x.png]", "leaves the data directory"),
        ("[left, right]", "[a, b]\n  images: [/x.png]", "leaves the data directory"),
        ("[left, right]", "[a, b]\n  images: [{any_of: [x, ../y]}]", "leaves the data directory"),
        (
            "protocols",
            'fields: {a: 1, b: "{{ 1 / 0 }}"}\nprotocols',
            "t.yaml:8: fields.b, row 0 of rows.jsonl: Zero",
        ),
        (
            "protocols",
            'where: "{{ nope }}"\nprotocols',
            "t.yaml:8: where, row 0 of rows.jsonl: 'nope' is undefined",
        ),
        ("protocols", 'where: "{{ false }}"\nprotocols', "none of the 6 rows of"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_rows(tmp_path)
    assert message in refusal(tmp_path, change((old, new)))


def test_a_path_in_the_data_cannot_leave_the_data_directory(tmp_path: Path) -> None:
    for path in ("../../etc/passwd", "/etc/passwd", "a/../../b"):
        write_rows(tmp_path, [{"name": "a", "side": 0, "file": path}])
        text = change(("[left, right]", '[a, b]\n  images: ["{{ file }}"]'))
        assert f"the path {path!r} leaves the data directory" in refusal(tmp_path, text)


def test_the_first_path_that_exists(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"name": n, "side": 0} for n in "abc"])
    (tmp_path / "My Images").mkdir()
    (tmp_path / "My Images" / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png())
    images = '[{any_of: ["My Images/{{ name }}.png", "{{ name }}.png"]}]'
    task = make(tmp_path, change(("[left, right]", f"[a, b]\n  images: {images}")))
    assert [s.images[0].path for s in task.samples] == [
        "My Images/a.png",
        "b.png",
        "My Images/c.png",
    ]
    assert load(task.samples[0].images[0]).pixels.size == (3, 2)


def test_images_from_a_list(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"name": "a", "side": 0, "files": ["x.png", "y.png"]}])
    task = make(tmp_path, change(("[left, right]", '[a, b]\n  images: "{{ files }}"')))
    assert [ref.path for ref in task.samples[0].images] == ["x.png", "y.png"]


def test_two_samples_of_one_id(tmp_path: Path) -> None:
    write_rows(tmp_path, [*ROWS, ROWS[2]])
    assert "sample.id: of several samples, 1 in all: s2" in refusal(tmp_path)


# --- readers --------------------------------------------------------------------------------------


def test_missing_data_say_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    source = '{hub: own/name, folder: own, urls: ["https://x.org/y"], instructions: "Fetch the z."}'
    message = refusal(tmp_path, dataset(f"{{reader: csv, path: [a.csv, b.csv], source: {source}}}"))
    assert f"no {tmp_path / 'a.csv'} and no {tmp_path / 'b.csv'}" in message
    for part in ("data prepare", "own/name", "Fetch the z.", "https://x.org/y", "--data-dir"):
        assert part in message
    assert f"The data directory is {tmp_path}" in message


@pytest.mark.parametrize("reader", ["json", "jsonl", "csv"])
def test_a_folder_is_no_file(tmp_path: Path, reader: str) -> None:
    message = refusal(tmp_path, dataset(f'{{reader: {reader}, path: "."}}'))
    assert "cannot be read: Is a directory" in message


@pytest.mark.parametrize("reader", ["json", "jsonl", "csv"])
def test_bytes_that_are_no_text(tmp_path: Path, reader: str) -> None:
    (tmp_path / "x").write_bytes(b"a,b\n\x89\xff\x00")
    message = refusal(tmp_path, dataset(f"{{reader: {reader}, path: x}}"))
    assert message.startswith(f"{tmp_path / 'x'}:2: not UTF-8")


def test_unknown_reader_and_missing_path(tmp_path: Path) -> None:
    message = refusal(tmp_path, dataset("{reader: jsnl, path: x}"))
    assert message.startswith("t.yaml:3: unknown reader 'jsnl'; did you mean 'jsonl'?")
    assert "dataset.path is required" in refusal(tmp_path, dataset("{reader: json}"))


def test_a_path_to_data_cannot_leave_the_data_directory(tmp_path: Path) -> None:
    message = refusal(tmp_path, dataset("{reader: json, path: ../x.json}"))
    assert "leaves the data directory" in message


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
        ('{"a": 1}', "", "expected a list of rows, found one object"),
        ("[1]", "", "row 0 is no object but int"),
        ("[[1]]", "", "row 0 is a list of 1 items; it needs dataset.columns to name them"),
        ("[[1]]", ", columns: [a, b]", "row 0 is a list of 1 items; it needs 2 items"),
        ("[]", ", key: rows", "there is no key 'rows'"),
        ("[]", "", "holds no row"),
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
    """Values stay text, and a comma or a line break in quotes belongs to its value."""
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
            "x.csv:3: the row has not as many values as there are columns (name, side)",
        ),
        ("name,side\na,0,5\n", "x.csv:2: the row has not as many values"),
        ('name,side\na,"0\n', "x.csv:2: not valid CSV"),
        ("name,side,name\na,0,b\n", "x.csv:1: two columns are called name"),
        ("name,side\n", "holds no row"),
        ("", "holds no row"),
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
    assert "not readable as Parquet" in refusal(tmp_path, dataset("{reader: parquet, path: p}"))


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
        # All that tells it from the images of other splits, which are known by their path.
        assert sample.images[0].path in ("one#0/image", "many/test#0/image")
        assert all(task.data_sha256.values())
    assert "dataset.split is required: one of test" in refusal(
        tmp_path, dataset("{reader: hub, path: many}", FROM_COLUMN)
    )
    assert "there is no split 'train': test" in refusal(
        tmp_path, dataset("{reader: hub, path: many, split: train}", FROM_COLUMN)
    )
    (tmp_path / "empty").mkdir()
    assert "not a data set as save_to_disk leaves it" in refusal(
        tmp_path, dataset("{reader: hub, path: empty}")
    )
    assert "the data are not there" in refusal(tmp_path, dataset("{reader: hub, path: none}"))
    assert "needs dataset.name" in refusal(tmp_path, dataset("{reader: hub}"))


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
    assert "needs a folder" in refusal(tmp_path, dataset("{reader: image_folder, path: file}"))
    (tmp_path / "empty").mkdir()
    assert "no image below it" in refusal(tmp_path, dataset("{reader: image_folder, path: empty}"))


# --- MMVP and What'sUp as published ---------------------------------------------------------------

QUESTION = "Are the butterfly's wings closer to being open or closed?"


def mmvp(root: Path, header: str = "lndex", folder: str = "MMVP Images") -> Path:
    images = root / "mmvp" / folder
    images.mkdir(parents=True)
    rows = [f"{header},Question,Options,Correct Answer"]
    for number in range(1, 301):
        answer = "(a)" if number % 2 else "(b)"
        # The rows that the published corrections are about, as they are published.
        first, second = {99: ("Long", "Short"), 279: ("Standing", "Sitting")}.get(
            number - 1 + number % 2, ("Open", "Closed")
        )
        rows.append(f"{number},{QUESTION},(a) {first} (b) {second},{answer}")
        (images / f"{number}.jpg").write_bytes(b"x")
    (root / "mmvp" / "Questions.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize(
    ("header", "folder"), [("lndex", "MMVP Images"), ("Index", "images"), ("lndex", "images")]
)
def test_mmvp_as_published(tmp_path: Path, header: str, folder: str) -> None:
    found = Registry.standard()
    task = load_task(found.task("mmvp"), found, mmvp(tmp_path, header, folder))
    assert len(task.samples) == 300
    assert {s.images[0].path.rsplit("/", 1)[0] for s in task.samples} == {f"mmvp/{folder}"}
    assert task.samples[0].options == ("(a) Open", "(b) Closed")
    assert [s.pair for s in task.samples[:4]] == ["1", "1", "2", "2"]
    changed = {s.id: s.target for s in task.samples if s.target != s.target_original}
    assert changed == {"99": 1, "100": 0, "279": 1, "280": 0}
    original = load_task(found.task("mmvp"), found, tmp_path, labels="original")
    assert [s.target for s in original.samples] == [0, 1] * 150


def write_overlay(root: Path, *corrections: str) -> None:
    (root / "specs").mkdir(exist_ok=True)
    rows = "".join(f"  - {row}\n" for row in corrections)
    (root / "specs" / "o.yaml").write_text(f"overlay: o\nreference: r\ncorrections:\n{rows}")


OVERLAY = ("protocols", "overlay: o\nprotocols")
PAIRS = ('"{{ side }}"', '"{{ side }}"\n  pair: "{{ key }}"')
DISTINCT = ("protocols", "grouping: {pair: {size: 2, distinct_targets: true}}\nprotocols")


def test_the_trap_of_counting_from_zero(tmp_path: Path) -> None:
    """Corrections of 1-based indexes, applied 0-based, give both images of a pair one answer."""
    write_rows(tmp_path)
    write_overlay(tmp_path, "{id: s1, was: right, answer: left}")
    message = refusal(tmp_path, change(OVERLAY, PAIRS, DISTINCT))
    assert (
        "the pair '0' has the same right option for more than one of its samples (s0, s1)"
        in message
    )
    assert "under the corrected labels" in message
    text = change(OVERLAY, PAIRS, DISTINCT)
    assert len(make(tmp_path, text, labels="original").samples) == 6


def test_an_overlay_is_applied(tmp_path: Path) -> None:
    write_rows(tmp_path)
    write_overlay(
        tmp_path, "{id: s0, was: left, answer: right}", "{id: s1, was: right, answer: left}",
        "{id: elsewhere, was: left, answer: right}",
    )  # fmt: skip
    task = make(tmp_path, change(OVERLAY, PAIRS, DISTINCT))
    assert [s.target for s in task.samples] == [1, 0, 0, 1, 0, 1]
    assert [s.target_original for s in task.samples] == [0, 1, 0, 1, 0, 1]
    assert task.overlay is not None
    original = make(tmp_path, change(OVERLAY), labels="original")
    assert [s.target for s in original.samples] == [0, 1, 0, 1, 0, 1]


def test_an_overlay_that_does_not_fit(tmp_path: Path) -> None:
    write_rows(tmp_path)
    write_overlay(
        tmp_path, "{id: s0, was: left, answer: right}", "{id: s3, was: left, answer: right}"
    )
    message = refusal(tmp_path, change(OVERLAY))
    assert "o.yaml:5: sample s3 has the label 'right', and the correction is of 'left'" in message
    assert "--labels original" in message
    write_overlay(tmp_path, "{id: s0, was: left, answer: rihgt}")
    message = refusal(tmp_path, change(OVERLAY))
    assert "o.yaml:4: the correction of sample s0 is to 'rihgt'; did you mean 'right'?" in message


def test_an_overlay_of_options_that_the_task_does_not_have(tmp_path: Path) -> None:
    """A correction for the four-way task is no concern of a two-way one."""
    write_rows(tmp_path)
    write_overlay(tmp_path, "{id: s0, was: on, answer: under}")
    assert [s.target for s in make(tmp_path, change(OVERLAY)).samples] == [0, 1] * 3


def test_an_unknown_overlay(tmp_path: Path) -> None:
    write_rows(tmp_path)
    write_overlay(tmp_path, "{id: s0, was: a, answer: b}")
    text = change(("protocols", "overlay: oo\nprotocols"))
    assert "t.yaml:8: unknown overlay 'oo'; did you mean 'o'?" in refusal(tmp_path, text)


def test_apply_overlay_keeps_the_published_label() -> None:
    sample = Sample("1", (), ("a", "b"), 0, 0)
    overlay = specs.OverlaySpec.model_validate(
        {"overlay": "o", "reference": "r", "corrections": [{"id": 1, "was": "a", "answer": "b"}]}
    )
    (corrected,) = apply_overlay(overlay, [sample])
    assert (corrected.target, corrected.target_original) == (1, 0)


# --- several samples of a row ---------------------------------------------------------------------


def test_each_row_gives_a_sample_for_each_value(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS[:2])
    text = change(
        ('"{{ name }}"', '"{{ name }}-{{ turn }}-{{ flipped }}"\n  pair: "{{ name }}-{{ turn }}"'),
        ('"{{ side }}"', '"{{ 1 - side if flipped else side }}"'),
        ("sample:", "each: {turn: [a, b], flipped: [false, true]}\nsample:"),
    )
    samples = make(tmp_path, text).samples
    assert [(s.id, s.pair, s.target) for s in samples] == [
        ("s0-a-False", "s0-a", 0), ("s0-a-True", "s0-a", 1),
        ("s0-b-False", "s0-b", 0), ("s0-b-True", "s0-b", 1),
        ("s1-a-False", "s1-a", 1), ("s1-a-True", "s1-a", 0),
        ("s1-b-False", "s1-b", 1), ("s1-b-True", "s1-b", 0),
    ]  # fmt: skip
    assert samples[1].fields["flipped"] is True


@pytest.mark.parametrize(
    ("each", "message"),
    [("{a: []}", "each.a: "), ("{a: x}", "each.a: must be a list"), ("{a-b: [x]}", "each.a-b: ")],
)
def test_each_takes_lists(each: str, message: str, tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert message in refusal(tmp_path, change(("sample:", f"each: {each}\nsample:")))


def test_the_positive_option_is_one(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert make(tmp_path, BASE + "positive: right\n").spec.positive == "right"
    message = refusal(tmp_path, BASE + "positive: rihgt\n")
    assert "t.yaml:9: positive: no sample has the option 'rihgt'; did you mean 'right'" in message
    assert "There are: left, right" in message


# --- groups and limits ----------------------------------------------------------------------------


def test_a_group_that_is_too_large(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"name": n, "side": 0} for n in "abc"])
    text = change(('"{{ side }}"', '"{{ side }}"\n  pair: "p"'))
    message = refusal(tmp_path, text)
    assert "t.yaml:8: the pair 'p' has 3 samples, more than 2: a, b, c" in message
    wider = text.replace("protocols", "grouping: {pair: {size: 3}}\nprotocols")
    assert len(make(tmp_path, wider).samples) == 3


def test_limit_keeps_whole_groups(tmp_path: Path) -> None:
    write_rows(tmp_path)
    for limit, ids in [(1, "01"), (2, "01"), (3, "01"), (4, "0123"), (100, "012345")]:
        task = make(tmp_path, change(PAIRS), limit=limit)
        assert [s.id for s in task.samples] == [f"s{n}" for n in ids]
        assert len(task.ids) == 6


def test_samples_by_id(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert [s.id for s in make(tmp_path, samples=["s4", "s1", "s4"]).samples] == ["s1", "s4"]


def sample_list(keys: Sequence[int | None], n_options: int = 3) -> list[Sample]:
    return [
        Sample(
            f"id{i}", (), tuple("abcdefgh"[:n_options]), 0, 0, pair=None if k is None else f"g{k}"
        )
        for i, k in enumerate(keys)
    ]


KEYS = st.lists(st.none() | st.integers(0, 6), min_size=1, max_size=20)


@given(KEYS, st.integers(1, 25))
def test_limit_is_at_most_n_or_one_group(keys: list[int | None], limit: int) -> None:
    samples = sample_list(keys)
    chosen = _limit(samples, limit)
    groups = {sample.group for sample in chosen}
    assert chosen == [sample for sample in samples if sample.group in groups]  # whole, in order
    assert len(groups) >= 1
    assert len(chosen) <= limit or len(groups) == 1
    assert chosen[0] == samples[0]


# --- orders ---------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(), st.sampled_from(["fixed", "both", "cyclic", "random"]))
def test_orders_are_permutations(n: int, seed: int, mode: Any) -> None:
    (sample,) = sample_list([None], n)
    found = orders(mode, sample, seed)
    assert len(set(found)) == len(found)
    assert all(sorted(order) == list(range(n)) for order in found)
    expected = {"fixed": 1, "both": min(n, 2), "cyclic": n, "random": 1}
    assert len(found) == expected[mode]


@given(KEYS, st.integers(0, 99), st.randoms(use_true_random=False))
def test_random_orders_belong_to_the_group(
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


def test_random_orders_take_every_permutation_and_follow_the_seed() -> None:
    samples = sample_list([None] * 300)
    drawn = [orders("random", sample, 0)[0] for sample in samples]
    counts = {order: drawn.count(order) for order in permutations(range(3))}
    assert min(counts.values()) > 25  # 50 each, were they exactly even
    assert drawn != [orders("random", sample, 1)[0] for sample in samples]


def test_what_the_modes_are() -> None:
    (sample,) = sample_list([None])
    asked: Callable[[Any], Any] = lambda mode: orders(mode, sample, 0)  # noqa: E731
    assert asked("fixed") == [(0, 1, 2)]
    assert asked("both") == [(0, 1, 2), (2, 1, 0)]
    assert asked("cyclic") == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
