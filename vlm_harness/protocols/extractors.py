"""Extractors: find the option that the free text of a model chooses, without guessing.

``keyword``, ``letter``, ``yes_no`` and ``number`` differ in what counts as naming an option. They
share the parser in ``reading``: an option that is negated or only asked about does not count, a
refusal is not an answer, and an option right after "the answer is" takes precedence over options
before it. An answer that names two options is ambiguous. The running time is linear in the length
of the text.
"""

import re
import string
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, Protocol

from vlm_harness.plugins import Plugins
from vlm_harness.protocols.reading import (
    NO,
    NOTHING,
    QUOTES,
    REFUSAL,
    SPECIAL,
    Extraction,
    clean,
    decide,
    read,
    squeeze,
)
from vlm_harness.specs.filters import LABEL, strip_label


class Extractor(Protocol):
    """Maps a text and the options as shown to an extraction."""

    def __call__(
        self, text: str, options: Sequence[str], *_: Any, **arguments: Any
    ) -> Extraction: ...


def keyword(
    text: str,
    options: Sequence[str],
    *,
    ignore_case: bool = True,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    ignore: Sequence[str] = (),
) -> Extraction:
    """The one option that the text states as a whole word or phrase.

    If two options overlap, the longer one wins; its full stop may be missing. Hyphens and
    apostrophes are part of a word ("on" does not match "hands-on", nor "can" "can't"), except in
    "left-hand", "left-side" and the genitive. ``ignore`` lists phrases that contain the word of an
    option but do not name it ("on the floor", if the question is about a chair).
    """
    fold = str.casefold if ignore_case else str
    also = synonyms or {}
    spelling: dict[str, str] = {}
    owners: dict[str, list[int]] = {}
    for index, option in enumerate(options):
        bare = strip_label(option)
        for written in (bare, *also.get(bare, ()), *also.get(option, ())):
            phrase = squeeze(written).strip(QUOTES).rstrip(QUOTES + ".")
            spelling.setdefault(fold(phrase), phrase)
            indexes = owners.setdefault(fold(phrase), [])
            if index not in indexes:
                indexes.append(index)
    owners.pop("", None)
    if not owners:
        return NOTHING
    text = clean(text)
    for phrase in map(squeeze, ignore):
        if phrase and fold(phrase) not in owners:
            text = re.sub(_word(phrase, ignore_case), " ", text)
    folded = sorted(owners, key=lambda phrase: (-len(phrase), phrase))
    # One group per phrase: re.IGNORECASE matches more than casefold() maps ("İ" and "i").
    answer = "|".join(
        f"(?P<o{n}>{_word(spelling[phrase], ignore_case)})" for n, phrase in enumerate(folded)
    )

    def key(token: re.Match[str]) -> tuple[int, ...]:
        return tuple(owners[folded[int((token.lastgroup or "")[1:])]])

    return read(text, answer, key, {tuple(indexes): indexes for indexes in owners.values()})


def _word(phrase: str, ignore_case: bool) -> str:
    words = NO if phrase.casefold() == "no" else r"\s".join(map(re.escape, phrase.split()))
    within = r"\w|'(?!s\b)\w|-(?!(?:hand|side)\b)\w|[.,]\d"
    flag = "i" if ignore_case else ""
    return rf"(?<!\w)(?<!\w['-])(?<!\d[.,])(?{flag}:{words})(?!{within})"


_BOLD_LABEL = re.compile(r"(\*{1,2}|__|`)([A-Za-z0-9])[.):]?\1")
_CUES = "|".join(
    rf"(?<=\b{word}{link})"
    for word in ("answer", "choice", "option", "letter", "caption")
    for link in ("[ ]", ":", ":[ ]", r":\n", "[ ]is[ ]", "[ ]is:[ ]")
)


def _own_labels(options: Sequence[str]) -> str:
    """The labels (letters or digits) of the options, if all have a different one; else ''."""
    found = [LABEL.match(option) for option in options]
    labels = "".join(c for label in found if label for c in label.group() if c.isalnum()).upper()
    return labels if len(labels) == len(set(labels)) == len(options) else ""


def _folded(text: str) -> str:
    return squeeze(text).strip(QUOTES + ".").casefold()


def letter(text: str, options: Sequence[str]) -> Extraction:
    """The one option that the text states by its letter, in the order shown.

    A capital counts as a word of its own; "A" and "I" only before punctuation or a verb; small
    letters only in brackets, in quotes, as a label, or after "answer" or "option". If the options
    have labels of their own, such as "(b) Closed" or "(2) Closed", those labels count, and digits
    follow the rule for small letters. If the text of an option contradicts the letter, the answer
    is ambiguous.
    """
    text = clean(_BOLD_LABEL.sub(r"(\2)", text))
    upper = _own_labels(options) or string.ascii_uppercase[: len(options)]
    lone = text.strip(string.punctuation + string.whitespace).upper()
    if len(lone) == 1 and lone in upper:
        return Extraction(upper.index(lone), "found", text)
    # An option "Neither" is not a refusal: leave it to keyword.
    if not upper or _folded(text) in [_folded(strip_label(option)) for option in options]:
        return NOTHING
    either = f"[{upper}{upper.lower()}]"
    start, end = r"(?<![\w'.-])", r"(?![\w'-]|\.\w)"
    # Before these, a letter is neither an article nor a pronoun.
    follow = r"(?=[^\w\s'-]|[ ][-–—=][ ]|\s?\Z|\n|[ ](?:is|and|or|because|since|as|but)\b)"
    # "There are 2 dogs" does not name an option, nor does "A dog" name A.
    capitals = "".join(c for c in upper if c.isalpha() and c not in "AI")
    bare = rf"| {start}[{capitals}]{end}" if capitals else ""
    bare += rf"| {start}A{end}{follow}" if "A" in upper else ""
    answer = rf"""(?P<letter>
        (?<!\w)[(\[{{]{either}[)\]}}] | (?<!\w)["']{either}[.)]?["'] | (?<![\w'(.-]){either}\)
        | (?m:^){either}[.:](?!\w) | \A(?![Ii]){either},
        {bare}
        | (?={either}{end})(?i:{_CUES})(?:(?![AaIi]){either} | {either}{follow})
    )"""

    def key(token: re.Match[str]) -> str:
        return next(filter(str.isalnum, token.group())).upper()

    found = read(text, answer, key, {name: [index] for index, name in enumerate(upper)})
    if found.index is not None and keyword(text, options).index not in (None, found.index):
        return Extraction(None, "ambiguous", found.match)
    return found


_YES, _NEVER = ("yes", "yeah", "yep", "yup", "true"), ("nope", "nah", "false")
_LEAD = re.compile(
    rf"""\A\W*(?:(?P<yes>{"|".join(_YES)})|(?P<no>no|{"|".join(_NEVER)}))\b
    (?![ ]?(?:or|and|/|-)[ ]?(?:yes|no|true|false)\b)
    (?!(?<=no)[ ](?:idea|doubt|question|problem)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_REFUSES = re.compile(REFUSAL, re.VERBOSE)


def yes_no(text: str, options: Sequence[str]) -> Extraction:
    """Yes or no (true or false): the first word, else the one that the text states.

    Raises:
        ValueError: the options are not one like yes and one like no.
    """
    words = [strip_label(option).strip(" .").casefold() for option in options]
    yes = [index for index, word in enumerate(words) if word in _YES]
    no = [index for index, word in enumerate(words) if word in ("no", *_NEVER)]
    if not (len(yes) == len(no) == 1):
        raise ValueError(f"yes_no requires one option like yes and one like no: {list(options)}")
    text = clean(text)
    lead = _LEAD.match(text)
    if lead and not _REFUSES.search(re.split(r"[.!?\n]", text, maxsplit=1)[0]):
        return decide(yes if lead["yes"] else no, lead.group().strip())
    answer = rf"\b(?i:(?P<yes>{'|'.join(_YES)})|(?P<no>{NO}|{'|'.join(_NEVER)}))\b"
    return read(text, answer, lambda token: str(token.lastgroup), {"yes": yes, "no": no})


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: Decimal(value) for value, word in enumerate(_SMALL.split())}
for _count, _ten in enumerate(_TENS.split(), start=2):
    _WORDS |= {f"{_ten} {word}": 10 * _count + _WORDS[word] for word in _SMALL.split()[1:10]}
    _WORDS[_ten] = Decimal(10 * _count)
_DIGITS = r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?(?<!\.)\.\d+"
_SPELLED = "|".join(sorted((word.replace(" ", "[ -]") for word in _WORDS), reverse=True))
# "the one on the left" is a pronoun, "more than 3" is not 3, and "2 hundred" is not 2.
_NUMBER = rf"""(?P<number>
    (?<!\w)(?<!\d[.,])(?<![^\W\d]-)(?i:(?<!than[ ])(?<!at[ ]least[ ])(?<!at[ ]most[ ]))
    (?:{_DIGITS}
        | (?ai:(?!one\b)|(?<!the[ ])(?<!this[ ])(?<!that[ ])(?<!which[ ])(?<!each[ ])(?<!no[ ]))
            (?ai:{_SPELLED}))
    (?!\w|[.,]\d|-[^\W\d]|[ -](?i:hundred|thousand|million|billion|dozen|and[ ]a[ ]half|point)\b)
)"""


def _value(written: str) -> Decimal:
    word = written.casefold().replace("-", " ")
    return _WORDS[word] if word in _WORDS else Decimal(written.replace(",", ""))


def number(text: str, options: Sequence[str]) -> Extraction:
    """The one number that the text states, in digits or as an English word up to ninety-nine.

    Raises:
        ValueError: an option is not a number.
    """
    positions: dict[Decimal, list[int]] = {}
    for index, option in enumerate(options):
        bare = strip_label(option).strip()
        if not re.fullmatch(_NUMBER, bare, re.VERBOSE):
            raise ValueError(f"number requires options that are numbers, got {option!r}")
        positions.setdefault(_value(bare), []).append(index)
    return read(clean(text), _NUMBER, lambda token: _value(token.group()), positions)


def regex(
    text: str,
    options: Sequence[str],
    *,
    pattern: str,
    group: int | str = 1,
    ignore_case: bool = True,
    which: Literal["only", "first", "last"] = "only",
) -> Extraction:
    """The option that a group of a pattern matches, by its text or its letter.

    Matches that do not name an option are ignored. If the pattern has no groups, group 1 is the
    whole match.

    Raises:
        ValueError: the pattern, the group or ``which`` is invalid.
    """
    try:
        compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ValueError(f"invalid pattern {pattern!r}: {error}") from error
    if group == 1 and not compiled.groups:
        group = 0
    if group not in compiled.groupindex and group not in range(compiled.groups + 1):
        raise ValueError(f"the pattern {pattern!r} has no group {group!r}")
    if which not in ("only", "first", "last"):
        raise ValueError(f"which must be only, first or last, got {which!r}")

    fold = str.casefold if ignore_case else str
    names: dict[str, set[int]] = {}
    for index, option in enumerate(options):
        for name in (option, strip_label(option)):
            names.setdefault(fold(squeeze(name)), set()).add(index)
    for index, name in enumerate(string.ascii_uppercase[: len(options)]):
        names.setdefault(fold(name), {index})

    matches = compiled.finditer(SPECIAL.sub(" ", text))
    values = (fold(squeeze(match[group] or "")) for match in matches)
    found = [value for value in values if value in names]
    if which != "only":
        found = found[:1] if which == "first" else found[-1:]
    return decide(sorted({index for value in found for index in names[value]}), " / ".join(found))


def contains(
    text: str,
    options: Sequence[str],
    *,
    exclude: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Extraction:
    """The one option that is a substring of the text. Lenient; reproduces published figures.

    Other projects score What'sUp in this way, without word boundaries and negation. ``exclude``
    maps an option to strings: if one of them is in the text, the option does not count, as in
    ``{"on": ["front"]}``.
    """
    folded = squeeze(text).casefold()

    def counts(option: str) -> bool:
        bare = strip_label(option)
        excluded = (*exclude.get(bare, ()), *exclude.get(option, ()))
        name = squeeze(bare).casefold()
        return bool(name) and name in folded and not any(s.casefold() in folded for s in excluded)

    found = [index for index, option in enumerate(options) if counts(option)]
    return decide(found, " / ".join(options[index] for index in found))


EXTRACTORS: Plugins[Extractor] = Plugins(
    "extractor",
    "vlm_harness.extractors",
    {
        name: f"vlm_harness.protocols.extractors:{name}"
        for name in ("keyword", "letter", "yes_no", "number", "regex", "contains")
    },
)


def extract(
    chain: Sequence[tuple[str, Mapping[str, Any]]], text: str, options: Sequence[str]
) -> tuple[str, Extraction]:
    """Try extractors in turn until one finds something.

    Returns:
        The name of the last extractor tried, and its result.

    Raises:
        ValueError: the chain is empty, or an extractor does not support the options.
    """
    if not chain:
        raise ValueError("no extractor given")
    for name, arguments in chain:
        extraction = EXTRACTORS.get(name)(text, options, **arguments)
        if extraction.reason != "nothing":
            break
    return name, extraction
