"""The leaderboard's site: its content, and what visitors can do in a browser."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT
from helpers.browser import PHONE, Visit, data_of, visit
from vlm_harness import evaluate
from vlm_harness.leaderboard.entry import Entry, load_entries
from vlm_harness.leaderboard.site import build, family
from vlm_harness.published.rows import published_rows
from vlm_harness.published.tables import cells, load, paper_tables
from vlm_harness.report.page import Options
from vlm_harness.report.report import write
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import UNVERIFIED

TASK = "whatsup_rendered_a_left_right"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.standard()


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's entries of the demo, and a report named after their run."""
    folder = tmp_path_factory.mktemp("leaderboard")
    shutil.copytree(ROOT / "leaderboard" / "results", folder / "results")
    run = evaluate(["fake:oracle"], [TASK], limit=2, output_dir=str(folder / "runs"), run_id="demo")
    (folder / "reports").mkdir()
    write([run.path], folder / "reports" / "demo.html", Options(image_size=64))
    (folder / "reports" / "other-run.html").write_text("no")
    return folder


@pytest.fixture(scope="module")
def site(entries: Path, registry: Registry) -> Path:
    found = load_entries([entries / "results"], registry)
    output = entries / "site"
    build(output, found, published_rows(registry), registry, entries / "reports")
    return output


@pytest.fixture
def home(site: Path) -> str:
    return (site / "index.html").as_uri()


# --- content --------------------------------------------------------------------------------------


def test_files(site: Path) -> None:
    """Only reports of entries are included."""
    files = sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
    assert files == ["index.html", "reports/demo.html", "results.json"]
    data = json.loads((site / "results.json").read_text())
    assert {entry["model"]["name"] for entry in data["entries"]} == {"tiny-clip", "tiny-llava"}


def test_every_number_of_the_paper_is_there(site: Path, registry: Registry) -> None:
    data = json.loads((site / "results.json").read_text())
    found = {
        (row["name"], row["task"], metric, round(value, 6), table)
        for row in data["published"]
        for metric, value in row["values"].items()
        for table in row["tables"]
    }
    for number in paper_tables():
        for cell in cells(load(str(number)), registry):
            if cell.value is not None:
                value = cell.value if "cosine" in cell.metric else cell.value / 100
                assert (cell.name, cell.task, cell.metric, round(value, 6), number) in found


def test_builds_are_reproducible(entries: Path, registry: Registry, site: Path) -> None:
    found = load_entries([entries / "results"], registry)
    reports = entries / "reports"
    again = build(entries / "again", found, published_rows(registry), registry, reports)
    assert again.read_bytes() == (site / "index.html").read_bytes()


def test_every_task_has_a_family(registry: Registry) -> None:
    names = {family(registry.task(name)) for name in registry.names("task")}
    assert {"whatsup", "mmvp", "pope", "sugarcrepe", "vsr", "spatial"} <= names


def test_a_page_without_results(tmp_path: Path, registry: Registry, browser: Any) -> None:
    build(tmp_path, [], [], registry)
    with visit(browser, (tmp_path / "index.html").as_uri()) as seen:
        assert "0 of 0 rows" in seen.text("#count")


def test_numbers_are_formatted_as_everywhere(site: Path, registry: Registry, entries: Path) -> None:
    """Halves are rounded as in Python: 30.25 is 30.2 there, and 30.3 in JavaScript."""
    (one, *_) = load_entries([entries / "results"], registry)
    plain = one.plain()
    (mine,) = (result for result in plain["results"] if result["task"] == TASK)
    metric = mine["metrics"]["individual_accuracy"]
    metric.update(value=0.3025, ci_low=0.285, ci_high=0.325)
    build(entries / "half", [Entry.model_validate(plain)], [], registry)
    data = data_of(entries / "half" / "index.html")
    (row,) = data["families"][0]["rows"]
    found = row["cells"][TASK]["metrics"]["individual_accuracy"]
    assert (found["text"], found["ends"]) == (f"{30.25:.1f}", f"{28.5:.0f}–{32.5:.0f}")


def test_different_numbers_of_one_name_show_their_tables(site: Path) -> None:
    (family,) = (f for f in data_of(site / "index.html")["families"] if f["name"] == "whatsup")
    named = [row for row in family["rows"] if row["model"] == "SigLIP-ViT-L/16-384px + neg. cap."]
    assert sorted(row["tables"] for row in named) == [[5], [9], [10]]


# --- in a browser ---------------------------------------------------------------------------------


def scores(seen: Visit, column: int) -> list[float]:
    texts = seen.column("#scores table", column)
    return [float(text.split()[0]) for text in texts if text[0].isdigit()]


def test_tabs_and_sorting(home: str, browser: Any) -> None:
    with visit(browser, home) as seen:
        tabs = seen.page.get_by_role("tab").all_inner_texts()
        assert tabs[:2] == ["What'sUp", "MMVP"]
        assert tabs[-1] == "What'sUp (rendered)"
        values = scores(seen, 5)
        assert values == sorted(values, reverse=True)
        seen.sort("#scores table", "b left right", "descending")
        values = scores(seen, 10)
        assert values == sorted(values, reverse=True)
        assert values[0] == 100
        seen.sort("#scores table", "b left right", "ascending")
        values = scores(seen, 10)
        assert values == sorted(values)
        url = seen.page.url
        assert "sort=9" in url
        heading = seen.page.locator("#scores thead th").first
        for order in ("ascending", "descending", "ascending"):  # and never unsorted
            heading.click()
            seen.page.wait_for_selector(f"#scores thead th[aria-sort={order}]")
    with visit(browser, url) as again:
        assert scores(again, 10) == values


def test_dual_encoders_and_generative_vlms_in_one_table(home: str, browser: Any) -> None:
    with visit(browser, home) as seen:
        # XVLM is a matching head.
        assert set(seen.column("#scores table", 2)) == {"generative VLM", "dual encoder", "other"}
        before = seen.count("#scores tbody tr")
        seen.page.select_option("select[name=kind]", "mllm")
        assert set(seen.column("#scores table", 2)) == {"generative VLM"}
        seen.page.get_by_role("button", name="Reset").click()
        seen.page.fill("input[name=q]", "llama-3")
        seen.page.locator("#count", has_text="1 of ").wait_for()
        assert "LLaMA-3-V-8B" in seen.column("#scores table", 1)[0]
        assert seen.column("#scores table", 3) == ["CLIP ViT-L/14-336"]
        assert seen.column("#scores table", 4) == ["8 B"]
        seen.page.get_by_role("button", name="Reset").click()
        seen.page.locator("#count", has_text=f"{before} of ").wait_for()


def test_details_of_a_run(home: str, browser: Any) -> None:
    with visit(browser, home + "#tab=whatsup_rendered") as seen:
        assert seen.count("#scores .source:not(.published)") == 2
        assert seen.text("#scores tfoot").split() == ["chance", *["25"] * 6]
        seen.page.get_by_role("button", name="tiny-llava, ").first.click()
        text = seen.text("dialog#cell")
        assert "exact command" in text
        assert "demo" in text
        assert "200" in text
        assert seen.page.locator("dialog#cell a").get_attribute("href") == "reports/demo.html"
        url = seen.page.url
    with visit(browser, url) as again:
        assert again.text("dialog#cell h2").startswith("tiny-llava on ")
        again.page.keyboard.press("Escape")
        again.left("cell")


def test_published_results_are_marked(home: str, browser: Any) -> None:
    with visit(browser, home) as seen:
        seen.page.select_option("select[name=source]", "run")
        assert seen.count("#scores tbody .score") == 0
        seen.page.select_option("select[name=source]", "published")
        assert seen.count("#scores .source.published") == seen.count("#scores tbody tr")
        seen.page.get_by_role("button", name="LLaVA-1.5-7B, ").first.click()
        text = seen.text("dialog#cell")
        assert "not rerun" in text
        assert "vlm-harness --model llava --tasks whatsup_a_four_way --protocol generate" in text


def test_unverified_models_are_marked(
    entries: Path, registry: Registry, tmp_path: Path, browser: Any
) -> None:
    one, two = (entry.plain() for entry in load_entries([entries / "results"], registry))
    assert two["model"]["name"] == "tiny-llava"
    two["model"]["verified"] = False
    found = [Entry.model_validate(plain) for plain in (one, two)]
    build(tmp_path, found, published_rows(registry), registry)
    url = (tmp_path / "index.html").as_uri()
    with visit(browser, url + "#tab=whatsup_rendered") as seen:
        marked = seen.page.locator("#scores tbody tr", has=seen.page.locator("abbr.unverified"))
        assert [text.split()[2] for text in marked.all_inner_texts()] == ["tiny-llava"]
        assert marked.locator("abbr").get_attribute("title") == UNVERIFIED
        assert f"unverified: {UNVERIFIED}." in seen.text("#about")
        for model, count in (("tiny-llava, ", 1), ("tiny-clip, ", 0)):
            seen.page.get_by_role("button", name=model).first.click()
            assert seen.count("dialog#cell abbr.unverified") == count
            seen.page.keyboard.press("Escape")
            seen.left("cell")
        assert seen.serious() == []
    # Published numbers are not runs: only the command to rerun them is marked.
    with visit(browser, url) as seen:
        assert seen.count("#scores abbr.unverified") == 0
        seen.page.get_by_role("button", name="LLaVA-1.5-7B, ").first.click()
        verified = registry.model("llava").verified
        assert seen.count("dialog#cell abbr.unverified") == (0 if verified else 1)


def test_other_scores(home: str, browser: Any) -> None:
    with visit(browser, home) as seen:
        seen.page.select_option("select[name=metric]", "pair_accuracy")
        headings = seen.page.locator("#scores thead th").all_inner_texts()
        assert all("pair" in text for text in headings[4:])
        seen.page.select_option("select[name=metric]", "mean_pair_cosine")
        # LLaVA-1.5's table prints the cosines of CLIP's embeddings.
        assert "0.995" in seen.text("#scores")
        assert seen.text("#chart") == "No data to plot."


def test_chart_with_intervals_and_chance(home: str, browser: Any) -> None:
    with visit(browser, home + "#tab=whatsup_rendered") as seen:
        assert seen.count('#chart [data-mark="dot"] circle') == 2
        assert seen.count('#chart [data-mark="rule"] line') == 3
        # The table has both, too.
        assert seen.count("#scores .range .interval") == 12
        assert seen.count("#scores .range .chance") == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(home: str, browser: Any, scheme: str) -> None:
    with visit(browser, home, color_scheme=scheme) as seen:
        assert seen.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert seen.serious() == []
        seen.page.locator("#scores .score").first.click()
        assert seen.serious() == []
        seen.page.keyboard.press("Escape")
        seen.page.set_viewport_size(PHONE)
        seen.page.wait_for_timeout(400)
        assert seen.overflows() <= 0
        assert seen.serious() == []
        # The first score is visible without scrolling the table.
        box = seen.page.locator("#scores .score").first.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= PHONE["width"]


@pytest.mark.slow
def test_invalid_url_settings_are_ignored(home: str, browser: Any) -> None:
    nonsense = [
        "tab=constructor", "metric=__proto__", "sort=99+desc", "cell=x~y", "kind=toString",
        "task=%00", "&&=", "tab=whatsup_rendered&protocol=choice",
    ]  # fmt: skip
    with visit(browser, home) as seen:
        for hash in nonsense:
            seen.open(f"{home}#{hash}")
            assert seen.count("#scores tbody .score") > 0, hash


def test_the_back_button(home: str, browser: Any) -> None:
    with visit(browser, home) as seen:
        seen.page.select_option("select[name=kind]", "mllm")
        seen.page.locator("#scores .score").first.click()
        seen.page.go_back()
        assert not seen.page.locator("dialog#cell").is_visible()
        assert "kind=mllm" in seen.page.url
        seen.page.locator("#scores .score").first.click()
        seen.page.keyboard.press("Escape")
        seen.left("cell")
        seen.page.go_back()  # the closed dialog has left no history entry
        seen.left("kind")
        assert "dual encoder" in seen.column("#scores table", 2)


def test_keyboard_navigation(home: str, browser: Any) -> None:
    with visit(browser, home) as seen:
        seen.page.locator("[role=tab]").first.focus()
        seen.page.keyboard.press("ArrowRight")
        assert seen.page.locator("[role=tab][aria-selected=true]").inner_text() == "MMVP"
        assert "tab=mmvp" in seen.page.url
        seen.page.keyboard.press("End")
        assert (
            seen.page.locator("[role=tab][aria-selected=true]").inner_text()
            == "What'sUp (rendered)"
        )
        seen.page.locator("#scores .score").first.press("Enter")
        assert seen.page.locator("dialog#cell").is_visible()
        seen.page.keyboard.press("Escape")
        seen.left("cell")
        assert not seen.page.locator("dialog#cell").is_visible()


def test_over_http_with_history(site: Path, browser: Any) -> None:
    """Served over HTTP, the page makes no requests to other hosts, and history works."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        with visit(browser, url, allowed=url) as seen:
            seen.page.get_by_role("tab", name="MMVP", exact=True).click()
            assert "LLaVA-1.5-7B" in seen.text("#scores")
            seen.page.get_by_role("tab", name="What'sUp (rendered)").click()
            seen.page.go_back()
            assert seen.page.locator("[role=tab][aria-selected=true]").inner_text() == "MMVP"
            seen.page.go_back()
            assert seen.page.locator("[role=tab][aria-selected=true]").inner_text() == "What'sUp"
            seen.page.goto(url + "#tab=whatsup_rendered")
            seen.page.locator("#scores .score").first.click()
            seen.page.locator("dialog#cell a").click()
            seen.page.wait_for_selector("html[data-ready]")
            assert seen.page.title() == "demo"
        server.shutdown()


def test_texts_of_entries_are_escaped(
    entries: Path, registry: Registry, tmp_path: Path, browser: Any
) -> None:
    """Entries are untrusted: their texts are shown literally."""
    found = load_entries([entries / "results"], registry)
    bad = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    entry = found[0].plain()
    entry["model"].update(checkpoint=bad, encoder=bad)
    entry["run"].update(command_line=bad, id=bad)
    build(tmp_path, [Entry.model_validate(entry)], [], registry)
    with visit(browser, (tmp_path / "index.html").as_uri()) as seen:
        assert bad in seen.text("#scores")
        seen.page.locator("#scores .score").first.click()
        assert seen.text("dialog#cell").count(bad) >= 3
        assert seen.count("main img, dialog img") == 0
