"""The report and the comparison as files: their content. Fixtures: helpers/pages.py."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import write_sides
from helpers.browser import data_of
from helpers.pages import run_toy
from vlm_harness import evaluate
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.images import checksum, file_ref
from vlm_harness.report.page import Options
from vlm_harness.report.parts import MOST
from vlm_harness.report.report import write
from vlm_harness.report.thumbnails import CHANGED, NOT_THERE, Shown, make
from vlm_harness.specs.schemas import UNVERIFIED

# --- what is in the file --------------------------------------------------------------------------


def test_a_page_is_self_contained_and_makes_no_requests(demo: Path) -> None:
    text = demo.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe-eval" not in policy[1]
    assert not re.search(r"<(script|link|img|iframe)[^>]* (src|href)=", text)


def test_the_data_match_the_log(demo: Path) -> None:
    data = data_of(demo)
    log = demo.parent / "demo" / "samples"
    by_task = {task["name"]: task for task in data["tasks"]}
    for path in sorted(log.iterdir()):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            task = by_task[line["task"]]
            sample = next(each for each in task["samples"] if each["id"] == line["sample_id"])
            assert sample["options"] == line["options"]
            assert [data["images"][n]["path"] for n in sample["images"]] == [
                image["path"] for image in line["images"]
            ]
            answers = [
                each for each in sample["lines"] if task["answerers"][each["a"]] == line["model"]
            ]
            assert len(answers) == 1
            assert answers[0]["p"] == line["prediction"]
            assert (answers[0]["v"] == "r") == line["correct"]
            assert answers[0].get("t") == line["response"].get("text")
            if line["prompt"]:
                assert task["prompts"][answers[0]["q"]] == line["prompt"]
            else:
                assert task["candidates"][answers[0]["c"]] == line["candidates"]


def test_groups_have_all_their_members(demo: Path) -> None:
    two_way, four_way = data_of(demo)["tasks"]
    assert {(g["kind"], len(g["members"])) for g in two_way["groups"]} == {("pair", 2)}
    assert {(g["kind"], len(g["members"])) for g in four_way["groups"]} == {("set", 4)}


def test_images_are_scaled_down_then_left_out_to_fit(bench: Path) -> None:
    run = run_toy(bench, lambda request: "left")
    least = write([run], bench / "a.html", Options(image_size=0)).n_bytes / 1e6
    full = write([run], bench / "b.html", Options())
    assert full.n_images == 12
    assert full.n_bytes == (bench / "b.html").stat().st_size
    for room in (0.021, 0.022, 0.023, 0.1):
        some = write([run], bench / "c.html", Options(max_size=least + room))
        assert some.n_bytes <= (least + room) * 1e6
        notes = [each.get("note") for each in data_of(bench / "c.html")["images"]]
        assert sum(note is None for note in notes) == some.n_images
    assert some.n_images == 12


def test_a_page_that_cannot_fit_is_refused(tool: Any) -> None:
    tool.run("--run-id", "r")
    code, out, err = tool("report", "results/r", "--max-size", "0.2")
    assert (code, out) == (2, "")
    assert "without images; the limit is 0.2 MB" in err
    assert not (tool.bench / "results/r/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: not a run folder: it has no manifest.json"),
        (["results/r", "--output", "x.pdf"], "--output: expected a .html file, got x.pdf"),
        (["results/r", "--task", "sidse"], "no run has the task 'sidse'; did you mean 'sides'?"),
        (["results/r", "--output", "no/such/x.html"], "cannot be written"),
        (["results/r", "--encoder", "nothing"], "--encoder"),
    ],
)
def test_refusals(tool: Any, arguments: list[str], message: str) -> None:
    tool.run("--run-id", "r")
    code, out, err = tool("report", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_missing_and_changed_images_are_noted(tmp_path: Path) -> None:
    folder = write_sides(tmp_path) / "sides"
    names = [f"sides/thing{number}-left.png" for number in range(4)]
    refs = {("", name): file_ref(tmp_path, name) for name in names}
    shown = [Shown(name, checksum(ref)) for (_, name), ref in refs.items()]
    (folder / "thing1-left.png").unlink()
    (folder / "thing2-left.png").write_bytes((folder / "thing3-left.png").read_bytes())
    (folder / "thing3-left.png").write_bytes(b"none")
    found = make([*shown, Shown(names[3], None)], refs, 10**6)
    assert found.entries[0] == {"path": names[0], "number": 0}
    notes = [entry["note"] for entry in found.entries[1:]]
    assert notes[:3] == [NOT_THERE, CHANGED, CHANGED]
    assert "the file is not an image" in str(notes[3])


def test_without_its_data_a_run_is_shown_without_images(tool: Any) -> None:
    tool.run("--run-id", "r")
    (tool.bench / "data").rename(tool.bench / "elsewhere")
    code, out, err = tool("report", "results/r")
    assert code == 0
    assert "no images" in out
    assert "sides: shown without images: " in err
    moved = tool("report", "results/r", "--data-dir", "elsewhere")
    assert (moved.code, moved.err) == (0, "")
    assert "12 images" in moved.out


def test_a_run_that_is_not_finished_is_reported_as_such(tool: Any) -> None:
    tool.run("--run-id", "r")
    manifest = tool.bench / "results/r/manifest.json"
    found = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**found, "finished": None}))
    (tool.bench / "results/r/results.json").unlink()
    log = next((tool.bench / "results/r/samples").iterdir())
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:5]))
    code, out, err = tool("report", "results/r")
    assert code == 0
    assert "r is not finished: scores cover the answers so far." in err
    assert "5 samples" in out
    log.write_text("")
    assert "no samples are answered yet" in tool("report", "results/r").err


def test_several_runs_in_one_report(tool: Any) -> None:
    """Runs of the same task share it; a changed task appears once per run."""
    tool.run("--run-id", "a")
    tool.run("--run-id", "b", "--model", "fake:first")
    assert tool("report", "results/a", "results/b", "--output", "both.html").code == 0
    (task,) = data_of(tool.bench / "both.html")["tasks"]
    assert task["answerers"] == ["oracle", "first"]
    path = tool.bench / "specs" / "sides.yaml"
    path.write_text(path.read_text().replace("version: 1", "version: 2"))
    tool.run("--run-id", "c")
    assert tool("report", "results/a", "results/c", "--output", "both.html").code == 0
    assert [task["name"] for task in data_of(tool.bench / "both.html")["tasks"]] == [
        "sides",
        "sides [c]",
    ]


def test_a_comparison_as_a_page(tool: Any) -> None:
    """The flips that the page shows are those that the command counts."""
    tool.run("--run-id", "a", "--protocol", "choice", "--order", "both")
    tool.run("--run-id", "b", "--model", "fake:first", "--protocol", "choice", "--order", "both")
    arguments = ("compare", "results/a", "results/b", "--html", "c.html")
    code, out, err = tool(*arguments, "--json")
    assert code == 0
    assert "c.html (" in err  # standard output has only JSON
    counts = json.loads(out)["flips"]
    assert "c.html (" in tool(*arguments).out
    data = data_of(tool.bench / "c.html")
    assert data["comparison"]
    (task,) = data["tasks"]
    assert task["answerers"] == ["A: oracle", "B: first"]
    lines = [line for sample in task["samples"] for line in sample["lines"]]
    assert sum(line["a"] == 0 for line in lines) == sum(line["a"] == 1 for line in lines) == 24
    # The answers on the page give the same counts as the command, per sample and order.
    lost = [
        sample["id"]
        for sample in task["samples"]
        for order in (0, 1)
        for a, b in [[x for x in sample["lines"] if x.get("i", 0) == order]]
        if a["v"] == "r" and b["v"] != "r"
    ]
    (found,) = counts
    assert lost == sorted(each["sample_id"] for each in found["samples"] if each["kind"] == "lost")
    assert len(lost) == 12
    assert "--html: expected a .html file, got c.txt" in tool(*arguments[:-1], "c.txt").err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("results", lambda r: r["results"][0].pop("metrics"), "'results.0.metrics' is missing"),
        ("results", lambda r: r["results"][0].update(n_tied=None), "n_tied"),
        ("results", lambda r: r["results"][0].update(primary_metric="x"), "primary_metric 'x'"),
        ("results", lambda r: r["results"][0]["categories"].update(k0=None), "categories.k0"),
        ("results", lambda r: r.clear(), "'results' is missing"),
        ("manifest", lambda m: m.update(environment=None), "environment"),
        ("manifest", lambda m: m["environment"].update(gpus=None), "environment.gpus"),
        ("manifest", lambda m: m["models"]["oracle"].update(parameters="x"), "parameters"),
    ],
)
def test_damaged_runs_are_refused(tool: Any, name: str, change: Any, message: str) -> None:
    tool.run("--run-id", "r")
    path = tool.bench / "results" / "r" / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    code, out, err = tool("report", "results/r")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["--max-size", "--threshold"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x"])
def test_invalid_numbers_are_refused(tool: Any, option: str, value: str) -> None:
    tool.run("--run-id", "r")
    assert tool("report", "results/r", option, value).code == 2


def test_other_image_modes_are_noted(bench: Path) -> None:
    """With swapped images, each answer is shown with the image that the model saw."""
    runs = [
        run_toy(bench, lambda request: "left", mode, images=mode)
        for mode in ("normal", "swapped", "none")
    ]
    written = write([*runs, runs[0] / ".." / "normal"], bench / "r.html", Options())
    assert any("Images swapped" in note for note in written.notes)
    assert any("no image was shown" in note for note in written.notes)
    data = data_of(bench / "r.html")
    (task,) = data["tasks"]
    assert task["answerers"] == [f"fake / images {m}" for m in ("normal", "swapped", "none")]
    paths = [each["path"] for each in data["images"]]
    for sample in task["samples"]:
        normal, swapped, none = sample["lines"]
        assert [paths[n] for n in sample["images"]] == [f"sides/{sample['id']}.png"]
        assert "m" not in normal
        other = {"left": "right", "right": "left"}[sample["id"].split("-")[1]]
        assert [paths[n] for n in swapped["m"]] == [f"sides/{sample['pair']}-{other}.png"]
        assert none["m"] == []
    # On its own, the swapped run shows the images that the model saw; its table says so.
    write([runs[1]], bench / "r.html", Options())
    (task,) = data_of(bench / "r.html")["tasks"]
    assert all("m" not in line for sample in task["samples"] for line in sample["lines"])
    assert "<td>swapped</td>" in (bench / "r.html").read_text()


def test_a_command_other_than_the_first_is_shown(bench: Path) -> None:
    write([run_toy(bench, lambda request: "left")], bench / "r.html", Options(image_size=0))
    assert '<th scope="col">command</th>' not in (bench / "r.html").read_text()
    run = run_toy(bench, lambda request: "left", "short", command=["short"])
    write([run], bench / "r.html", Options(image_size=0))
    assert "<td>short</td>" in (bench / "r.html").read_text()


def test_rows_of_several_runs_are_labelled(bench: Path) -> None:
    runs = [
        run_toy(bench, lambda request: "left", name, limit=n) for name, n in (("a", 4), ("b", 8))
    ]
    write(runs, bench / "r.html", Options())
    dots = data_of(bench / "r.html")["charts"]["scores"]["data"]
    assert [dot["label"] for dot in dots] == ["fake / a", "fake / b"]
    text = (bench / "r.html").read_text()
    assert "<td>a</td>" in text
    assert "partial run: --limit 4" in text


def test_unverified_models_are_marked(tool: Any) -> None:
    """Models are verified unless their spec in the manifest says otherwise."""
    tool.run("--run-id", "r", "--model", "fake:oracle,fake:first")
    path = tool.bench / "results" / "r" / "manifest.json"
    manifest = json.loads(path.read_text())
    page = tool.bench / "results" / "r" / "report.html"
    mark = f'<abbr class="unverified" title="{UNVERIFIED}">unverified</abbr>'
    assert UNVERIFIED == "this checkpoint has not been run by the project"
    for verified in (True, None):
        if verified is None:  # a manifest of a version without the key
            manifest["identity"]["models"]["first"].pop("verified")
        path.write_text(json.dumps(manifest))
        assert tool("report", "results/r").code == 0
        assert "<abbr class=" not in page.read_text()
        assert UNVERIFIED not in page.read_text()
    manifest["identity"]["models"]["first"]["verified"] = False
    path.write_text(json.dumps(manifest))
    assert tool("report", "results/r").code == 0
    text = page.read_text()
    assert f'<th scope="row">first {mark}</th>' in text
    assert '<th scope="row">oracle</th>' in text
    assert f"<dt>first {mark}</dt>" in text
    assert "<dt>oracle</dt>" in text
    assert f"Unverified: {UNVERIFIED}.</span>" in text
    arguments = ("--model-a", "oracle", "--model-b", "first", "--html", "c.html")
    assert tool("compare", "results/r", "results/r", *arguments).code == 0
    assert f"<dt>first {mark}</dt>" in (tool.bench / "c.html").read_text()


def test_incomplete_pairs_are_counted(bench: Path) -> None:
    run = run_toy(
        bench, lambda request: "left", samples=["thing0-left", "thing0-right", "thing1-left"]
    )
    written = write([run], bench / "r.html", Options())
    assert "1 of 2 pairs incomplete (not scored)" in (bench / "r.html").read_text()
    assert "r covers only 3 selected samples (--samples)." in written.notes


def test_only_the_largest_of_many_categories_are_shown(bench: Path) -> None:
    path = bench / "specs" / "sides.yaml"
    path.write_text(path.read_text().replace('category: "{{ kind }}"', 'category: "{{ name }}"'))
    write_sides(bench / "data", pairs=40)
    write([run_toy(bench, lambda request: "left")], bench / "r.html", Options(image_size=0))
    charts = data_of(bench / "r.html")["charts"]
    # No category has a complete pair, so samples are scored.
    assert {dot["value"] for dot in charts["breakdown-0"]["data"]} == {0, 1}
    assert len(charts["breakdown-0"]["data"]) == MOST
    assert (
        f"Shown: the {MOST} of 80 values with the most samples." in (bench / "r.html").read_text()
    )


def test_the_same_path_in_two_folders_is_two_images(bench: Path) -> None:
    """A missing or changed image of one run is not replaced by that of another run."""
    one = run_toy(bench, lambda request: "left", "one")
    (bench / "data").rename(bench / "moved")
    write_sides(bench / "data")
    two_data = bench / "two"
    write_sides(two_data)
    rows = two_data / "sides" / "rows.jsonl"
    rows.write_text(rows.read_text() + "\n")  # different data make a different task
    image = two_data / "sides" / "thing0-left.png"
    image.write_bytes((two_data / "sides" / "thing1-left.png").read_bytes())
    two = evaluate(
        [FakeBackend(lambda request: "left", "fake")],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(two_data),
        output_dir=str(bench),
        run_id="two",
        protocol=["generate"],
    ).path
    write([one, two], bench / "r.html", Options())
    data = data_of(bench / "r.html")
    assert [task["name"] for task in data["tasks"]] == ["sides", "sides [two]"]
    numbers = [task["samples"][0]["images"] for task in data["tasks"]]
    assert numbers[0] != numbers[1]
