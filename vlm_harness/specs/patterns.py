"""Regular expressions of tasks and templates, whose running time is bounded.

Patterns run on RE2, whose time is linear in the length of the text. What RE2 does not support
(look-around, back-references), or reads differently from Python, runs on the ``regex`` module under
a time limit. The result is that of Python's ``re`` either way.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import re2
import regex

from vlm_harness.errors import InputError, shown

SECONDS = 2.0
"""Time limit of one search on ``regex``."""
_ASCII_ONLY_IN_RE2 = (r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\b", r"\B")


class Match(Protocol):
    """The part of ``re.Match`` that both engines have."""

    def __getitem__(self, group: int | str) -> str | None: ...
    def group(self, group: int | str = 0) -> str | None: ...
    def groups(self, default: str = "") -> tuple[str, ...]: ...
    def start(self) -> int: ...
    def end(self) -> int: ...
    def expand(self, template: str) -> str: ...


class Pattern:
    """A compiled pattern.

    Raises:
        ValueError: the pattern is invalid.
    """

    def __init__(self, pattern: str, ignore_case: bool = False) -> None:
        self.pattern = pattern
        try:
            self._regex: Any = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
        except regex.error as error:
            raise ValueError(f"invalid pattern {shown(pattern)}: {error}") from None
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = not ignore_case
        try:
            self._re2: Any = re2.compile(pattern, options)
        except re2.error:
            self._re2 = None
        self._unicode = not any(escape in pattern for escape in _ASCII_ONLY_IN_RE2)
        self.groups: int = self._regex.groups
        self.groupindex: dict[str, int] = dict(self._regex.groupindex)

    @property
    def linear(self) -> bool:
        """Whether RE2 supports the pattern."""
        return self._re2 is not None

    def search(self, text: str) -> Match | None:
        """The first match.

        Raises:
            InputError: the pattern takes too long on this text.
        """
        return next(self.finditer(text), None)

    def finditer(self, text: str) -> Iterator[Match]:
        """All matches that do not overlap.

        Raises:
            InputError: the pattern takes too long on this text.
        """
        same = (self._unicode or text.isascii()) and not text.endswith("\n")
        if self._re2 is not None and same:
            end = -1
            for match in self._re2.finditer(text):
                if match.end() != end or match.start() != end:  # RE2 repeats an empty match
                    yield match
                end = match.end() if match.start() == match.end() else -1
            return
        try:
            yield from self._regex.finditer(text, timeout=SECONDS)
        except TimeoutError:
            raise InputError(
                f"the pattern {shown(self.pattern)} takes longer than {SECONDS:g} s on a text of "
                f"{len(text)} characters",
                hint="Avoid look-around and nested repetitions; patterns without look-around and "
                "back-references always run in linear time.",
            ) from None


@lru_cache(maxsize=512)
def compile_pattern(pattern: str, ignore_case: bool = False) -> Pattern:
    """Compile a pattern, once.

    Raises:
        ValueError: the pattern is invalid.
    """
    return Pattern(pattern, ignore_case)
