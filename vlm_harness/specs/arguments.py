"""Arguments written on one line: ``k=v,k=v``, as in ``--model-args`` and ``--decoding``.

A value is everything between ``=`` and the next comma, white space included. A value that begins
and ends with a quote may contain commas and, in double quotes, escapes such as ``\\n``. A quote
within a word is an ordinary character.
"""

import re
from collections.abc import Container, Iterator
from typing import Any

from vlm_harness.errors import InputError, shown
from vlm_harness.specs.yamlfile import scalar

_KEY = re.compile(r"[\s,]*([^\s,=][^,=]*?)\s*=")
# A quoted value ends at a quote before a comma or the end; others are apostrophes.
_QUOTED = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'(?!\s*(?:,|$)))*')\s*(?=,|$)""", re.DOTALL)
_PLAIN = re.compile(r"[^,]*")
_ESCAPE = re.compile(r"\\([nrt\"\\]|u[0-9a-fA-F]{4})")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_NEXT_KEY = re.compile(r",\s*[\w.-]+\s*=")


def key_values(text: str, where: str, texts: Container[str] = ()) -> dict[str, Any]:
    """Parse ``k=v,k=v``.

    Numbers, booleans, ``null``, and lists and mappings in brackets are read as in YAML. Any other
    value is the text as it is written.

    Args:
        texts: keys whose values are always text, such as ``revision=12e5``.

    Raises:
        InputError: not a list of ``k=v``, a quote that is never closed, or ambiguous quotes.
    """
    return dict(_parse(text, where, texts))


def _parse(text: str, where: str, texts: Container[str]) -> Iterator[tuple[str, Any]]:
    at = 0
    while text[at:].strip(" \t\n,"):
        key = _KEY.match(text, at)
        if key is None:
            found = text[at:].strip(" \t\n,").partition(",")[0]
            raise InputError(
                f"expected key=value, got {shown(found)}",
                where=where,
                hint='Put a value that contains a comma in quotes: KEY="..., ...".' if at else None,
            )
        name, start = key[1], key.end()
        quoted = _QUOTED.match(text, start)
        if quoted is not None:
            if quoted[1][0] == "'" and _NEXT_KEY.search(quoted[1]):
                raise InputError(
                    f"the value of {name!r} may end at a comma or at the last apostrophe",
                    where=where,
                    hint="Put it in double quotes.",
                )
            yield name, _unquoted(quoted[1])
            at = quoted.end()
            continue
        plain = _PLAIN.match(text, start)
        assert plain is not None  # it may be empty
        if plain[0].lstrip().startswith('"'):
            raise InputError(f"the value of {name!r} has no closing quote", where=where)
        yield name, plain[0] if name in texts else _value(plain[0])
        at = plain.end()


def _unquoted(quoted: str) -> str:
    """The text in quotes; a single quote is written ``''`` within single quotes."""
    body = quoted[1:-1]
    if quoted[0] == "'":
        return body.replace("''", "'")
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1]) or chr(int(match[1][1:], 16)), body)


def _value(plain: str) -> Any:
    """A value without quotes; text is kept as it is written."""
    written = plain.strip()
    if not written or "#" in written:  # YAML would drop a comment
        return plain
    found = scalar(written)
    typed = found is None or isinstance(found, bool | int | float)
    return found if typed or written[0] in "[{" else plain
