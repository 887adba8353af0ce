"""The report and the comparison in a browser. Fixtures: helpers/pages.py."""

import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Command, write_sides
from helpers.browser import PHONE, data_of, visit
from helpers.pages import run_toy
from vlm_harness import evaluate
from vlm_harness.analysis.compare import compare
from vlm_harness.leaderboard.entry import load_entries
from vlm_harness.leaderboard.site import build
from vlm_harness.leaderboard.submit import submit
from vlm_harness.published.rows import published_rows
from vlm_harness.report import comparison
from vlm_harness.report.page import Options
from vlm_harness.report.report import write
from vlm_harness.specs.registry import Registry
from vlm_harness.types import Request

HOSTILE = {
    "script": "<script>document.title='owned'; alert(1)</script><img src=x onerror=alert(2)>",
    "long": "left" + " and so on" * 99_999 + " end.",
    "direction": "\u202eleft\u2066 שלום عليكم",
    "control": "left\x00\x1b[31m\x07\u2028\x85end",
    "breaking": "</script><!-- ${left} {{ left }} &lt;b&gt; \"'`",
    "half": "left \ud800",
}


def test_sort_search_filter_and_open(demo: Path, browser: Any) -> None:
    with visit(browser, demo.as_uri()) as seen:
        table = "#scores table"
        before = seen.column(table, 1)
        seen.sort(table, "model", "ascending")
        assert seen.column(table, 1) == sorted(before)
        seen.sort(table, "model", "descending")
        assert seen.column(table, 1) == sorted(before, reverse=True)
        seen.sort(table, "pair", "descending")  # numbers: best first
        values = [float(text.split()[0]) for text in seen.column(table, 5)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]

        assert seen.text("#count") == "30 of 30 pairs, page 1 of 2"
        assert seen.count("#cards .card") == 24
        seen.page.get_by_role("button", name="Next").click()
        assert seen.count("#cards .card") == 6
        assert "page=2" in seen.page.url

        seen.page.select_option("select[name=who]", label="tiny-clip")
        seen.page.select_option("select[name=show]", label="in the group: some correct")
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
        assert "Correct answer" not in seen.text("dialog#sample h2")
        assert "similarity" not in seen.text("dialog#sample h2")
        assert seen.count("dialog#sample .answer") == 2
        url = seen.page.url
        assert "sample=" in url
        seen.page.keyboard.press("Escape")
        assert not seen.page.locator("dialog#sample").is_visible()
        seen.left("sample")
    with visit(browser, url) as again:
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


def test_letters_are_shown_with_their_options(bench: Path, browser: Any) -> None:
    """A is a different option in the second order; a card shows only the first order."""
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
            assert member.locator(".prompt").inner_text() == line["prompt"]
            shown_answer = member.locator(".response").inner_text()
            chosen = line["shown"][line["order"].index(line["prediction"])]
            assert shown_answer == f"B → {chosen}"
            target = line["shown"][line["order"].index(line["target"])]
            assert member.locator(".target").inner_text() == f"Correct answer: {target}"
            mark = "r" if line["correct"] else "w"
            assert member.locator(".mark").get_attribute("class") == f"mark {mark}"


@pytest.mark.slow
def test_invalid_url_settings_are_ignored(bench: Path, browser: Any) -> None:
    write([run_toy(bench, lambda request: "left")], bench / "r.html", Options())
    url = (bench / "r.html").as_uri()
    nonsense = [
        "show=foo", "show=constructor", "show=__proto__", "show=gained", "show=differ", "who=99",
        "who=x", "page=1.5", "page=-3", "page=1e9", "category=none", "task=toString", "scores",
        "%E0%A4%A", "&&=&",
    ]  # fmt: skip
    with visit(browser, url) as seen:
        for hash in nonsense:
            seen.open(f"{url}#{hash}")
            assert seen.count("#cards .card") == 6, hash
        seen.open(f"{url}#sample=nobody")
        assert "there is no sample nobody" in seen.text("#count")


def test_back_button_and_links_within_the_page(demo: Path, browser: Any) -> None:
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
        assert "who=1" in seen.page.url  # filters are kept
        assert seen.page.evaluate("scrollY") < 300
        seen.page.locator("#scores tbody a").last.click()
        seen.page.wait_for_timeout(100)
        assert seen.page.evaluate("scrollY") > 300
        assert "four_way" in seen.page.url


def test_a_card_shows_the_order_that_matched_the_filter(bench: Path, browser: Any) -> None:
    """Answering with the first option is correct in one order of each sample only."""
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
    # In either order, one sample of each pair is correct: no pair is completely correct.
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


def test_incomplete_images_are_not_used_while_the_page_loads(demo: Path, browser: Any) -> None:
    """On a slow connection, an element with images may be incomplete."""
    content = demo.read_bytes()
    at = content.index(b'class="images"') + 200_000
    reached = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content[:at])
            self.wfile.flush()
            reached.wait(20)
            self.wfile.write(content[at:])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        page = browser.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.goto(url, wait_until="commit")
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


def test_the_view_is_kept_while_a_sample_is_open(demo: Path, browser: Any) -> None:
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
        # A selection that ends outside the dialog does not close it; a click there does.
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
        # Text typed just before is not lost.
        seen.page.fill("input[name=q]", "left")
        third.click()
        seen.page.keyboard.press("Escape")
        seen.left("sample")
        assert seen.page.input_value("input[name=q]") == "left"
        # The next choice removes an unknown sample.
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


@pytest.mark.slow
@pytest.mark.realdata
def test_all_of_mmvp_compared_and_on_the_leaderboard(
    realdata: Path, tmp_path: Path, browser: Any
) -> None:
    run = evaluate(
        ["tiny-llava"],
        ["mmvp"],
        protocol=["choice", "generate"],
        data_dir=str(realdata),
        output_dir=str(tmp_path),
        run_id="mmvp",
    )
    only_a, only_b = {"protocol": "choice"}, {"protocol": "generate"}
    found = compare(run.path, only_a=only_a, only_b=only_b)
    comparison.write(found, tmp_path / "compare.html", Options())
    with visit(browser, (tmp_path / "compare.html").as_uri()) as seen:
        lost = sum(group.kind == "lost" for group in found.flips[0].groups)
        seen.page.select_option("select[name=show]", "all-lost")
        assert seen.text("#count").startswith(f"{lost} of 150 pairs")
        assert set(seen.widths("#cards img")) <= {224}
        assert seen.serious() == []
    registry = Registry.standard()
    submit(run.path, registry, tmp_path / "results", None)
    (tmp_path / "reports").mkdir()
    write([run.path], tmp_path / "reports" / "mmvp.html", Options())
    entries = load_entries([tmp_path / "results"], registry)
    site = build(
        tmp_path / "site", entries, published_rows(registry), registry, tmp_path / "reports"
    )
    with visit(browser, site.as_uri() + "#tab=mmvp") as seen:
        seen.page.select_option("select[name=source]", "run")
        values = {row["protocol"]: row["metrics"]["pair_accuracy"]["value"] for row in run.results}
        shown = seen.page.locator("#scores .score .value").all_inner_texts()
        assert sorted(text for text in shown if text) == sorted(
            f"{100 * value:.1f}" for value in values.values()
        )
        seen.page.locator("#scores .score").first.click()
        seen.page.locator("dialog#cell a").click()
        seen.page.wait_for_selector("html[data-ready]")
        assert seen.page.title() == "mmvp"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(demo: Path, browser: Any, scheme: str) -> None:
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


def test_keyboard_navigation(demo: Path, browser: Any) -> None:
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
        seen.page.keyboard.press("Enter")  # the focus is still on the button
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
    from helpers.bench import TASK

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
