"""Options and helpers that commands share."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vlm_harness.errors import InputError, printable
from vlm_harness.files import to_json
from vlm_harness.specs import schemas
from vlm_harness.specs.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])
UNVERIFIED = "unverified"
"""Mark of models whose file says ``verified: false``."""
UNVERIFIED_NOTE = f"{UNVERIFIED}: {schemas.UNVERIFIED}"


def include_path_option(function: F) -> F:
    return click.option(
        "--include-path",
        multiple=True,
        metavar="DIR",
        help="Additional folder (or file) with task, model and prompt files; repeatable.",
    )(function)


def data_dir_option(function: F) -> F:
    return click.option(
        "--data-dir",
        metavar="DIR",
        help="Data directory. [default: $VLM_HARNESS_DATA, else a folder in the user's cache]",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


class RenamedOption(click.Option):
    """An option whose ``old`` name still works; help and messages show the new one."""

    def __init__(self, declarations: Sequence[str], *, old: str, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.old = old

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown, self.opts = self.opts, [*self.opts, self.old]
        super().add_to_parser(parser, ctx)
        self.opts = shown


class FiniteRange(click.FloatRange):
    """A range that rejects NaN, which passes every comparison."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return found


def page_options(function: F) -> F:
    """Options that limit the size of an HTML page."""
    function = click.option(
        "--image-size",
        type=click.IntRange(0, 448),
        default=320,
        show_default=True,
        metavar="PX",
        help="Maximum length of the longer side of images; 0 leaves images out.",
    )(function)
    return click.option(
        "--max-size",
        type=FiniteRange(0.1, 2000),
        default=50,
        show_default=True,
        metavar="MB",
        help="Maximum size of the page. Images are scaled down, then left out, to fit.",
    )(function)


def check_page(path: Path, option: str) -> None:
    """
    Raises:
        InputError: the file name does not end in .html or .htm.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"expected a .html file, got {path}", where=option)


def registry(include_path: tuple[str, ...]) -> Registry:
    return Registry.standard(include_path)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """``click.echo`` for text that may come from models, data or files."""
    click.echo(printable(text), err=err, nl=nl)


def echo_json(value: Any) -> None:
    click.echo(to_json(value, indent=1))


def split(values: tuple[str, ...]) -> list[str]:
    """Split repeatable, comma-separated options: ``--tasks a,b --tasks c``."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
