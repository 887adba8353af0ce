"""The report as a file and in a browser: scores, samples, filters, hostile answers, its size."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, write_sides
from filelock import FileLock
from helpers_browser import PHONE, data_of, launched, visit

from vlm_harness import evaluate
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.compare import compare
from vlm_harness.images import checksum, file_ref
from vlm_harness.report import comparison
from vlm_harness.report.page import Options
from vlm_harness.report.parts import MOST
from vlm_harness.report.report import write
from vlm_harness.report.thumbnails import CHANGED, NOT_THERE, Shown, make
from vlm_harness.types import Request

MODELS = ["tiny-clip", "tiny-llava"]
HOSTILE = {
    "script": "<script>document.title='owned'; alert(1)</script><img src=x onerror=alert(2)>",
    "long": "left" + " and so on" * 99_999 + " end.",
    "direction": "\u202eleft\u2066 שלום عليكم",
    "control": "left\x00\x1b[31m\x07\u2028\x85end",
    "breaking": "</script><!-- ${left} {{ left }} &lt;b&gt; \"'`",
    "half": "left \ud800",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A part of the demo's run, and its report; made once, however many workers there are."""
    top = tmp_path_factory.getbasetemp()
    folder = (top if worker_id == "master" else top.parent) / "demo of the report"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            tasks = ["whatsup_rendered_a_left_right", "whatsup_rendered_b_four_way"]
            new = folder.with_name("demo under way")
            run = evaluate(MODELS, tasks, limit=60, output_dir=str(new), run_id="demo")
            write([run.path], new / "demo.html", Options())
            comparison.write(compare(run.path), new / "compare.html", Options())
            new.rename(folder)
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


def run_toy(bench: Path, handler: Any, run_id: str = "r", **options: Any) -> Path:
    return evaluate(
        [FakeBackend(handler, "fake")],
        ["sides"],
        include_path=[str(bench / "specs")],
        data_dir=str(bench / "data"),
        output_dir=str(bench),
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


def test_images_get_smaller_and_then_fewer_to_fit(bench: Path) -> None:
    run = run_toy(bench, lambda request: "left")
    least = write([run], bench / "a.html", Options(image_size=0)).n_bytes / 1e6
    whole = write([run], bench / "b.html", Options())
    assert whole.n_images == 12
    assert whole.n_bytes == (bench / "b.html").stat().st_size
    for room in (0.021, 0.022, 0.023, 0.1):
        some = write([run], bench / "c.html", Options(max_size=least + room))
        assert some.n_bytes <= (least + room) * 1e6
        notes = [each.get("note") for each in data_of(bench / "c.html")["images"]]
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
    refs = {("", name): file_ref(tmp_path, name) for name in names}
    shown = [Shown(name, checksum(ref)) for (_, name), ref in refs.items()]
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
    # Of each sample and order, what the page has of both sides gives the counts of the command.
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
    assert "--html: the page is an HTML file" in tool(*arguments[:-1], "c.txt").err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("results", lambda r: r["results"][0].pop("metrics"), "there is no 'results.0.metrics'"),
        ("results", lambda r: r["results"][0].update(n_tied=None), "n_tied"),
        ("results", lambda r: r["results"][0].update(primary_metric="x"), "primary_metric 'x'"),
        ("results", lambda r: r["results"][0]["categories"].update(k0=None), "categories.k0"),
        ("results", lambda r: r.clear(), "there is no 'results'"),
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
def test_numbers_that_are_none(tool: Any, option: str, value: str) -> None:
    tool.run("--run-id", "r")
    assert tool("report", "results/r", option, value).code == 2


def test_other_images_and_labels_are_said(bench: Path) -> None:
    """Of a pair whose images are exchanged, each answer stands beside what it saw."""
    runs = [
        run_toy(bench, lambda request: "left", mode, images=mode)
        for mode in ("normal", "swapped", "none")
    ]
    written = write([*runs, runs[0] / ".." / "normal"], bench / "r.html", Options())
    assert any("Under images swapped" in note for note in written.notes)
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
    # Alone, the swapped run shows what was shown; its table says so.
    write([runs[1]], bench / "r.html", Options())
    (task,) = data_of(bench / "r.html")["tasks"]
    assert all("m" not in line for sample in task["samples"] for line in sample["lines"])
    assert "<td>swapped</td>" in (bench / "r.html").read_text()


def test_a_command_that_is_not_the_first_is_said(bench: Path) -> None:
    write([run_toy(bench, lambda request: "left")], bench / "r.html", Options(image_size=0))
    assert '<th scope="col">command</th>' not in (bench / "r.html").read_text()
    run = run_toy(bench, lambda request: "left", "short", command=["short"])
    write([run], bench / "r.html", Options(image_size=0))
    assert "<td>short</td>" in (bench / "r.html").read_text()


def test_rows_of_several_runs_are_told_apart(bench: Path) -> None:
    runs = [
        run_toy(bench, lambda request: "left", name, limit=n) for name, n in (("a", 4), ("b", 8))
    ]
    write(runs, bench / "r.html", Options())
    dots = data_of(bench / "r.html")["charts"]["scores"]["data"]
    assert [dot["label"] for dot in dots] == ["fake / a", "fake / b"]
    text = (bench / "r.html").read_text()
    assert "<td>a</td>" in text
    assert "limited to 4: not a complete run" in text


def test_incomplete_pairs_are_counted(bench: Path) -> None:
    run = run_toy(
        bench, lambda request: "left", samples=["thing0-left", "thing0-right", "thing1-left"]
    )
    written = write([run], bench / "r.html", Options())
    assert "1 of 2 pairs incomplete, not scored" in (bench / "r.html").read_text()
    assert "r was of 3 chosen samples alone." in written.notes


def test_of_many_categories_the_largest_are_shown(bench: Path) -> None:
    path = bench / "specs" / "sides.yaml"
    path.write_text(path.read_text().replace('category: "{{ kind }}"', 'category: "{{ name }}"'))
    write_sides(bench / "data", pairs=40)
    write([run_toy(bench, lambda request: "left")], bench / "r.html", Options(image_size=0))
    charts = data_of(bench / "r.html")["charts"]
    # No category has a whole pair: samples are scored.
    assert {dot["value"] for dot in charts["breakdown-0"]["data"]} == {0, 1}
    assert len(charts["breakdown-0"]["data"]) == MOST
    assert f"Of 80 the {MOST} with most samples." in (bench / "r.html").read_text()


def test_one_path_in_two_places_is_two_images(bench: Path) -> None:
    """Whose files are no longer there, or other ones, are not shown as another run's."""
    one = run_toy(bench, lambda request: "left", "one")
    (bench / "data").rename(bench / "moved")
    write_sides(bench / "data")
    two_data = bench / "two"
    write_sides(two_data)
    rows = two_data / "sides" / "rows.jsonl"
    rows.write_text(rows.read_text() + "\n")  # other data: a task of its own
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
    two_way = found.flips[0]
    gained = [each for each in two_way.samples if each.kind == "gained"]
    pairs = [each for each in two_way.groups if each.kind == "gained"]
    assert len(gained) > len(pairs) > 0
    with visit(browser, (demo.parent / "compare.html").as_uri()) as seen:
        assert seen.column("#flips table", 3)[:2] == [str(len(gained)), str(len(pairs))]
        seen.page.locator("#flips td a").nth(1).click()
        assert "show=all-gained" in seen.page.url
        assert seen.text("#count").startswith(f"{len(pairs)} of 30 pairs")
        assert {card.inner_text() for card in seen.page.locator("#cards h3").all()} <= {
            each.name for each in pairs
        }
        seen.page.locator("#flips td a").first.click()
        assert "show=gained" in seen.page.url
        assert seen.text("#count").startswith(f"{len({each.pair for each in gained})} of 30")
        assert seen.page.evaluate("scrollY") > 100
        marks = "found => found.map(c => [...c.querySelectorAll('.mark')].map(m => m.className))"
        for both in seen.page.locator("#cards .card").evaluate_all(marks):
            assert ("mark w", "mark r") in set(itertools.pairwise(both))
        assert seen.count('[data-chart="differences"] [data-mark="dot"] circle') >= 3
        assert seen.serious() == []
        seen.page.set_viewport_size(PHONE)
        assert seen.overflows() <= 0


def test_letters_are_said_with_what_they_stand_for(bench: Path, browser: Any) -> None:
    """In the second order A is another option: a card shows the first alone, asked as it was."""
    path = bench / "specs" / "sides.yaml"
    lettered = "generate: {extract: letter, max_new_tokens: 8, template: lettered}"
    old = "generate: {extract: keyword, max_new_tokens: 8}"
    path.write_text(path.read_text().replace(old, lettered))
    run = run_toy(bench, lambda request: "B", order="both")
    write([run], bench / "r.html", Options())
    log = [json.loads(t) for t in next((run / "samples").iterdir()).read_text().splitlines()]
    with visit(browser, (bench / "r.html").as_uri()) as seen:
        shown = seen.page.locator("#cards .member").all()
        assert len(shown) == 12
        for member in shown:
            name = str(member.locator("button").get_attribute("aria-label")).split()[-1]
            (line,) = (x for x in log if x["sample_id"] == name and x["order_index"] == 0)
            assert member.locator(".asked").inner_text() == line["prompt"]
            said = member.locator(".said").inner_text()
            chosen = line["shown"][line["order"].index(line["prediction"])]
            assert said == f"B → {chosen}"
            gold = line["shown"][line["order"].index(line["target"])]
            assert member.locator(".gold").inner_text() == f"Right answer: {gold}"
            mark = "r" if line["correct"] else "w"
            assert member.locator(".mark").get_attribute("class") == f"mark {mark}"


def test_a_nonsense_address_shows_what_it_can(bench: Path, browser: Any) -> None:
    write([run_toy(bench, lambda request: "left")], bench / "r.html", Options())
    address = (bench / "r.html").as_uri()
    nonsense = [
        "show=foo", "show=constructor", "show=__proto__", "show=gained", "show=differ", "who=99",
        "who=x", "page=1.5", "page=-3", "page=1e9", "category=none", "task=toString", "scores",
        "%E0%A4%A", "&&=&",
    ]  # fmt: skip
    with visit(browser, address) as seen:
        for hash in nonsense:
            seen.open(f"{address}#{hash}")
            assert seen.count("#cards .card") == 6, hash
        seen.open(f"{address}#sample=nobody")
        assert "there is no sample nobody" in seen.text("#count")


def test_the_way_back_and_links_within(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        seen.page.get_by_role("button", name="Next").click()
        seen.page.locator("#cards .open").first.click()
        seen.page.keyboard.press("Escape")
        seen.left("sample")
        assert "page=2" in seen.page.url
        seen.page.go_back()
        seen.left("page")
        assert seen.text("#count").endswith("page 1 of 2")
        seen.page.fill("input[name=q]", "left")
        seen.page.select_option("select[name=who]", "1")  # at once: the text must not be lost
        assert "q=left" in seen.page.url
        seen.page.get_by_role("link", name="Scores").click()
        assert "who=1" in seen.page.url  # filters are not thrown away
        assert seen.page.evaluate("scrollY") < 300
        seen.page.locator("#scores tbody a").last.click()
        seen.page.wait_for_timeout(100)
        assert seen.page.evaluate("scrollY") > 300
        assert "four_way" in seen.page.url


def test_a_card_shows_the_order_that_it_was_found_for(bench: Path, browser: Any) -> None:
    """Who says the first option is right in one order of each sample, and wrong in the other."""
    path = bench / "specs" / "sides.yaml"
    path.write_text(path.read_text().replace("  choice: {}", "  choice: {template: lettered}"))

    def first(request: Request) -> list[float]:
        return [float(n == request.order[0]) for n in range(2)]

    run = run_toy(bench, first, protocol=["choice"], order="both")
    write([run], bench / "r.html", Options())
    (task,) = data_of(bench / "r.html")["tasks"]
    for sample in task["samples"]:
        assert [line.get("i", 0) for line in sample["lines"]] == [0, 1]
        assert sorted(line["v"] for line in sample["lines"]) == ["r", "w"]
    # Of a pair one sample is right in either order: a pair is never right, and always in part.
    with visit(browser, (bench / "r.html").as_uri() + "#show=right") as seen:
        assert seen.count("#cards .card") == 0
    lone = bench / "specs" / "sides.yaml"
    lone.write_text(lone.read_text().replace('  pair: "{{ thing }}"\n', ""))
    run = run_toy(bench, first, "lone", protocol=["choice"], order="both")
    write([run], bench / "r.html", Options())
    with visit(browser, (bench / "r.html").as_uri() + "#show=right") as seen:
        assert seen.count("#cards .card") == 12
        assert seen.count("#cards .mark.r") == 12
        assert seen.count("#cards .mark.w") == 0
        assert seen.page.locator("#cards .card header", has_text="order 2").count() == 6
        seen.page.locator("#cards .open").first.click()
        titles = seen.page.locator("dialog .answer h3").all_inner_texts()
        assert [title[-9:] for title in titles] == ["(order 1)", "(order 2)"]


def test_while_the_file_is_read_no_image_is_taken_in_part(demo: Path, browser: Any) -> None:
    """Over a slow line an element of images is there before its end is."""
    whole = demo.read_bytes()
    at = whole.index(b'class="images"') + 200_000
    reached = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(whole[:at])
            self.wfile.flush()
            reached.wait(20)
            self.wfile.write(whole[at:])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        page = browser.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.goto(address, wait_until="commit")
        page.wait_for_selector("html[data-ready]")
        assert page.locator("#cards .card").count() == 24
        reached.set()
        page.wait_for_load_state()
        script = "all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth, () => 0)))"
        widths = page.locator("#cards img").evaluate_all(script)
        server.shutdown()
        page.close()
    assert min(widths) > 30
    assert errors == []


def test_what_is_shown_stays_while_a_sample_is_open(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        third = seen.page.locator("#cards .open").nth(2)
        name = third.get_attribute("aria-label")
        third.press("Enter")
        seen.page.locator("dialog .other").first.press("Enter")  # the pair's other image
        inside = "document.querySelector('dialog').contains(document.activeElement)"
        assert seen.page.evaluate(inside)
        seen.page.keyboard.press("Escape")
        seen.left("sample")
        assert seen.page.evaluate("document.activeElement.getAttribute('aria-label')") == name
        # A selection that ends beside the dialog does not close it; a click there does.
        third.press("Enter")
        box = seen.page.locator("dialog h2").bounding_box()
        assert box is not None
        seen.page.mouse.move(box["x"] + 10, box["y"] + 5)
        seen.page.mouse.down()
        seen.page.mouse.move(5, 400)
        seen.page.mouse.up()
        assert seen.page.locator("dialog#sample").is_visible()
        seen.page.mouse.click(5, 400)
        seen.left("sample")
        # What is typed just before is not lost.
        seen.page.fill("input[name=q]", "left")
        third.click()
        seen.page.keyboard.press("Escape")
        seen.left("sample")
        assert seen.page.input_value("input[name=q]") == "left"
        # An unknown sample is forgotten with the next choice.
        seen.open(f"{demo.as_uri()}#sample=nobody")
        seen.page.get_by_role("button", name="Reset").click()
        seen.left("sample")
        assert "nobody" not in seen.text("#count")


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
        second = seen.text("dialog#sample h2")
        seen.page.keyboard.press("Enter")  # the focus is where it was
        assert len({title, second, seen.text("dialog#sample h2")}) == 3


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_text(bench: Path, browser: Any, name: str) -> None:
    def answer(request: Request) -> str:
        assert request.sample is not None
        return HOSTILE[name] if request.sample.id == "thing0-left" else "left"

    run = run_toy(bench, answer)
    written = write([run], bench / "r.html", Options())
    assert written.n_bytes < 2_000_000
    with visit(browser, (bench / "r.html").as_uri()) as seen:
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
            assert "the first 20,000 of 999,999 characters" in seen.text("dialog#sample")
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
