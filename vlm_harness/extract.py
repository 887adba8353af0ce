"""Extractors: from a model's free text to the position of an option, never guessing.

``keyword``, ``letter``, ``yes_no`` and ``number`` differ in what counts as naming an option. They
share one reading of the text: what is denied or only asked does not count, a refusal is no answer,
and what stands right after "the answer is" counts more than what was said before. Two options
named make an answer ambiguous. Scans are linear in the text.
"""

import re
import string
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extractor made of a text."""

    index: int | None
    """Position in the options as shown, None when unparsed."""
    reason: Literal["found", "nothing", "ambiguous", "refusal"]
    match: str | None = None
    """The text that decided it."""


class Extractor(Protocol):
    """A function from a text and the options as shown to an extraction."""

    def __call__(
        self, text: str, options: Sequence[str], *_: Any, **arguments: Any
    ) -> Extraction: ...


K = TypeVar("K", bound=Hashable)

_NOTHING = Extraction(None, "nothing")
_LABEL = re.compile(r"\s*(?:\([A-Za-z]\)|[A-Za-z][.)])\s+(?=\S)")
_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:[be]os|pad|unk|end_of_\w{1,20})>")
# An underscore inside a word stays, or `x_left` would become two words.
_MARKDOWN = re.compile(r"[*`]+|(?<![^\W_])_+|_+(?![^\W_])")
_HARD_WRAP = re.compile(r"(?<=[a-z,])\n(?=[a-z])")
_PLAIN = str.maketrans("“”‘’（）：，。", "\"\"''():,.")

_MARKER = r"""(?P<marker>(?i:
    \b(?:(?:final|correct|right|best)[ ]){0,3}(?:answer|choice|option)
        (?:[ ]to[ ](?:the|this|your)[ ]question)?
        (?:["']?[ ]?[:=]|[ ](?:is|would[ ]be|should[ ]be|must[ ]be)\b[ ]?:?)
    | \bassistant: | <answer> | </think> | \\boxed\{
)\s*)"""

_CONTROL = r"""(?P<refusal>(?i:
    \b(?:can(?:not|'t|[ ]not)[ ](?:be[ ])?|(?:un|not[ ])able[ ]to[ ]
        |(?:not[ ]|im)possible[ ]to[ ]|(?:hard|difficult)[ ]to[ ])
        (?:\w{1,20}ly[ ])?(?:be[ ]sure|(?:see|view|access)[ ](?:the|this|any|your)[ ](?:image|pic|photo)
        |(?:determin|tell|say|know|answer|assist|help|identif|verif|confirm|comply|provid|judge)\w*)
    | \b(?:unclear|unsure|uncertain|not[ ](?:clear|sure|certain))\b
    | \b(?:don't|do[ ]not)[ ]know\b | \bno[ ]idea\b | \bas[ ]an?[ ](?:ai|language[ ]model)\b
    | \b(?:not[ ]|n't[ ]\w{1,12}[ ])enough[ ](?:information|context|detail)
    | \bsorry\W{1,3}(?:but[ ])?i(?:[ ]ca|'m[ ](?:not|un)|[ ]am[ ](?:not|un))
    | \b(?:none|neither|both|all|either)[ ](?:of[ ])?(?:(?:the|these|those)[ ])?
        (?:(?:given|provided|listed|two)[ ])?
        (?:(?:caption|option|answer|choice|statement)s?|above|them|these)\b
    | \b(?:none|neither|both)[ ](?:is|are|seems?)\b
    | \A\W*(?:both|neither|none|unknown|n/a)\W*\Z
))
| (?P<neither>(?i:\bneither\b))
| (?P<negation>(?i:
    \bnot\b(?![ ]only\b) | \bno\b(?![ ](?:doubt|question)\b) | n't\b | \b(?:is|does|ca)nt\b
    | \b(?:cannot|never|nor|none|without|hardly|unlikely|incorrect|wrong|whether|if|except)\b
    | \b(?:rather|other)[ ]than\b | \binstead[ ]of\b
))
| (?P<label>(?<=\W[A-Za-z])\.(?=[ ]))
| (?P<end>[!?\n]|\.(?!\w))
| (?P<comma>,)
| (?P<stop>(?i:[;–—]|[ ]-[ ]|\b(?:but|however|although|though|while|whereas|because)\b
    |\band[ ](?:is|it|sits|stands|lies)\b))"""

_DENIED = re.compile(
    r"""['")\]]{0,2}(?:[ ](?:option|answer|choice|side))?
        [ ](?:is|are|was|were|does|can|could|would|should)(?:n't|[ ]not|not)\b
    | ['")\]]{0,2}[ ]can't\b
    | [^.,;:!?\n]{0,60}?[ ](?:is|are|was|were)[ ](?:\w{1,10}[ ])?
        (?:incorrect|wrong|false|inaccurate)\b""",
    re.VERBOSE | re.IGNORECASE,
)


def strip_label(option: str) -> str:
    """The option without a leading "(a) ", "a) " or "A. "."""
    return _LABEL.sub("", option, count=1) if _LABEL.match(option) else option


def _squeeze(text: str) -> str:
    return " ".join(text.translate(_PLAIN).split())


def _clean(text: str) -> str:
    text = _SPECIAL_TOKEN.sub(" ", text).translate(_PLAIN)
    lines = (" ".join(line.split()) for line in _MARKDOWN.sub(" ", text).splitlines())
    return _HARD_WRAP.sub(" ", "\n".join(filter(None, lines)).strip(" \n\"'"))


def _read(
    text: str,
    answer: str,
    key: Callable[[re.Match[str]], K],
    positions: Mapping[K, Sequence[int]],
) -> Extraction:
    """Decide which option a cleaned text affirms.

    ``answer`` is the pattern of a mention, ``key`` says what a mention names, and ``positions``
    which options that is. ``answer`` comes before refusals and negations in the scan, so that
    options such as "not visible" or "unknown" can be chosen.
    """
    affirmed: dict[K, str] = {}
    asked: dict[K, str] = {}
    final: dict[K, str] = {}
    denied: set[K] = set()
    clause: dict[K, str] = {}
    sentence: dict[K, str] = {}
    scope: str | None = None
    explicit = refused = False
    verbose = re.compile(f"{_MARKER}|{answer}|{_CONTROL}", re.VERBOSE)
    for token in verbose.finditer(text + "\n"):
        kind = token.lastgroup
        if kind == "marker":
            if scope is None:
                affirmed |= sentence | clause
                sentence, clause, explicit = {}, {}, True
        elif kind == "refusal":
            refused, scope = True, "negation"
        elif kind in ("neither", "negation"):
            scope = kind
        elif kind in ("comma", "stop"):
            # "neither left, right, nor front": only "nor" lets a comma end the negation.
            if kind == "stop" or scope == "negation":
                scope = None
            sentence, clause = sentence | clause if clause else sentence, {}
        elif kind in ("end", "label"):
            if kind == "label" and scope:  # "not A. Left" goes on
                continue
            sentence |= clause
            if token.group() == "?":
                asked |= sentence
            else:
                affirmed |= sentence
                final = sentence if explicit and sentence else final
            sentence, clause, scope, explicit = {}, {}, None, False
        else:
            named = key(token)
            if _DENIED.match(text, token.end()):  # "left and right are wrong" denies both
                denied |= {named, *clause}
                clause = {}
            elif scope:
                denied.add(named)
            else:
                clause[named] = token.group()

    if len(final) == 1:
        affirmed, asked = final, {}
    elif refused:
        return Extraction(None, "refusal")
    if len(affirmed | asked) > 1:
        return Extraction(None, "ambiguous", " / ".join((affirmed | asked).values()))
    if not affirmed:
        turned_down = not asked and positions and denied >= set(positions)
        return Extraction(None, "refusal") if turned_down else _NOTHING
    [(named, match)] = affirmed.items()
    return _found(positions.get(named, ()), match)


def _found(indexes: Sequence[int], match: str) -> Extraction:
    if len(indexes) == 1:
        return Extraction(indexes[0], "found", match)
    return Extraction(None, "ambiguous", match) if indexes else _NOTHING


def keyword(
    text: str,
    options: Sequence[str],
    *,
    ignore_case: bool = True,
    synonyms: Mapping[str, Sequence[str]] | None = None,
) -> Extraction:
    """The one option that the text affirms as a whole word or phrase.

    The longer option wins where two overlap. Hyphens and apostrophes belong to words ("on" is not
    in "hands-on", nor "can" in "can't"), except in "left-hand", "left-side" and the genitive.
    """
    owners: dict[str, list[int]] = {}
    for index, option in enumerate(options):
        bare = strip_label(option)
        for phrase in (bare, *(synonyms or {}).get(bare, ()), *(synonyms or {}).get(option, ())):
            phrase = _squeeze(phrase)
            held = owners.setdefault(phrase.casefold() if ignore_case else phrase, [])
            if phrase and index not in held:
                held.append(index)
    phrases = sorted(filter(None, owners), key=lambda phrase: (-len(phrase), phrase))
    if not phrases:
        return _NOTHING
    # A group each: the text of a match may differ from its phrase in more than ASCII case.
    choices = "|".join(
        f"(?P<o{n}>{r'\s'.join(map(re.escape, phrase.split()))})"
        if False
        else f"(?P<o{n}>{_words(phrase)})"
        for n, phrase in enumerate(phrases)
    )
    return _NOTHING
