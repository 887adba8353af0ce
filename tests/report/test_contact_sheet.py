"""The contact sheet of a run, also with unusual answers and images."""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.bench import TASK, Command, write_sides
from vlm_harness.report import contact_sheet
from vlm_harness.report.pairs import Absent, Answer, Sheet, Tile, TileSample, collect

TASKS = "whatsup_rendered_a_left_right,whatsup_rendered_a_four_way"
HOSTILE = [
    "left\nor\r\n\tright\x00\x1b[31m",
    "x" * 100_000,
    "word " * 20_000,
    "\u202eשמאל ليسار",
    "左 😀 👩‍👩‍👧",
    "\ud800 alone",
    "naïve – “½” café…",
    "",
    "\u0301" * 5000,
    "<b>%s {0} {{ x }}",
]


@pytest.fixture
def run(tmp_path: Path, command: Command) -> Callable[..., Path]:
    """Run fake models and give the run's folder."""

    def call(*args: object, models: str = "fake:oracle,fake:first") -> Path:
        code, _, err = command(
            "run", "--model", models, "--output-dir", tmp_path / "runs", "--run-id", "r", *args
        )
        assert code == 0, err
        return tmp_path / "runs" / "r"

    return call


@pytest.fixture
def rendered(run: Callable[..., Path]) -> Path:
    return run("--tasks", TASKS, "--limit", 8)


@pytest.fixture
def photographs(bench: Path, run: Callable[..., Path]) -> Path:
    """A run whose images are files, and whose task file is deleted afterwards."""
    folder = run(
        "--tasks", "sides", "--include-path", bench / "specs", "--data-dir", bench / "data"
    )
    shutil.rmtree(bench / "specs")
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change every line of a run's logs."""
    for path in (folder / "samples").iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            edit(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def texts(sheet: Sheet) -> list[list[str]]:
    """The answers of the models, by sample."""
    return [[answer.text for answer in s.answers] for tile in sheet.tiles for s in tile.samples]


# --- the command ----------------------------------------------------------------------------------


def test_an_image_is_written(rendered: Path, command: Command, tmp_path: Path) -> None:
    path = rendered / "contact_sheet.png"
    assert command("contact-sheet", rendered) == (0, f"{path}\n", "")
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert image.width == 2448
        assert 2000 < image.height < 5000
    other = tmp_path / "other.png"
    assert command("contact-sheet", rendered, "-o", other) == (0, f"{other}\n", "")
    assert other.read_bytes() == path.read_bytes()
    assert not list(tmp_path.rglob("*.new"))


def test_one_pair_is_one_column(rendered: Path, command: Command) -> None:
    assert command("contact-sheet", rendered, "--pairs", 1)[0] == 0
    with Image.open(rendered / "contact_sheet.png") as image:
        assert image.width < 2000


@pytest.mark.parametrize("mode", ["swapped", "none"])
def test_other_images(mode: str, run: Callable[..., Path], command: Command) -> None:
    folder = run("--tasks", TASKS, "--limit", 2, "--images", mode)
    assert command("contact-sheet", folder)[0] == 0
    sheet = collect(folder)
    assert sheet.notes[0].startswith("Images swapped" if mode == "swapped" else "No images")
    assert [bool(sample.images) for sample in sheet.tiles[0].samples] == [mode != "none"] * 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: not a run folder: it has no manifest.json"),
        (["{run}", "-o", "sheet.jpg"], "--output: expected a .png file, got sheet.jpg"),
        (["{run}", "-o", "nowhere/sheet.png"], "nowhere/sheet.png: cannot be written: No such"),
        (
            ["{run}", "--task", "whatsup_rendered_a_four_wey"],
            "--task: the run has no task 'whatsup_rendered_a_four_wey' with paired samples"
            "; did you mean 'whatsup_rendered_a_four_way'?",
        ),
        (["{run}", "--pairs", "0"], "--pairs"),
    ],
)
def test_refused(args: Sequence[str], message: str, rendered: Path, command: Command) -> None:
    code, out, err = command("contact-sheet", *(arg.format(run=rendered) for arg in args))
    assert (code, out) == (2, "")
    assert message in err
    assert len(re.findall("^error: ", err, re.M | re.I)) == 1
    assert not list(rendered.glob("*.png"))


def test_no_pairs(bench: Path, run: Callable[..., Path], command: Command) -> None:
    unpaired = TASK.replace('  pair: "{{ thing }}"\n', "")
    (bench / "specs" / "sides.yaml").write_text(unpaired)
    args = "--tasks", "sides", "--include-path", bench / "specs", "--data-dir", bench / "data"
    folder = run(*args)
    code, _, err = command("contact-sheet", folder)
    assert (code, err) == (
        2,
        f"error: {folder}: none of this run's tasks has paired samples\n",
    )


def test_no_answers_yet(rendered: Path, command: Command) -> None:
    for path in (rendered / "samples").iterdir():
        path.write_text(path.read_text().splitlines(keepends=True)[0])
    code, _, err = command("contact-sheet", rendered)
    assert code == 2
    assert f"{rendered}: no pair is completely answered yet" in err


def test_too_much_for_one_image(
    rendered: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "MAX_PIXELS", 1_200_000)
    code, _, err = command("contact-sheet", rendered)
    assert code == 2
    assert "--pairs: too many pairs and answers for one image" in err
    assert "Show 4 or fewer." in err
    assert command("contact-sheet", rendered, "--pairs", 4)[0] == 0


# --- choice and content of pairs ------------------------------------------------------------------


def test_pairs_on_which_models_differ_come_first(rendered: Path) -> None:
    def agree(line: dict[str, Any]) -> None:
        if not line["pair"].startswith("a-test-0-0003"):
            line["correct"] = True

    change(rendered, agree)
    sheet = collect(rendered, pairs=3)
    assert [tile.pair for tile in sheet.tiles] == [f"a-test-0-{number:04}" for number in (3, 0, 1)]
    assert sheet.n_pairs == 8  # of both tasks
    assert sheet.notes == ["Pairs on which the models differ come first."]
    # Tasks with four options are harder to read, and are shown on request only.
    assert {tile.task for tile in sheet.tiles} == {"whatsup_rendered_a_left_right"}
    both = collect(rendered, TASKS.split(","), pairs=4)
    assert [tile.task[19:] for tile in both.tiles] == ["left_right"] * 2 + ["four_way"] * 2


def test_what_is_shown_of_a_pair(rendered: Path) -> None:
    tile = collect(rendered, pairs=1).tiles[0]
    assert (tile.rows, tile.cosines) == (["oracle", "first"], {})
    assert [sample.question for sample in tile.samples] == [
        "Is the bowl to the left of or to the right of the shelf?"
    ] * 2
    assert [sample.target for sample in tile.samples] == ["left", "right"]
    assert [list(sample.answers) for sample in tile.samples] == [
        [Answer("correct", "left"), Answer("correct", "left")],
        [Answer("correct", "right"), Answer("incorrect", "left")],
    ]


def test_cosines_and_protocols(run: Callable[..., Path]) -> None:
    folder = run("--tasks", TASKS, "--limit", 2, "--protocol", "similarity,choice")
    change(
        folder, lambda line: line.update(pair_cosine=0.987 if "first" in line["model"] else None)
    )
    tile = collect(folder).tiles[0]
    assert tile.cosines == {"first": 0.987}
    assert tile.rows == [
        "oracle / similarity", "oracle / choice", "first / similarity", "first / choice",
    ]  # fmt: skip


def test_answers_in_words(rendered: Path) -> None:
    answers: dict[str, dict[str, Any]] = {
        "0000-left": {"status": "error", "error": "out of memory"},
        "0000-right": {"status": "unparsed", "response": {"text": "a fish"}},
        "0001-left": {"prediction": None, "tied": True},
        "0001-right": {"response": {"text": "It stands, as far as I can see, " + "so " * 20}},
    }
    change(rendered, lambda line: line.update(answers.get(line["sample_id"][9:], {})))
    shown = dict(zip(answers, texts(collect(rendered, pairs=2)), strict=True))
    assert shown["0000-left"][0] == "error: out of memory"
    assert shown["0000-right"][0] == 'unparsed: "a fish"'
    assert shown["0001-left"][0] == "tied"
    assert shown["0001-right"][1].startswith('left: "It stands, ')


def test_unfinished_run(rendered: Path, command: Command) -> None:
    next((rendered / "samples").glob("first__*left_right*")).unlink()
    manifest = json.loads((rendered / "manifest.json").read_text())
    (rendered / "manifest.json").write_text(json.dumps({**manifest, "finished": None}))
    sheet = collect(rendered, pairs=1)
    assert sheet.tiles[0].samples[0].answers[1] == Answer("missing", "not answered yet")
    assert sheet.notes[0] == "The run is not finished."
    assert command("contact-sheet", rendered)[0] == 0


def test_a_task_with_a_table(bench: Path, run: Callable[..., Path], command: Command) -> None:
    table = 'tables: [names]\nfields: {kind: "{{ kind | row_of(names) }}"}\nsample:'
    (bench / "specs" / "sides.yaml").write_text(TASK.replace("sample:", table))
    (bench / "specs" / "names.yaml").write_text("table: names\nrows: {k0: even, k1: odd}\n")
    folder = run(
        "--tasks", "sides", "--include-path", bench / "specs", "--data-dir", bench / "data"
    )
    code, _, err = command("contact-sheet", folder)
    assert code == 0, err


# --- images ---------------------------------------------------------------------------------------


def test_images_that_cannot_be_shown(photographs: Path, bench: Path, command: Command) -> None:
    data = bench / "data" / "sides"
    (data / "thing0-left.png").unlink()
    (data / "thing0-right.png").write_text("no image")

    def another(line: dict[str, Any]) -> None:
        if line["sample_id"] == "thing1-left":
            line["images"][0]["sha256"] = "0" * 64

    change(photographs, another)
    rows = (data / "rows.jsonl").read_text()
    (data / "rows.jsonl").write_text(rows.replace("thing1-right", "thing1-gone"))
    first, second, third = collect(photographs, pairs=3).tiles
    reasons = [image for tile in (first, second) for s in tile.samples for image in s.images]
    assert [image.reason for image in reasons if isinstance(image, Absent)] == [
        "Image not found",
        "The image cannot be read",
        "The image file has changed since the run (checksum mismatch)",
        "Image not found",
    ]
    assert not any(isinstance(image, Absent) for s in third.samples for image in s.images)
    assert command("contact-sheet", photographs)[0] == 0


def test_moved_data(photographs: Path, bench: Path, command: Command, tmp_path: Path) -> None:
    assert command("contact-sheet", photographs)[0] == 0
    here = (photographs / "contact_sheet.png").read_bytes()
    shutil.rmtree(bench / "data")
    code, _, err = command("contact-sheet", photographs, "--data-dir", tmp_path / "none")
    assert code == 2
    assert f"{tmp_path / 'none'}" in err
    write_sides(tmp_path / "moved")
    assert command("contact-sheet", photographs, "--data-dir", tmp_path / "moved")[0] == 0
    assert (photographs / "contact_sheet.png").read_bytes() == here


# --- rendering ------------------------------------------------------------------------------------


def test_hostile_answers_in_a_run(rendered: Path, command: Command) -> None:
    answers = itertools.cycle(HOSTILE)

    def spoil(line: dict[str, Any]) -> None:
        line["response"]["text"] = next(answers)
        line["pair"] += "\n\x07" + "p" * 500

    change(rendered, spoil)
    code, _, err = command("contact-sheet", rendered)
    assert code == 0, err
    with Image.open(rendered / "contact_sheet.png") as image:
        assert image.width == 2448
        assert image.height < 4000


@pytest.mark.parametrize("text", HOSTILE)
def test_text_keeps_to_its_lines(text: str) -> None:
    style = contact_sheet.TEXT
    lines = contact_sheet._wrapped(contact_sheet._printable(text), style, 300, 3)
    assert 1 <= len(lines) <= 3
    assert all(contact_sheet._width(line, style) <= 300 for line in lines)
    assert contact_sheet._text(text, style, 300, 3).size == (300, len(lines) * style.line)


def test_text_is_cut_and_made_printable() -> None:
    def wrapped(text: str) -> list[str]:
        clean = contact_sheet._printable(text)
        return contact_sheet._wrapped(clean, contact_sheet.TEXT, 300, 2)

    assert wrapped("left of\n the  mug") == ["left of the mug"]
    assert wrapped("café – “naïve”\u200b") == ["cafe - “naive”"]
    assert wrapped("a\x00b\u202ec左") == ["a\ufffdbc\ufffd"]
    assert wrapped("to the left " * 9)[1].endswith("…")
    assert wrapped("x" * 99)[0] == "x" * len(wrapped("x" * 99)[0])


@pytest.mark.parametrize("n_samples", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("n_images", [0, 1, 3, 7])
def test_any_number_of_images_of_any_shape(n_samples: int, n_images: int, tmp_path: Path) -> None:
    shapes = [(640, 480), (1, 1), (4000, 2), (2, 4000), (480, 640)]
    images: list[Image.Image | Absent] = [
        Image.new("RGB", shapes[i % 5], "red") if i < 6 else Absent("why " * 99, "p" * 500)
        for i in range(n_images)
    ]
    answers = [
        Answer("correct", "left"),
        Answer("incorrect", "right"),
        Answer("missing", "not yet"),
    ]
    sample = TileSample("Left or right?", images, "left", answers)
    tile = Tile("sides", "1", {"clip": 0.5}, ["a", "b\n" * 99, "c"], [sample] * n_samples)
    contact_sheet.write(Sheet("r", [tile] * 3, 3, ["note"]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width < 4000


def test_many_pairs_are_rendered_smaller(tmp_path: Path) -> None:
    sample = TileSample("?", [Image.new("RGB", (4, 3))], "left", [Answer("correct", "left")])
    tile = Tile("sides", "1", {}, ["a"], [sample] * 2)
    contact_sheet.write(Sheet("r", [tile] * 60, 60, []), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1224
