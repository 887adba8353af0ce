"""The report as a file and in a browser: scores, samples, filters, hostile answers, its size."""

import base64
import gzip
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, write_sides
from helpers_browser import PHONE, launched, visit

from vlm_harness import evaluate
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.compare import compare
from vlm_harness.images import checksum, file_ref
from vlm_harness.report import comparison
from vlm_harness.report.report import Options, write
from vlm_harness.report.thumbnails import CHANGED, NOT_THERE, Shown, make

HOSTILE = {
    "script": "<script>document.title='owned'; alert(1)</script><img src=x onerror=alert(2)>",
    "long": "left " * 200_000,
    "direction": "\u202eleft\u2066 שלום عليكم",
    "control": "left\x00\x1b[31m\x07\u2028\x85end",
    "breaking": "</script><!-- ${left} {{ left }} &lt;b&gt; \"'`",
    "half": "left \ud800",
}


def data_of(path: Path) -> Any:
    """What the page's scripts get."""
    found = re.search(r'id="data">([^<]*)<', path.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the demo's run, and its report."""
    folder = tmp_path_factory.mktemp("demo")
    tasks = ["whatsup_rendered_a_left_right", "whatsup_rendered_b_four_way"]
    run = evaluate(
        ["tiny-clip", "tiny-llava"],
        tasks,
        limit=60,
        output_dir=str(folder),
        run_id="demo",
    )
    write([run.path], folder / "demo.html", Options())
    return folder / "demo.html"


@pytest.fixture(scope="module")
def mmvp(tmp_path_factory: pytest.TempPathFactory, realdata: Path) -> Path:
    """MMVP's real photographs, asked by letters in both orders."""
    folder = tmp_path_factory.mktemp("mmvp")
    run = evaluate(
        ["tiny-llava"],
        ["mmvp"],
        protocol=["choice"],
        order="both",
        limit=60,
        data_dir=str(realdata),
        output_dir=str(folder),
        run_id="mmvp",
    )
    write([run.path], folder / "mmvp.html", Options())
    return folder / "mmvp.html"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Specs and data of a toy benchmark whose answers are hostile."""
    from conftest import TASK

    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "sides.yaml").write_text(TASK)
    write_sides(tmp_path / "data")
    return tmp_path


def run_toy(toy: Path, handler: Any, run_id: str = "r", **options: Any) -> Path:
    return evaluate(
        [FakeBackend(handler, "fake")],
        ["sides"],
        include_path=[str(toy / "specs")],
        data_dir=str(toy / "data"),
        output_dir=str(toy),
        run_id=run_id,
        **{"protocol": ["generate"], **options},
    ).path


# --- what is in the file --------------------------------------------------------------------------


def test_a_page_carries_all_it_needs_and_may_ask_for_nothing(demo: Path) -> None:
    text = demo.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe-eval" not in policy[1]
    assert not re.search(r"<(script|link|img|iframe)[^>]* (src|href)=", text)


def test_the_data_are_those_of_the_log(demo: Path) -> None:
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


def test_groups_hold_their_members_together(demo: Path) -> None:
    two_way, four_way = data_of(demo)["tasks"]
    assert {(g["kind"], len(g["members"])) for g in two_way["groups"]} == {("pair", 2)}
    assert {(g["kind"], len(g["members"])) for g in four_way["groups"]} == {("set", 4)}


def test_images_get_smaller_and_then_fewer_to_fit(toy: Path) -> None:
    run = run_toy(toy, lambda request: "left")
    least = write([run], toy / "a.html", Options(image_size=0)).n_bytes / 1e6
    whole = write([run], toy / "b.html", Options())
    assert whole.n_images == 12
    assert whole.n_bytes == (toy / "b.html").stat().st_size
    for room in (0.021, 0.022, 0.023, 0.1):
        some = write([run], toy / "c.html", Options(max_size=least + room))
        assert some.n_bytes <= (least + room) * 1e6
        notes = [each.get("note") for each in data_of(toy / "c.html")["images"]]
        assert sum(note is None for note in notes) == some.n_images
    assert some.n_images == 12


def test_what_does_not_fit_at_all_is_refused(tool: Any) -> None:
    tool.run("--run-id", "r")
    code, out, err = tool("report", "results/r", "--max-size", "0.2")
    assert (code, out) == (2, "")
    assert "without any image, and may take 0.2 MB" in err
    assert not (tool.bench / "results/r/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no manifest.json"),
        (["results/r", "--output", "x.pdf"], "--output: the page is an HTML file"),
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


def test_images_that_are_gone_or_changed_are_said(tmp_path: Path) -> None:
    folder = write_sides(tmp_path) / "sides"
    names = [f"sides/thing{number}-left.png" for number in range(4)]
    refs = {name: file_ref(tmp_path, name) for name in names}
    shown = [Shown(name, checksum(ref)) for name, ref in refs.items()]
    (folder / "thing1-left.png").unlink()
    (folder / "thing2-left.png").write_bytes((folder / "thing3-left.png").read_bytes())
    (folder / "thing3-left.png").write_bytes(b"none")
    found = make([*shown, Shown(names[3], None)], refs, 10**6)
    assert found.entries[0] == {"path": names[0], "number": 0}
    notes = [entry["note"] for entry in found.entries[1:]]
    assert notes[:3] == [NOT_THERE, CHANGED, CHANGED]
    assert "the file is no image" in str(notes[3])


def test_without_its_data_a_run_is_shown_without_images(tool: Any) -> None:
    tool.run("--run-id", "r")
    (tool.bench / "data").rename(tool.bench / "elsewhere")
    code, out, err = tool("report", "results/r")
    assert code == 0
    assert "no images" in out
    assert "sides: shown without images, since" in err
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
    assert "r is not finished: scores are of what is answered so far." in err
    assert "5 samples" in out
    log.write_text("")
    assert "nothing is answered yet" in tool("report", "results/r").err


def test_several_runs_stand_side_by_side(tool: Any) -> None:
    """Runs of one task share it; of a task that was changed, each run has its own."""
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
    assert "c.html (" in err  # what is printed is JSON alone
    counts = json.loads(out)["flips"]
    assert "c.html (" in tool(*arguments).out
    data = data_of(tool.bench / "c.html")
    assert data["comparison"]
    (task,) = data["tasks"]
    assert task["answerers"] == ["A: oracle", "B: first"]
    lines = [line for sample in task["samples"] for line in sample["lines"]]
    assert sum(line["a"] == 0 for line in lines) == sum(line["a"] == 1 for line in lines) == 24
    right = [sum(line["v"] == "r" for line in lines if line["a"] == side) for side in (0, 1)]
    assert right == [24, 12]
    assert counts
    assert "--html: the page is an HTML file" in tool(*arguments[:-1], "c.txt").err


# --- in a browser ---------------------------------------------------------------------------------


def test_sort_search_filter_and_open(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        table = "#scores table"
        before = seen.column(table, 1)
        seen.sort(table, "model", "ascending")
        assert seen.column(table, 1) == sorted(before)
        seen.sort(table, "model", "descending")
        assert seen.column(table, 1) == sorted(before, reverse=True)
        seen.sort(table, "pair", "descending")  # numbers: the best first
        values = [float(text.split()[0]) for text in seen.column(table, 5)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]

        assert seen.text("#count") == "30 of 30 pairs, page 1 of 2"
        assert seen.count("#cards .card") == 24
        seen.page.get_by_role("button", name="Next").click()
        assert seen.count("#cards .card") == 6
        assert "page=2" in seen.page.url

        seen.page.select_option("select[name=who]", label="tiny-clip")
        seen.page.select_option("select[name=show]", label="some of a group right")
        n_part = int(seen.text("#count").split()[0])
        assert 0 < n_part < 30
        for card in seen.page.locator("#cards .card").all():
            marks = [mark.get_attribute("class") for mark in card.locator(".mark").all()]
            assert sorted(set(marks)) == ["mark r", "mark w"]

        seen.page.get_by_role("button", name="Reset").click()
        key = seen.text("#cards .card h3")
        seen.page.fill("input[name=q]", key)
        seen.page.locator("#count", has_text=re.compile("^1 of 30")).wait_for()
        seen.page.locator("#cards .open").first.click()
        assert seen.page.locator("dialog#sample").is_visible()
        assert "Right answer" not in seen.text("dialog#sample h2")
        assert "similarity" not in seen.text("dialog#sample h2")
        assert seen.count("dialog#sample .answer") == 2
        address = seen.page.url
        assert "sample=" in address
        seen.page.keyboard.press("Escape")
        assert not seen.page.locator("dialog#sample").is_visible()
        seen.left("sample")
    with visit(browser, address) as again:
        assert again.page.locator("dialog#sample").is_visible()


def test_flips_are_found(demo: Path, browser: Any) -> None:
    found = compare(demo.parent / "demo")
    comparison.write(found, demo.parent / "compare.html", Options())
    gained = sum(each.kind == "gained" for each in found.flips[0].samples)
    assert gained
    with visit(browser, (demo.parent / "compare.html").as_uri()) as seen:
        assert seen.column("#flips table", 3)[0] == str(gained)
        seen.page.locator("#flips td a").first.click()
        assert "show=gained" in seen.page.url
        for card in seen.page.locator("#cards .card").all():
            both = [mark.get_attribute("class") for mark in card.locator(".mark").all()]
            assert ("mark w", "mark r") in set(itertools.pairwise(both))
        assert seen.count('[data-chart="differences"] [data-mark="dot"] circle') >= 3
        assert seen.serious() == []
        seen.page.set_viewport_size(PHONE)
        assert seen.overflows() <= 0


def test_images_are_shown(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        widths = seen.widths("#cards img")
        assert len(widths) == 48
        assert min(widths) > 30
        assert seen.page.locator("#cards img").first.get_attribute("alt")


def test_charts_are_drawn(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        assert seen.count('[data-chart="scores"] svg [data-mark="dot"] circle') == 4
        seen.page.locator("#agreement").scroll_into_view_if_needed()
        seen.page.wait_for_selector('[data-chart="agreement-0"] svg [data-mark="rect"] rect')


def test_photographs_and_calibration(mmvp: Path, browser: Any) -> None:
    with visit(browser, mmvp.as_uri()) as seen:
        seen.page.locator("#calibration").scroll_into_view_if_needed()
        seen.page.wait_for_selector('[data-chart="calibration"] svg circle')
        assert set(seen.widths("#cards img")) == {224}
        seen.page.locator("#cards .open").first.click()
        # Both orders, each with the probability of its options.
        assert seen.count("dialog#sample .answer") == 2
        shares = re.findall(r"([\d.]+)%", seen.text("dialog#sample .answer"))
        assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_in_the_way_of_anybody(demo: Path, browser: Any, scheme: str) -> None:
    """axe-core, in both themes, with a sample closed and open; on a phone too."""
    with visit(browser, demo.as_uri(), color_scheme=scheme) as seen:
        assert seen.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert seen.serious() == []
        seen.page.locator("#cards .open").first.click()
        assert seen.serious() == []
        seen.page.keyboard.press("Escape")
        seen.page.set_viewport_size(PHONE)
        seen.page.wait_for_timeout(300)
        assert seen.overflows() <= 0
        assert seen.serious() == []


def test_the_theme_can_be_chosen(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri(), color_scheme="light") as seen:
        ground = "getComputedStyle(document.body).backgroundColor"
        before = seen.page.evaluate(ground)
        seen.page.get_by_role("button", name="Dark").press("Enter")
        assert seen.page.evaluate(ground) != before
        assert seen.page.locator("#theme").get_attribute("aria-pressed") == "true"


def test_by_keyboard_alone(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        seen.page.keyboard.press("Tab")
        assert "Skip" in seen.page.evaluate("document.activeElement.textContent")
        seen.page.locator("#scores thead th [role=button]").first.press("Enter")
        seen.page.wait_for_selector("#scores thead th[aria-sort=ascending]")
        seen.page.locator("#cards .open").first.press("Enter")
        assert seen.page.locator("dialog#sample").is_visible()
        title = seen.text("dialog#sample h2")
        seen.page.get_by_role("button", name="Next").last.press("Enter")
        assert seen.text("dialog#sample h2") != title


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_text(toy: Path, browser: Any, name: str) -> None:
    run = run_toy(toy, lambda request: HOSTILE[name])
    written = write([run], toy / "r.html", Options())
    assert written.n_bytes < 2_000_000
    with visit(browser, (toy / "r.html").as_uri()) as seen:
        assert seen.page.title() == "r"
        assert seen.count("#cards .card") == 6
        assert seen.count("#cards script, #cards img[src='x']") == 0
        seen.page.locator("#cards .open").first.click()
        shown = seen.page.locator("dialog#sample .answer pre").last.inner_text()
        assert (
            shown
            == {
                "script": HOSTILE["script"],
                "long": HOSTILE["long"][:20_000],
                "direction": r"\u202eleft\u2066 שלום عليكم",
                "control": r"left\x00\x1b[31m\x07\u2028\x85end",
                "breaking": HOSTILE["breaking"],
                "half": r"left \ud800",
            }[name]
        )
        if name == "long":
            assert "the first 20,000 of 1,000,000 characters" in seen.text("dialog#sample")
        seen.page.keyboard.press("Escape")
        seen.page.set_viewport_size(PHONE)
        assert seen.overflows() <= 0


def test_hostile_names_are_text(tmp_path: Path, command: Command, browser: Any) -> None:
    """Ids, options, categories and file names come from data, and can be anything."""
    from conftest import TASK

    bad = "<b onclick=alert(1)>\u202e&amp;\"'"
    (tmp_path / "specs").mkdir()
    task = TASK.replace('id: "{{ name }}"', 'id: "{{ name }}{{ bad }}"')
    task = task.replace('category: "{{ kind }}"', 'category: "{{ bad }}"')
    (tmp_path / "specs" / "sides.yaml").write_text(task)
    write_sides(tmp_path / "data")
    rows = tmp_path / "data/sides/rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({**json.loads(row), "bad": bad}) + "\n"
            for row in rows.read_text().splitlines()
        )
    )
    run = run_toy(tmp_path, lambda request: f"left {bad}")
    write([run], tmp_path / "r.html", Options())
    with visit(browser, (tmp_path / "r.html").as_uri()) as seen:
        seen.page.locator("#cards .open").first.click()
        assert "<b onclick=alert(1)>\\u202e&amp;\"'" in seen.text("dialog#sample h2")
        assert seen.count("main b, dialog b") == 0
        assert seen.serious() == []
