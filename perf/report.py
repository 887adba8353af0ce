"""Time the HTML report of 10,000 samples with one image each: build, size, and first view.

python -m perf.report

The baseline is the part that no report can avoid: reading and shrinking the images with Pillow, one
at a time.
"""

import io
import json
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from perf import timing
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.report.page import Options
from vlm_harness.report.report import write
from vlm_harness.runs.evaluator import evaluate

TASK = """\
task: sides
version: 1
dataset: {reader: jsonl, path: rows.jsonl}
sample:
  id: "{{ name }}"
  images: ["{{ name }}.jpg"]
  options: [left, right]
  target: "{{ side }}"
  pair: "{{ key }}"
  category: "{{ kind }}"
prompt:
  template: plain
  question: "Is the {{ name }} to the left or to the right?"
  commands: {default: "Answer left or right."}
protocols:
  generate: {extract: keyword}
metrics: [individual_accuracy, pair_accuracy]
primary_metric: pair_accuracy
"""
SIZE = 640, 480
READY = "html[data-ready]"


def make(folder: Path, n: int) -> Path:
    """A finished run of two models over images with the size and entropy of photographs."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
        grain = random.integers(-12, 13, (SIZE[1], SIZE[0], 1))
        pixels = np.clip(np.asarray(image, np.int16) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"s{i}.jpg", quality=85)
        rows.append({"name": f"s{i}", "side": i % 2, "key": i // 2, "kind": f"kind {i // 2 % 8}"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sides.yaml").write_text(TASK)
    return evaluate(
        [
            FakeBackend(lambda request: "left", "left"),
            FakeBackend(lambda request: "I think that it is to the right.", "right"),
        ],
        ["sides"],
        protocol=["generate"],
        data_dir=str(folder),
        include_path=[str(folder / "sides.yaml")],
        output_dir=str(folder / "results"),
        run_id="report",
    ).path


def shrink(folder: Path) -> None:
    for path in folder.glob("*.jpg"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.draft("RGB", (128, 128))
            image.thumbnail((128, 128))
            image.save(io.BytesIO(), "WEBP", quality=78)


def first_view(page: Path) -> tuple[float, float] | None:
    """Seconds to first contentful paint, and until samples can be browsed; None without browser."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from helpers.browser import FLAGS, chromium

    path = chromium()
    if path is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_selector(READY, timeout=60_000)
        ready = time.perf_counter() - start
        entries = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        painted = tab.evaluate(entries) / 1000
        browser.close()
    return painted, ready


@click.command()
@click.option("--samples", default=10_000, show_default=True)
@click.option(
    "--max-size", default=50.0, show_default=True, help="Maximum size of the report in MB."
)
@click.option("--rounds", default=3, show_default=True)
def main(samples: int, max_size: float, rounds: int) -> None:
    """Measure build time, size and first view of a report."""
    with tempfile.TemporaryDirectory() as root:
        folder, page = Path(root), Path(root) / "report.html"
        run = make(folder, samples)
        jobs = {
            "report": lambda: click.echo(write([run], page, Options(max_size=max_size))),
            "images only": lambda: shrink(folder),
        }
        seconds = timing.alternately(jobs, rounds)
        for name, each in seconds.items():
            click.echo(f"{name:<14} {np.median(each):.1f} s ({min(each):.1f} to {max(each):.1f})")
        ratios = np.array(seconds["report"]) / np.array(seconds["images only"])
        click.echo(f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
        views = [view for _ in range(rounds) if (view := first_view(page))]
        if views:
            painted, ready = np.median(views, axis=0)
            click.echo(f"first view {painted:.2f} s, samples browsable {ready:.2f} s")
        else:
            click.echo("first view not measured: no browser")


if __name__ == "__main__":
    main()
