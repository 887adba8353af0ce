"""Extractors: find the option that the free text of a model chooses, without guessing.

``keyword``, ``letter``, ``yes_no`` and ``number`` differ in what counts as naming an option. They
share ``reading``, which finds the option that a text chooses: an option that is negated, asked
about or only compared with does not count, a refusal is not an answer, and a conclusion takes
precedence over the reasoning before it. An answer that chooses two options is ambiguous.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

from vlm_harness.errors import shown
from vlm_harness.plugins import Plugins
from vlm_harness.protocols.grammar import CONCLUDES, CORRECTS, MARKER, RECONSIDERS, REFUSES
from vlm_harness.protocols.labels import labels_of
from vlm_harness.protocols.numbers import NUMBER, number_mentions, value
from vlm_harness.protocols.phrases import NO, phrases_of
from vlm_harness.protocols.reading import CUT_OFF, NOTHING, Extraction, choice, read
from vlm_harness.protocols.statements import Mention
from vlm_harness.protocols.text import conclusion, plain, special_removed, squeeze, wrapped
from vlm_harness.specs.extraction import Step
from vlm_harness.specs.labels import own_labels, without_labels
from vlm_harness.specs.patterns import compile_pattern


class Extractor(Protocol):
    """Maps a text and the options as shown to an extraction."""

    def __call__(
        self, text: str, options: Sequence[str], *_: Any, **arguments: Any
    ) -> Extraction: ...


class DoesNotApply(ValueError):
    """An extractor does not support the options of a sample."""


Which = Literal["only", "first", "last"]


def keyword(
    text: str,
    options: Sequence[str],
    *,
    ignore_case: bool = True,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    ignore: Sequence[str] = (),
    which: Which = "only",
) -> Extraction:
    """The one option that the text chooses by its words, as a whole word or phrase.

    If two options overlap, the longer one wins; its full stop may be missing. Hyphens and
    apostrophes are part of a word ("on" does not match "hands-on", nor "can" "can't"), except in
    "left-hand", "left-side" and the genitive. Articles do not matter. Set phrases such as "based
    on", "on the floor" and "the right answer" do not name "on" and "right".

    Args:
        ignore_case: whether "Left" names "left".
        synonyms: other words for an option.
        ignore: phrases that contain the word of an option but do not name it.
        which: ``first`` or ``last`` takes the first or last option named, whatever the text says
            about it.
    """
    _check_which(which)
    phrases = phrases_of(tuple(options), _frozen(synonyms), ignore_case)
    ignored = tuple(filter(None, map(squeeze, ignore)))
    positions = phrases.positions()
    return _read(text, lambda answer: phrases.mentions(answer, ignored), positions, which)


def _frozen(
    synonyms: Mapping[str, Sequence[str]] | None,
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((option, tuple(words)) for option, words in (synonyms or {}).items())


def letter(text: str, options: Sequence[str]) -> Extraction:
    """The one option that the text chooses by its label, in the order shown.

    A capital counts if it stands like a label: after "option" or "answer", in brackets, before a
    verb or punctuation, or after a word that stands before another label too ("Box A ... Box B").
    "A" and "I" elsewhere are words. Small letters and numbers count only in brackets, in quotes,
    at the start of a line, or after "answer" or "option". If the options have labels of their own,
    such as "(b) Closed" or "(2) Closed", those count. If the text of an option contradicts the
    letter, the answer is ambiguous.
    """
    labels = labels_of(tuple(options))
    return _read(text, labels.mentions, labels.positions)


_YES = ["yes", "yeah", "yep", "yup", "true"]
_NEVER = ["nope", "nah", "false"]
_LEAD = re.compile(
    rf"""\A\W*(?:(?P<yes>{"|".join(_YES)})|(?P<no>no|{"|".join(_NEVER)}))\b
    (?![ ]?(?:or|and|/|-)[ ]?(?:yes|no|true|false)\b)
    (?!(?<=no)[ ](?:idea|doubt|question|problem|worries|need|matter|other|wonder|longer|more)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_FOREIGN = re.compile(
    r"""\A\W*(?:(?P<yes>oui|s[íi]|ja|jawohl|да|是的?|对的?|有|はい|예|네|sim|evet|tak|sì|hai|ναι|نعم|हाँ)
    |(?P<no>non|nein|nej|нет|不是|不|否|没有|无|いいえ|아니요|아니오|não|hayır|nie|nee|όχι|لا|नहीं))(?=[\s,.!;:]|\Z)""",
    re.VERBOSE | re.IGNORECASE,
)
_ABSENT = re.compile(
    r"""(?<!\bmay[ ])(?<!\bmight[ ])(?<!\bcould[ ])
    (?<!,[ ])\bnot\b(?![ ](?:only|just|sure|certain|clear|necessarily|fully|completely|entirely
        |clearly)\b)
    | \bno\b(?![ ](?:doubt|question|problem|idea)\b)
    | n't\b | \b(?:isnt|arent|doesnt|dont|cannot|never|lacks?|absent|incorrect|untrue)\b""",
    re.VERBOSE | re.IGNORECASE,
)


def yes_no(text: str, options: Sequence[str]) -> Extraction:
    """Yes or no (true or false): the first word, else the one that the text states.

    A statement that something is not so, without the word, is a no: "There is no dog." Refusals
    are not. As a whole answer, the words of some other languages count too.

    Raises:
        ValueError: the options are not one like yes and one like no.
    """
    yes, no = _yes_and_no(options)
    answer = _answer(text)
    if answer is None:
        return CUT_OFF
    lead = _LEAD.match(answer) or _FOREIGN.match(answer)
    first = re.split(r"[.!?\n]", answer, maxsplit=1)[0]
    found = read(answer, _yes_no_mentions(answer), {"yes": yes, "no": no})
    rest = answer[lead.end() :] if lead else ""
    # "Yes, I can help. The answer is no." and "Yes... wait, no." say something else later.
    later = bool(
        MARKER.search(rest) or RECONSIDERS.search(rest) or CORRECTS.search(rest.strip(" .!,"))
    )
    if lead and not REFUSES.search(first) and not (later and found.index is not None):
        return choice(yes if lead["yes"] else no, lead.group().strip())
    if found.reason not in ("nothing", "ambiguous"):
        return found
    sentences = re.split(r"(?<=[.!?])\s+|\n", answer)
    closing = [each for each in sentences if CONCLUDES.match(each)][-1:]
    for each in closing or ([first] if found.reason == "nothing" else []):
        if (absent := _ABSENT.search(each)) and not REFUSES.search(each):
            return choice(no, absent.group())
    return found


def _yes_and_no(options: Sequence[str]) -> tuple[list[int], list[int]]:
    """The position of the option like yes, and of that like no."""
    words = [each.strip(" .").casefold() for each in without_labels(options)]
    yes = [index for index, word in enumerate(words) if word in _YES]
    no = [index for index, word in enumerate(words) if word in ("no", *_NEVER)]
    if not (len(yes) == len(no) == 1):
        raise DoesNotApply(
            f"yes_no requires one option like yes and one like no: {shown(list(options))}"
        )
    return yes, no


def _yes_no_mentions(text: str) -> list[Mention]:
    return [
        Mention(match.start(), match.end(), str(match.lastgroup))
        for match in _YES_NO.finditer(text)
    ]


_YES_NO = re.compile(rf"\b(?i:(?P<yes>{'|'.join(_YES)})|(?P<no>{NO}|{'|'.join(_NEVER)}))\b")


def number(text: str, options: Sequence[str]) -> Extraction:
    """The one number that the text states, in digits or as an English word up to ninety-nine.

    Raises:
        ValueError: an option is not a number.
    """
    positions: dict[str, list[int]] = {}
    for index, (option, bare) in enumerate(zip(options, without_labels(options), strict=True)):
        if not NUMBER.fullmatch(bare.strip()):
            raise DoesNotApply(f"number requires options that are numbers, got {option!r}")
        positions.setdefault(str(value(bare.strip())), []).append(index)
    return _read(text, number_mentions, positions)


def regex(
    text: str,
    options: Sequence[str],
    *,
    pattern: str,
    group: int | str = 1,
    ignore_case: bool = True,
    which: Which = "only",
) -> Extraction:
    """The option that a group of a pattern matches, by its text or its letter.

    Matches that do not name an option are ignored. If the pattern has no groups, group 1 is the
    whole match.

    Raises:
        ValueError: the pattern, the group or ``which`` is invalid.
    """
    compiled = compile_pattern(pattern, ignore_case)
    if group == 1 and not compiled.groups:
        group = 0
    if group not in compiled.groupindex and group not in range(compiled.groups + 1):
        raise ValueError(f"the pattern {pattern!r} has no group {group!r}")
    _check_which(which)

    fold = str.casefold if ignore_case else str
    names: dict[str, set[int]] = {}
    for index, (option, bare) in enumerate(zip(options, without_labels(options), strict=True)):
        for name in (option, bare):
            names.setdefault(fold(squeeze(name)), set()).add(index)
    for index, name in enumerate(string.ascii_uppercase[: len(options)]):
        names.setdefault(fold(name), {index})

    matches = compiled.finditer(special_removed(text))
    values = (fold(squeeze(match[group] or "")) for match in matches)
    found = [value for value in values if value in names]
    if which != "only":
        found = found[:1] if which == "first" else found[-1:]
    return choice(sorted({index for value in found for index in names[value]}), " / ".join(found))


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

    def counts(option: str, bare: str) -> bool:
        excluded = (*exclude.get(bare, ()), *exclude.get(option, ()))
        name = squeeze(bare).casefold()
        return bool(name) and name in folded and not any(s.casefold() in folded for s in excluded)

    bare = without_labels(options)
    found = [index for index, option in enumerate(options) if counts(option, bare[index])]
    return choice(found, " / ".join(options[index] for index in found))


def pope_official(text: str, options: Sequence[str]) -> Extraction:
    """The rule of POPE's official script: no if the first sentence has "no" or "not", else yes.

    Reads a refusal and an empty answer as yes. Reproduces published figures
    (https://github.com/AoiDragon/POPE, evaluate.py).

    Raises:
        ValueError: the options are not one like yes and one like no.
    """
    yes, no = _yes_and_no(options)
    words = text.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    denies = next((word for word in words if word in ("No", "no", "not")), None)
    return choice(no, denies) if denies else choice(yes, text.strip()[:40])


def _answer(text: str) -> str | None:
    """A text without thinking and markup, or what it marks as its answer; None if cut off."""
    rest = conclusion(text)
    if rest is None:
        return None
    answer = plain(rest)
    inner = wrapped(answer)
    return answer if inner is None else plain(inner)


def _read(
    text: str,
    find: Callable[[str], list[Mention]],
    positions: Mapping[str, Sequence[int]],
    which: Which = "only",
) -> Extraction:
    """Read the conclusion of a text, without its thinking and markup."""
    answer = _answer(text)
    if answer is None:
        return CUT_OFF
    mentions = find(answer)
    if which != "only":
        named = [each for each in mentions if positions.get(each.name) and not each.weak]
        if not named:
            return NOTHING
        one = named[0 if which == "first" else -1]
        return choice(positions[one.name], answer[one.start : one.end])
    return read(answer, mentions, positions)


def _check_which(which: str) -> None:
    if which not in get_args(Which):
        raise ValueError(f"which must be only, first or last, got {which!r}")


EXTRACTORS: Plugins[Extractor] = Plugins(
    "extractor",
    "vlm_harness.extractors",
    {
        name: f"vlm_harness.protocols.extractors:{name}"
        for name in ("keyword", "letter", "yes_no", "number", "regex", "contains", "pope_official")
    },
)


def extract(
    chain: Sequence[Step | tuple[str, Mapping[str, Any]]], text: str, options: Sequence[str]
) -> tuple[str, Extraction]:
    """Try extractors in turn until one finds something.

    A step that does not support the options is skipped. A step that finds the text ambiguous ends
    the chain, unless it says otherwise. Text inside a thinking block is not read; a text that ends
    inside one has no answer.

    Returns:
        The name of the last extractor tried, and its result.

    Raises:
        ValueError: the chain is empty, or no extractor supports the options.
    """
    if not chain:
        raise ValueError("no extractor given")
    answer = conclusion(text)
    if answer is None:
        return chain[0][0], CUT_OFF
    tried: tuple[str, Extraction] | None = None
    unfit: DoesNotApply | None = None
    for step in (Step(*each) for each in chain):
        try:
            extraction = EXTRACTORS.get(step.name)(answer, options, **step.args)
        except DoesNotApply as error:
            unfit = unfit or error
            continue
        tried = step.name, extraction
        passes = extraction.reason == "ambiguous" and step.passes_ambiguous
        if extraction.reason != "nothing" and not passes:
            break
    if tried is None:
        assert unfit is not None
        raise unfit
    return tried


def confused(chain: Sequence[Step], options: Sequence[str]) -> tuple[str, str] | None:
    """An option whose own text a chain reads as another option or as several, and how it reads it.

    A model that answers with the words of such an option would be misread. None if there is none,
    or if the label of the option is read.
    """
    labels = own_labels(options) or string.ascii_uppercase[: len(options)]
    for index, option in enumerate(without_labels(options)):
        found = extract(chain, option, options)[1]
        if found.reason not in ("found", "ambiguous") or found.index == index:
            continue
        label = labels[index] if index < len(labels) else ""
        if extract(chain, label, options)[1].index != index:
            return option, "several options" if found.index is None else options[found.index]
    return None
