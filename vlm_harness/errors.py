"""What can go wrong, and how it is said: one message, no traceback, a fixed exit code."""

import difflib
import re
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error that is shown to a user as a message instead of a traceback."""

    exit_code = 1


class InputError(HarnessError):
    """Bad input: arguments, YAML, names, data or a model that is not there.

    ``where`` is a file (with line) or an option, ``hint`` says what to do next.
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
    """One sample cannot be evaluated. It is logged with status ``error``; the run goes on."""


def suggest(name: str, known: Iterable[str]) -> str:
    """``'; did you mean X?'`` for the nearest known name, or an empty string."""
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
    hint: str = "There are: {}",
) -> InputError:
    """The error for a name that is not one of those known.

    Args:
        message: what was looked for, ``unknown task 'mvp'``; the nearest known name is added.
        hint: with ``{}`` for the known names.
    """
    known = list(known)
    return InputError(
        message + suggest(name, known),
        where=where,
        hint=hint.replace("{}", listing(known) or "none"),
    )


def listing(names: Iterable[str], limit: int = 30) -> str:
    """Names as one readable line, cut after ``limit``."""
    names = sorted(name if len(name) <= 120 else f"{name[:117]}..." for name in names)
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    """Text of models, data and files for a terminal: what would steer it is shown as an escape.

    Control characters (but for newline and tab), those that turn the direction of writing, and
    halves of surrogate pairs.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match.group())[1:-1], str(text))
