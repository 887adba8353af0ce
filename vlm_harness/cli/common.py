"""Options and small things that commands share."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vlm_harness.errors import InputError, printable
from vlm_harness.files import to_json
from vlm_harness.specs.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])


def include_path_option(function: F) -> F:
    return click.option(
        "--include-path",
        multiple=True,
        metavar="DIR",
        help="Folder (or file) with task, model and prompt files; repeatable.",
    )(function)


def data_dir_option(function: F) -> F:
    return click.option(
        "--data-dir",
        metavar="DIR",
        help="Where the data lie [$VLM_HARNESS_DATA, else the user's cache].",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


class FiniteRange(click.FloatRange):
    """A number that is one: every comparison lets NaN through."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found


def page_options(function: F) -> F:
    """How large an HTML page may be."""
    function = click.option(
        "--image-size",
        type=click.IntRange(0, 448),
        default=320,
        show_default=True,
        metavar="PX",
        help="Longer side of images, at most; 0 for none.",
    )(function)
    return click.option(
        "--max-size",
        type=FiniteRange(0.1, 2000),
        default=50,
        show_default=True,
        metavar="MB",
        help="Of the file: images are made smaller, in the end left out, to fit.",
    )(function)


def check_page(path: Path, option: str) -> None:
    """
    Raises:
        InputError: the name is not that of a page.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the page is an HTML file, and {path} is none", where=option)


def registry(include_path: tuple[str, ...]) -> Registry:
    return Registry.standard(include_path)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """``click.echo`` of text that may come from models, data or files."""
    click.echo(printable(text), err=err, nl=nl)


def echo_json(value: Any) -> None:
    click.echo(to_json(value, indent=1))


def split(values: tuple[str, ...]) -> list[str]:
    """Comma lists that repeat: ``--tasks a,b --tasks c``."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
