"""Finds the words of the options in a text."""

import bisect
import re
import string
from collections.abc import Sequence
from functools import lru_cache

from vlm_harness.protocols.statements import Mention
from vlm_harness.protocols.text import CJK, squeeze
from vlm_harness.specs.labels import without_labels

QUOTES = " \"'"


class Phrases:
    """The words of the options, compiled."""

    def __init__(
        self,
        options: Sequence[str],
        synonyms: Sequence[tuple[str, tuple[str, ...]]],
        ignore_case: bool,
    ) -> None:
        self._fold = str.casefold if ignore_case else str
        self._ignore_case = ignore_case
        self.owners: dict[str, list[int]] = {}
        spelling: dict[str, str] = {}
        also = dict(synonyms)
        bare = without_labels(options)
        spoken = {each.casefold() for each in bare}
        for index, (option, own) in enumerate(zip(options, bare, strict=True)):
            builtin = _SYNONYMS.get(own.casefold(), ())
            for written in (
                own,
                *also.get(own, ()),
                *also.get(option, ()),
                *(each for each in builtin if each not in spoken),
            ):
                phrase = squeeze(written).strip(QUOTES).rstrip(QUOTES + ".")
                spelling.setdefault(self._fold(phrase), phrase)
                indexes = self.owners.setdefault(self._fold(phrase), [])
                if index not in indexes:
                    indexes.append(index)
        self.owners.pop("", None)
        self._folded = sorted(self.owners, key=lambda phrase: (-len(phrase), phrase))
        # One group per phrase: re.IGNORECASE matches more than casefold() maps ("İ" and "i").
        self._pattern = re.compile(
            "|".join(f"({word(spelling[phrase], ignore_case)})" for phrase in self._folded)
            or r"(?!)"
        )
        set_phrases = [
            each for word in self.owners for each in _SET_PHRASES.get(word.casefold(), ())
        ]
        self._set_phrases = (
            re.compile("|".join(set_phrases), re.IGNORECASE) if set_phrases else None
        )

    def positions(self) -> dict[str, list[int]]:
        """Positions of the options by the name of their mentions."""
        return {str(indexes): indexes for indexes in self.owners.values()}

    def mentions(self, text: str, ignore: Sequence[str] = ()) -> list[Mention]:
        skipped = [] if self._set_phrases is None else [self._set_phrases]
        skipped += [
            re.compile(word(phrase, self._ignore_case))
            for phrase in ignore
            if self._fold(phrase) not in self.owners
        ]
        spans = sorted(match.span() for pattern in skipped for match in pattern.finditer(text))
        starts = [start for start, _ in spans]
        found = []
        for match in self._pattern.finditer(text):
            at = bisect.bisect_right(starts, match.start()) - 1
            around = spans[max(0, at - 3) : at + 1]
            if any(end >= match.end() and (start, end) != match.span() for start, end in around):
                continue
            found_word = match.group()
            letter = len(found_word) == 1 and found_word.isascii() and found_word.isalpha()
            if letter and text.strip(string.punctuation + " ") != found_word:
                continue  # the option "a" is for the extractor letter
            indexes = self.owners[self._folded[(match.lastindex or 1) - 1]]
            found.append(Mention(match.start(), match.end(), str(indexes)))
        return found


@lru_cache(maxsize=4096)
def phrases_of(
    options: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...], ignore_case: bool
) -> Phrases:
    return Phrases(options, synonyms, ignore_case)


_SYNONYMS = {"under": ("underneath",)}
_IMAGE = (
    r"(?:the |this |that |both |your |these |those )?(?:\w+ )?"
    r"(?:images?|pictures?|photos?|photographs?|scene)"
)
_SET_PHRASES = {
    "on": (
        r"\b(?:based|focus\w*|depend\w*|rel(?:y|ies|ied|ying)|concentrat\w*|comment\w*|insist\w*"
        r"|elaborat\w*|agree\w*|later|going|goes|go|so|early|further|now|reflect\w*|call\w*|act"
        r"|expand\w*|improv\w*|impos\w*|contingent|conditional|built|bet) (?:\w+ly )?on\b",
        r"\bon (?:the (?:other|one|contrary|whole|same|far|left|right|opposite|floor|ground|side"
        r"|(?:top|bottom)[ -](?:left|right))(?: hand| side)?|either side|average|its own|display"
        rf"|purpose|time|{_IMAGE})\b",
    ),
    "in": (
        rf"\bin (?:{_IMAGE}|addition|fact|general|order|particular|conclusion|summary|contrast"
        r"|this case|terms|which)\b",
        r"\b(?:results?|resulting|interested) in\b",
    ),
    "over": (r"\b(?:all )?over (?:all|time)\b", r"\b(?:more|left|prefer\w*) over\b"),
    "under": (
        r"\bunder (?:the )?(?:circumstances|conditions?|consideration|construction|control)\b",
    ),
    "above": (
        r"\b(?:none|all|any|both|neither|either|each) of the above\b",
        r"\b(?:as|mentioned|stated|described|given|listed|shown|the) above\b(?! (?:the|of|it)\b)",
    ),
    "below": (r"\b(?:as|see|mentioned|listed|shown|given|described) below\b",),
    "right": (
        r"\b(?:all|that's|that is|you're|you are|you|quite|just) right\b",
        r"\bright (?:answers?|options?|choices?|captions?|now|away|angles?|triangles?|next|before"
        r"|after|beside|behind|there|here|in|on|above|below|under|at)\b",
    ),
    "left": (r"\b(?:nothing|anything|something|has|have|had) left\b(?! (?:of|side|hand)\b)",),
    "behind": (r"\b(?:reason\w*|logic|idea|thinking|intention) behind\b",),
    "true": (r"\bif (?:it is |this is |that is )?true\b",),
}
"""By option, patterns of phrases that contain its word but do not name it."""


def word(phrase: str, ignore_case: bool) -> str:
    article = r",?\s(?:(?:an?|the)\s)?"
    words = NO if phrase.casefold() == "no" else article.join(map(re.escape, phrase.split()))
    # Chinese and Japanese are written without spaces between words.
    spaced = not re.search(f"[{CJK}]", phrase)
    before = r"(?<!\w)(?<!\w['-])(?<!\d[.,])" if spaced else ""
    after = r"(?!\w|'(?!s\b)\w|-(?!(?:hand|side)\b)\w|[.,]\d)" if spaced else ""
    flag = "i" if ignore_case else ""
    return rf"{before}(?{flag}:{words}){after}"


NO = r"no(?=[ ]?(?:[^\w\s'-]|\n|\Z))"
"""\"No\" as a word of its own; before a noun (\"no dog\") it does not name an option."""
