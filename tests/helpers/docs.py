"""Fenced code blocks of the documentation, and how to run them.

The words after the language of a fence, which GitHub ignores and the site removes, say what a test
does with the block:

=================  =================================================================================
``run``            run the ``vlm-harness`` commands of a ``bash`` block, or those after ``$`` in a
                   ``console`` block, and compare the output with what the block shows
``exit=N``         the exit code that each command of the block has (0)
``head=N``         the block shows only the first N lines of the output, then ``...``
``file=NAME``      write the block to this file, for the commands below it
``no-check``       a ``python`` block that is not executed, or a ``yaml`` block with a mistake or of
                   another tool
=================  =================================================================================

All other ``python`` blocks are executed, and all other ``yaml`` blocks checked.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.bench import ROOT

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
WIDTH = 150
CHECKOUT = "/home/me/vlm-harness"
"""Replaces the path of the checkout in messages."""


@dataclass(frozen=True)
class Block:
    language: str
    info: tuple[str, ...]
    body: str
    page: Path
    line: int
    """Of the first line of the body, from 1."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def option(self, name: str) -> str | None:
        found = [word.removeprefix(f"{name}=") for word in self.info if word.startswith(f"{name}=")]
        return found[0] if found else None

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of each ``vlm-harness`` command that the block shows."""
        text = self.body.replace("\\\n", " ")
        if self.language == "console":
            lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        else:
            lines = text.splitlines()
        found = [shlex.split(line, comments=True) for line in lines if "vlm-harness " in line]
        return [words[1:] for words in found if words and words[0] == "vlm-harness"]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        indent = len(found["indent"])
        body = "".join(line[indent:] or "\n" for line in found["body"].splitlines(keepends=True))
        line = text.count("\n", 0, found.start("body")) + 1
        yield Block(found["language"], tuple(found["info"].split()), body, page, line)


def shown(output: str) -> list[str]:
    """Output as a page shows it: no path of this machine, no trailing space, no endless lines."""
    output = output.replace(str(ROOT), CHECKOUT).replace(f"{Path.cwd()}/", "")
    output = re.sub(r"cannot be reached \(\w+\)", "cannot be reached (ConnectError)", output)
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    return [line if len(line) <= WIDTH else line[: WIDTH - 4].rstrip() + " ..." for line in lines]


def console(block: Block, outputs: Sequence[str]) -> str:
    """The body that a ``console`` block should have."""
    parts = []
    head = block.option("head")
    for words, output in zip(block.commands, outputs, strict=True):
        lines = shown(output)
        if head is not None and len(lines) > int(head):
            lines = [*lines[: int(head)], "..."]
        parts += [f"$ {shlex.join(['vlm-harness', *words])}", *lines]
    return "\n".join(parts) + "\n"
