"""Options and small things that commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vlm_harness.atomic import to_json
from vlm_harness.errors import printable
from vlm_harness.registry import Registry

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
