"""Code blocks of the documentation are run, and must do what the page says.

``VLM_HARNESS_UPDATE_DOCS=1 pytest tests/docs/test_blocks.py`` writes the present output of the
commands into the ``console`` blocks.
"""

import os
import re
from pathlib import Path

import click
import pytest
import yaml

import vlm_harness
from helpers.bench import ROOT, Command
from helpers.docs import PAGES, Block, blocks, console
from vlm_harness import cli
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import GroupSpec, RunConfig
from vlm_harness.specs.validation import parse
from vlm_harness.specs.yamlfile import load

UPDATE = bool(os.environ.get("VLM_HARNESS_UPDATE_DOCS"))
RUNNABLE = [
    page
    for page in PAGES
    if any(
        "run" in block.info or (block.language == "python" and "no-check" not in block.info)
        for block in blocks(page)
    )
]


def name(page: object) -> str:
    return page.relative_to(ROOT).as_posix() if isinstance(page, Path) else str(page)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One working folder for all pages: a run that two pages show is computed once."""
    return tmp_path_factory.mktemp("docs")


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_the_blocks_of_a_page_run(
    page: Path, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    # Weights that this machine has must not change what a page shows.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    scope: dict[str, object] = {}
    outputs = {}
    for block in blocks(page):
        file = block.option("file")
        if file is not None:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(block.body)
        elif block.language == "python" and "no-check" not in block.info:
            exec(compile(block.body, str(block), "exec"), scope)
        elif "run" in block.info:
            outputs[block] = run(block, command)
    if UPDATE:
        update(page, outputs)
        return
    for block, output in outputs.items():
        if block.language == "console":
            assert output == block.body, f"{block}: run with VLM_HARNESS_UPDATE_DOCS=1 to update"


def test_the_python_page_shows_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    *_, errors = (b for b in blocks(ROOT / "docs" / "python.md") if b.language == "python")
    exec(errors.body, {"vlm_harness": vlm_harness})
    assert "did you mean 'whatsup_rendered_b_left_right'?" in capsys.readouterr().out


def run(block: Block, command: Command) -> str:
    """Run the commands of a block; the block with their output as it should be."""
    assert block.commands, f"{block}: no vlm-harness command to run"
    expected = int(block.option("exit") or 0)
    outputs = []
    for words in block.commands:
        code, out, err = command(*words)
        assert code == expected, f"{block}: exit code {code}\n{err}"
        outputs.append(out if code == 0 else out + err)
    return console(block, outputs)


def update(page: Path, outputs: dict[Block, str]) -> None:
    """Write outputs into the blocks of a page; from the last, so that earlier lines keep theirs."""
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    for block, output in reversed(outputs.items()):
        if block.language == "console":
            start = block.line - 1
            lines[start : start + len(block.body.splitlines())] = [output]
    page.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_have_the_options_that_a_page_shows(page: Path) -> None:
    for block in blocks(page):
        if block.language not in ("bash", "console", "sh", "shell"):
            continue
        for words in block.commands:
            try:
                options_of(cli.cli, words)
            except click.NoSuchOption as error:
                pytest.fail(f"{block}: {error.format_message()}")
            except click.UsageError as error:  # placeholders such as RUN..., but no unknown command
                if "no command" in error.format_message():
                    pytest.fail(f"{block}: {error.format_message()}")


def options_of(command: click.Command, words: list[str]) -> None:
    """Parse the arguments of a command, and of its subcommands, without running it."""
    with command.make_context("vlm-harness", list(words), resilient_parsing=False) as context:
        rest = [*context._protected_args, *context.args]
        if isinstance(command, click.Group) and rest:
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            options_of(found, rest)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_is_valid(page: Path, tmp_path: Path) -> None:
    """Every YAML block; one that is a whole task, model or run also against its schema."""
    for number, block in enumerate(blocks(page)):
        if block.language != "yaml" or "no-check" in block.info:
            continue
        keys = yaml.safe_load(re.sub(r"^---$", "", block.body, flags=re.MULTILINE))
        path = tmp_path / f"{number}.yaml"
        path.write_text(block.body)
        if not isinstance(keys, dict):
            continue
        if "task" in keys and "dataset" in keys:
            Registry([path]).task(keys["task"])
        elif "group" in keys and "aggregates" in keys:
            parse(GroupSpec, load(path))
        elif "model" in keys and "backend" in keys:
            Registry([path]).model(keys["model"])
        elif "tasks" in keys and "model" in keys:
            parse(RunConfig, load(path))
