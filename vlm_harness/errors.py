"""Errors shown to users: one message without a traceback, and a fixed exit code."""

import difflib
import re
from collections.abc import Iterable


class HarnessError(Exception):
    """Base class of errors that are shown as a message instead of a traceback."""

    exit_code = 1


class InputError(HarnessError):
    """Invalid input: arguments, YAML or names, or a missing model or data file.

    ``where`` is a file (with line number) or an option; ``hint`` says what to do next.
    """

    exit_code = 2

    def __init__(self, message: str, *, where: object = None, hint: str | None = None) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n{self.hint}" if self.hint else text


class TooManyErrors(HarnessError):
    """The run was stopped because too many samples failed, or because all of them did."""

    exit_code = 3


class SampleError(HarnessError):
    """One sample cannot be evaluated. It is logged with status ``error``; the run continues."""


def suggest(name: str, known: Iterable[str]) -> str:
    """``'; did you mean X?'`` for the closest known name, or an empty string."""
    known = list(known)
    lower = {candidate.lower(): candidate for candidate in reversed(known)}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""


def not_found(
    message: str,
    name: str,
    known: Iterable[str],
    *,
    where: object = None,
    hint: str = "Available: {}",
) -> InputError:
    """The error for an unknown name.

    Args:
        message: e.g. ``unknown task 'mvp'``; the closest known name is appended.
        hint: ``{}`` is replaced by the known names.
    """
    known = list(known)
    return InputError(
        message + suggest(name, known),
        where=where,
        hint=hint.replace("{}", listing(known) or "none"),
    )


def listing(names: Iterable[str], limit: int = 30) -> str:
    """Names on one line, truncated after ``limit``."""
    names = sorted(name if len(name) <= 120 else f"{name[:117]}..." for name in names)
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


MAX_SHOWN = 200
"""Maximum number of characters of a value in a message."""


def shown(value: object) -> str:
    """``repr`` of a value from data, an option or a model, for a message; clipped."""
    return clip(repr(value))


def clip(text: object, limit: int = MAX_SHOWN) -> str:
    """A text of at most ``limit`` characters; if it is longer, its beginning and its length."""
    text = str(text)
    if len(text) <= limit:
        return text
    end = f"... ({len(text):,} characters)"
    return text[: max(0, limit - len(end))] + end


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    """Escape characters of untrusted text (from models, data, files) that affect a terminal.

    These are control characters other than newline and tab, characters that change the text
    direction, and lone surrogates.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match.group())[1:-1], str(text))
