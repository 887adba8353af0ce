"""Making samples from YAML and data: rendering, groups, label corrections, limits."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.tasks import BASE, KEYS, ROWS, change, make, png, refusal, sample_list, write_rows
from vlm_harness.images import load
from vlm_harness.specs import schemas as specs
from vlm_harness.specs.registry import Registry
from vlm_harness.tasks.task import _limit, apply_corrections, load_task
from vlm_harness.types import Sample

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
            "the target 2 is out of range for the 2 options ['left', 'right']; allowed: 0 to 1",
        ),
        ('"{{ side }}"', '"-1"', "the target must be the index of an option (0 to 1), found '-1'"),
        (
            '"{{ side }}"',
            '"{{ true }}"',
            "the target must be the index of an option (0 to 1), found True",
        ),
        (
            '"{{ side }}"',
            '"{{ none }}"',
            "the target must be the index of an option (0 to 1), found None",
        ),
        ('"{{ side }}"', f'"{9**60}"', "is out of range for the 2 options"),
        ("[left, right]", "left and right", "options must be a list with at least one item"),
        ("[left, right]", '"{{ [] }}"', "options must be a list with at least one item"),
        ("[left, right]", "[left, left]", "duplicate options: ['left', 'left']"),
        ("[left, right]", "[a, b]\n  captions: [x]", "1 captions for 2 options"),
        (
            "[left, right]",
            '[a, b]\n  images: ["{{ side }}"]',
            "an image must be a path or an image column, not int",
        ),
        ("[left, right]", "[a, b]\n  images: [../x.png]", "is outside the data directory"),
        ("[left, right]", "[a, b]\n  images: [/x.png]", "is outside the data directory"),
        (
            "[left, right]",
            "[a, b]\n  images: [{any_of: [x, ../y]}]",
            "is outside the data directory",
        ),
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
        assert f"the path {path!r} is outside the data directory" in refusal(tmp_path, text)


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


def test_duplicate_sample_ids(tmp_path: Path) -> None:
    write_rows(tmp_path, [*ROWS, ROWS[2]])
    assert "sample.id: duplicate ids (1): s2" in refusal(tmp_path)


# --- MMVP and What'sUp as published ---------------------------------------------------------------

QUESTION = "Are the butterfly's wings closer to being open or closed?"


def mmvp(root: Path, header: str = "lndex", folder: str = "MMVP Images") -> Path:
    images = root / "mmvp" / folder
    images.mkdir(parents=True)
    rows = [f"{header},Question,Options,Correct Answer"]
    for number in range(1, 301):
        answer = "(a)" if number % 2 else "(b)"
        # The rows of the published corrections, with their original labels.
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


def write_corrections(root: Path, *corrections: str, key: str = "label_corrections") -> None:
    (root / "specs").mkdir(exist_ok=True)
    rows = "".join(f"  - {row}\n" for row in corrections)
    (root / "specs" / "o.yaml").write_text(f"{key}: o\nreference: r\ncorrections:\n{rows}")


CORRECTED = ("protocols", "label_corrections: o\nprotocols")
PAIRS = ('"{{ side }}"', '"{{ side }}"\n  pair: "{{ key }}"')
DISTINCT = ("protocols", "grouping: {pair: {size: 2, distinct_targets: true}}\nprotocols")


def test_corrections_that_are_off_by_one_are_detected(tmp_path: Path) -> None:
    """Corrections by 1-based index, applied by 0-based index, give a pair the same answer twice."""
    write_rows(tmp_path)
    write_corrections(tmp_path, "{id: s1, was: right, answer: left}")
    message = refusal(tmp_path, change(CORRECTED, PAIRS, DISTINCT))
    assert (
        "several samples of the pair '0' have the same correct option under the corrected labels: "
        "s0, s1" in message
    )
    text = change(CORRECTED, PAIRS, DISTINCT)
    assert len(make(tmp_path, text, labels="original").samples) == 6


@pytest.mark.parametrize("key", ["label_corrections", "overlay"])
def test_label_corrections_are_applied(tmp_path: Path, key: str) -> None:
    """Under the key `label_corrections` or its old name `overlay`, in either file."""
    write_rows(tmp_path)
    write_corrections(
        tmp_path, "{id: s0, was: left, answer: right}", "{id: s1, was: right, answer: left}",
        "{id: elsewhere, was: left, answer: right}", key=key,
    )  # fmt: skip
    corrected = ("protocols", f"{key}: o\nprotocols")
    task = make(tmp_path, change(corrected, PAIRS, DISTINCT))
    assert [s.target for s in task.samples] == [1, 0, 0, 1, 0, 1]
    assert [s.target_original for s in task.samples] == [0, 1, 0, 1, 0, 1]
    assert task.overlay is not None
    original = make(tmp_path, change(CORRECTED), labels="original")
    assert [s.target for s in original.samples] == [0, 1, 0, 1, 0, 1]


def test_label_corrections_that_do_not_fit_the_data(tmp_path: Path) -> None:
    write_rows(tmp_path)
    write_corrections(
        tmp_path, "{id: s0, was: left, answer: right}", "{id: s3, was: left, answer: right}"
    )
    message = refusal(tmp_path, change(CORRECTED))
    assert (
        "o.yaml:5: label correction of sample s3: expected the label 'left' in the data, "
        "found 'right'" in message
    )
    assert "--labels original" in message
    write_corrections(tmp_path, "{id: s0, was: left, answer: rihgt}")
    message = refusal(tmp_path, change(CORRECTED))
    assert (
        "o.yaml:4: label correction of sample s0: unknown option 'rihgt'; did you mean 'right'?"
        in message
    )


def test_label_corrections_with_other_options_are_ignored(tmp_path: Path) -> None:
    """A correction for the four-way task does not affect a two-way task."""
    write_rows(tmp_path)
    write_corrections(tmp_path, "{id: s0, was: on, answer: under}")
    assert [s.target for s in make(tmp_path, change(CORRECTED)).samples] == [0, 1] * 3


@pytest.mark.parametrize("key", ["label_corrections", "overlay"])
def test_unknown_label_corrections(tmp_path: Path, key: str) -> None:
    write_rows(tmp_path)
    write_corrections(tmp_path, "{id: s0, was: a, answer: b}")
    text = change(("protocols", f"{key}: oo\nprotocols"))
    message = refusal(tmp_path, text)
    assert "t.yaml:8: unknown label corrections 'oo'; did you mean 'o'?" in message


def test_the_original_label_is_kept() -> None:
    sample = Sample("1", (), ("a", "b"), 0, 0)
    corrections = specs.OverlaySpec.model_validate(
        {"overlay": "o", "reference": "r", "corrections": [{"id": 1, "was": "a", "answer": "b"}]}
    )
    (corrected,) = apply_corrections(corrections, [sample])
    assert (corrected.target, corrected.target_original) == (1, 0)


# --- several samples per row ----------------------------------------------------------------------


def test_each_row_yields_a_sample_per_value(tmp_path: Path) -> None:
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


def test_the_positive_option_must_be_an_option(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert make(tmp_path, BASE + "positive: right\n").spec.positive == "right"
    message = refusal(tmp_path, BASE + "positive: rihgt\n")
    assert "t.yaml:9: positive: no sample has an option 'rihgt'; did you mean 'right'" in message
    assert "Options: left, right" in message


# --- groups and limits ----------------------------------------------------------------------------


def test_a_group_with_too_many_samples(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"name": n, "side": 0} for n in "abc"])
    text = change(('"{{ side }}"', '"{{ side }}"\n  pair: "p"'))
    message = refusal(tmp_path, text)
    assert "t.yaml:8: the pair 'p' has 3 samples, expected at most 2: a, b, c" in message
    wider = text.replace("protocols", "grouping: {pair: {size: 3}}\nprotocols")
    assert len(make(tmp_path, wider).samples) == 3


def test_limit_keeps_groups_complete(tmp_path: Path) -> None:
    write_rows(tmp_path)
    for limit, ids in [(1, "01"), (2, "01"), (3, "01"), (4, "0123"), (100, "012345")]:
        task = make(tmp_path, change(PAIRS), limit=limit)
        assert [s.id for s in task.samples] == [f"s{n}" for n in ids]
        assert len(task.ids) == 6


def test_samples_by_id(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert [s.id for s in make(tmp_path, samples=["s4", "s1", "s4"]).samples] == ["s1", "s4"]


@given(KEYS, st.integers(1, 25))
def test_limit_is_at_most_n_or_one_group(keys: list[int | None], limit: int) -> None:
    samples = sample_list(keys)
    chosen = _limit(samples, limit)
    groups = {sample.group for sample in chosen}
    assert chosen == [sample for sample in samples if sample.group in groups]  # complete, in order
    assert len(groups) >= 1
    assert len(chosen) <= limit or len(groups) == 1
    assert chosen[0] == samples[0]
