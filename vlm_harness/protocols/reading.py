"""The parser that the extractors share: find the option that a text affirms, without guessing."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar


@dataclass(frozen=True, slots=True)
class Extraction:
    """The result of an extractor."""

    index: int | None
    """Position in the options as shown; None if unparsed."""
    reason: Literal["found", "nothing", "ambiguous", "refusal"]
    match: str | None = None
    """The part of the text that decided."""


K = TypeVar("K", bound=Hashable)


NOTHING = Extraction(None, "nothing")


SPECIAL = re.compile(r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:[be]os|pad|unk|end_of_\w{1,20})>")


# Keep underscores inside words; otherwise `x_left` would become two words.
_MARKDOWN = re.compile(r"[*`]+|(?<![^\W_])_+|_+(?![^\W_])")


_HARD_WRAP = re.compile(r"(?<=[a-z,])\n(?=[a-z])")


QUOTES = " \"'"


_PLAIN = str.maketrans("“”‘’（）：，。", "\"\"''():,.")


_MARKER = r"""(?P<marker>(?i:
    \b(?:(?:final|correct|right|best)[ ]){0,3}(?:answer|choice|option)
        (?:[ ]to[ ](?:the|this|your)[ ]question)?
        (?:["']?[ ]?[:=]|[ ](?:is|would[ ]be|should[ ]be|must[ ]be)\b[ ]?:?)
    | \b(?:correct|right|best|closest)[ ](?:caption|description)[ ](?:is|would[ ]be)\b[ ]?:?
    | \bI(?:[ ](?:will|would|must)|'(?:ll|d))[ ](?:choose|select|pick)\b
    | \b(?:if[ ])?(?:I[ ])?(?:forced|have|had|need)[ ]to[ ](?:choose|select|pick)\b
    | \bassistant: | <answer> | </think> | \\boxed\{
)\s*)"""


REFUSAL = r"""(?P<refusal>(?i:
    \b(?:can(?:not|'t|[ ]not)[ ](?:be[ ])?|(?:un|not[ ])able[ ]to[ ]
        |(?:not[ ]|im)possible[ ]to[ ]|(?:hard|difficult)[ ]to[ ])
        (?:\w{1,20}ly[ ])?(?:be[ ]sure|(?:see|view)[ ](?:the|this|any|your)[ ](?:image|pic|photo)
        |(?:determin|tell|say|know|answer|assist|help|identif|verif|confirm|comply|provid|judge)\w*)
    | \b(?:unclear|unsure|uncertain|not[ ](?:clear|sure|certain))\b
    | \b(?:don't|do[ ]not)[ ]know\b | \bno[ ]idea\b | \bas[ ]an?[ ](?:ai|language[ ]model)\b
    | \b(?:not[ ]|n't[ ]\w{1,12}[ ])enough[ ](?:information|context|detail)
    | \bsorry\W{1,3}(?:but[ ])?i(?:[ ]ca|'m[ ](?:not|un)|[ ]am[ ](?:not|un))
    | \b(?:none|neither|both|all|either)[ ](?:of[ ](?:the[ ]above|them|these|those)
            # not "all of these men": what follows is a verb, or nothing
            (?:(?![ ]\w)|(?=[ ](?:is|are|seems?|appl(?:y|ies)|fits?|match(?:es)?|describes?)\b))
        |(?:of[ ])?(?:(?:the|these|those)[ ])?(?:(?:given|provided|listed|two)[ ])?
        (?:caption|option|answer|choice|statement)s?)\b
    | \b(?:none|neither|both)[ ](?:is|are|seems?)\b
    | \A\W*(?:both|neither|none|unknown|n/a)\W*\Z
))"""


# "and" ends a negation only before a new verb, since "not left and right" denies both.
_CONTROL = r"""(?P<neither>(?i:\bneither\b))
| (?P<negation>(?i:
    \bnot\b(?![ ]only\b) | \bno\b(?![ ](?:doubt|question)\b) | n't\b | \b(?:is|does|ca)nt\b
    | \b(?:cannot|never|nor|none|without|hardly|unlikely|incorrect|wrong|except)\b
    | \b(?:rather|other)[ ]than\b | \binstead[ ]of\b
))
| (?P<doubt>(?i:\b(?:whether|if)\b))
| (?P<label>(?<=\W[A-Za-z])\.(?=[ ]))
| (?P<end>[!?\n]|\.(?!\w))
| (?P<comma>,)
| (?P<stop>(?i:[;–—]|[ ]-[ ]|\b(?:but|however|although|though|while|whereas|because)\b
    |\band[ ](?:is|it|sits|stands|lies)\b))"""


# "no" as a word of its own; before a noun ("no dog") it does not name an option.
NO = r"no(?=[ ]?(?:[^\w\s'-]|\n|\Z))"


_DENIED = re.compile(
    r"""['")\]]{0,2}(?:[ ](?:option|answer|choice|side))?
        [ ](?:is|are|was|were|does|can|could|would|should)(?:n't|[ ]not|not)\b
    | ['")\]]{0,2}[ ]can't\b
    | [^.,;:!?\n]{0,60}?[ ](?:is|are|was|were)[ ](?:\w{1,10}[ ])?
        (?:incorrect|wrong|false|inaccurate)\b""",
    re.VERBOSE | re.IGNORECASE,
)


def squeeze(text: str) -> str:
    return " ".join(text.translate(_PLAIN).split())


def clean(text: str) -> str:
    text = SPECIAL.sub(" ", text).translate(_PLAIN)
    lines = (" ".join(line.split()) for line in _MARKDOWN.sub(" ", text).splitlines())
    return _HARD_WRAP.sub(" ", "\n".join(filter(None, lines)).strip("\n" + QUOTES))


_COMMON = re.compile(f"{_MARKER}|{REFUSAL}|{_CONTROL}", re.VERBOSE)


def _tokens(text: str, answer: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Markers, mentions, refusals and negations; in this order if they begin at the same place.

    The result is that of one combined pattern. But only the pattern of the mentions differs between
    samples, and recompiling the combined pattern for each sample would take most of the time.
    """
    position = 0
    common, mention = _COMMON.search(text), answer.search(text)
    while common or mention:
        marks = common is not None and common.lastgroup == "marker"
        if mention is None or (
            common is not None
            and (common.start() < mention.start() or (marks and common.start() == mention.start()))
        ):
            assert common is not None
            token = common
        else:
            token = mention
        yield token
        position = max(token.end(), position + (token.end() == token.start()))
        if common is not None and common.start() < position:
            common = _COMMON.search(text, position)
        if mention is not None and mention.start() < position:
            mention = answer.search(text, position)


def read(
    text: str,
    answer: str,
    key: Callable[[re.Match[str]], K],
    positions: Mapping[K, Sequence[int]],
) -> Extraction:
    """Find the option that a cleaned text affirms.

    Args:
        text: as returned by ``clean``.
        answer: pattern of a mention of an option.
        key: returns what a mention names.
        positions: positions of the options with that name.

    Mentions take precedence over refusals and negations, so that options such as "not visible" or
    "unknown" can be chosen.
    """
    affirmed: dict[K, str] = {}
    asked: dict[K, str] = {}
    final: dict[K, str] = {}
    sentence: dict[K, str] = {}
    clause: dict[K, str] = {}
    denied: set[K] = set()
    scope: str | None = None
    explicit = refused = False
    for token in _tokens(text + "\n", re.compile(answer, re.VERBOSE)):
        kind = token.lastgroup if token.re is _COMMON else None
        if kind == "marker":
            if not scope:  # "I don't think the answer is left" marks nothing
                affirmed |= sentence | clause
                sentence, clause, explicit = {}, {}, True
        elif kind == "refusal":
            refused, scope = True, "negation"
        elif kind in ("neither", "negation", "doubt"):
            scope = kind
        elif kind in ("comma", "stop"):
            # In "neither left, right, nor front", a comma does not end the negation.
            if kind == "stop" or scope != "neither":
                scope = None
            sentence.update(clause)
            clause.clear()
        elif kind in ("label", "end"):
            if kind == "label" and scope:  # "not A. Left" continues
                continue
            if explicit and not sentence and not clause and text.endswith(":", 0, token.start()):
                continue  # the announced answer is on the next line
            sentence.update(clause)
            clause.clear()
            if token.group() == "?":
                asked |= sentence
            else:
                affirmed |= sentence
                if explicit and sentence:  # only a later negation can withdraw it
                    final, denied = sentence, set()
            sentence, scope, explicit = {}, None, False
        elif _DENIED.match(text, token.end()):  # "left and right are wrong" denies both
            denied |= {key(token), *clause}
            clause.clear()
        elif scope == "doubt":
            continue
        elif scope:
            denied.add(key(token))
        else:
            clause[key(token)] = token.group()

    none_fits = bool(positions) and denied >= positions.keys()
    if len(final) == 1 and not none_fits:
        affirmed, asked = final, {}
    elif refused or none_fits:
        return Extraction(None, "refusal")
    named = affirmed | asked
    if len(named) > 1:
        return Extraction(None, "ambiguous", " / ".join(named.values()))
    for name, match in affirmed.items():
        return decide(positions.get(name, ()), match)
    return NOTHING


def decide(indexes: Sequence[int], match: str) -> Extraction:
    """Found if exactly one option has the name; ambiguous if several have it; else nothing."""
    if len(indexes) == 1:
        return Extraction(indexes[0], "found", match)
    return Extraction(None, "ambiguous", match) if indexes else NOTHING
