"""The documentation site builds without warnings, is complete, and needs no other host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.bench import ROOT
from helpers.browser import PHONE, launched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_click"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_reference_covers_every_command_key_and_public_name(site: Path) -> None:
    import vlm_harness
    from vlm_harness.cli import COMMANDS
    from vlm_harness.specs.schemas import KINDS

    command_line = (site / "reference" / "cli.html").read_text()
    for command in COMMANDS:
        assert f'id="vlm-harness-{command}"' in command_line
    keys = (site / "reference" / "yaml.html").read_text()
    for spec in set(KINDS.values()):
        assert any(f'id="{kind}"' in keys for kind in KINDS if KINDS[kind] is spec)
        for key in spec.model_json_schema()["properties"]:
            assert f"<code>{key}</code>" in keys
    python = (site / "reference" / "api.html").read_text()
    for name in vlm_harness.__all__:
        if not name.startswith("_"):
            assert re.search(rf'id="vlm_harness\.[\w.]*\b{name}"', python), name


def test_tables_name_every_task_and_model_and_mark_what_is_unverified(site: Path) -> None:
    from vlm_harness.specs.registry import Registry

    registry = Registry([ROOT / "tasks", ROOT / "prompts", ROOT / "models"])
    tables = {kind: (site / "reference" / f"{kind}s.html").read_text() for kind in ("model",)}
    tables["task"] = (site / "reference" / "benchmarks.html").read_text()
    for kind, page in tables.items():
        for name in registry.names(kind):
            row = re.search(rf"<tr>\s*<td><code>{re.escape(name)}</code></td>.*?</tr>", page, re.S)
            assert row is not None, name
            verified = (
                registry.task(name).dataset.verified
                if kind == "task"
                else registry.model(name).verified
            )
            assert ("unverified" in row[0]) == (not verified)


def test_llms_txt_links_to_every_page(site: Path) -> None:
    index = (site / "llms.txt").read_text()
    assert index.startswith("# vlm-harness\n")
    linked = set(re.findall(r"\]\(([^)]+)\)", index))
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert linked == pages - {"404.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", "concepts.html", "reference/cli.html"])
def test_a_page_fits_a_phone_and_asks_nothing_of_other_hosts(
    site: Path, page: str, scheme: str
) -> None:
    with launched() as browser:
        view = browser.new_page(viewport=PHONE, color_scheme=scheme)
        asked: list[str] = []
        view.on("request", lambda request: asked.append(request.url))
        view.goto((site / page).as_uri())
        view.wait_for_load_state("networkidle")
        width = "document.documentElement.scrollWidth - window.innerWidth"
        assert view.evaluate(width) <= 0
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
