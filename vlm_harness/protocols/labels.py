"""Finds the labels of the options in a text: "(b)", "Option B", "Box B ... Box A"."""

import re
import string
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

from vlm_harness.protocols.phrases import QUOTES, phrases_of
from vlm_harness.protocols.statements import Mention
from vlm_harness.protocols.text import CJK, LETTER
from vlm_harness.specs.labels import own_labels, without_labels


@lru_cache(maxsize=4096)
def labels_of(options: tuple[str, ...]) -> "Labels":
    """The labels of some options, compiled once."""
    return Labels(options)


class Labels:
    """The labels of the options, compiled."""

    def __init__(self, options: Sequence[str]) -> None:
        labels = [label.upper() for label in own_labels(options)] or list(
            string.ascii_uppercase[: len(options)]
        )
        self.positions = {label: [index] for index, label in enumerate(labels)}
        self._phrases = phrases_of(tuple(options), (), True)
        self._by_position = {str([index]): label for index, label in enumerate(labels)}
        either = "|".join(sorted(map(re.escape, labels), key=len, reverse=True)) or "(?!)"
        flags = re.IGNORECASE | re.VERBOSE | re.MULTILINE
        # A label with its punctuation; `bare` is judged by the words around it.
        self._pattern = re.compile(
            rf"""(?<!{LETTER})[(\[{{](?P<bracketed>{either})[)\]}}]
            | (?<!{LETTER})["'](?P<quoted>{either})[.)]?["'](?!{LETTER})
            | (?<!{LETTER})(?<!['(.-])(?P<closed>{either})\)
            | (?m:^)(?:["'(]?)(?P<begins>{either})(?=[.:](?!\w)|[ ]?[-–—][ ])
            | (?m:^)[^\w\n]{{0,4}}(?P<alone>{either})[^\w\n]{{0,4}}$
            | \A(?P<comma>(?!i,){either})(?=,)
            | (?<!{LETTER})(?<!['.-])(?<!\d,)(?<!\w[(])
                (?P<bare>{either})(?!{LETTER}|['-]\w|\.\w|[ ]?%|,\d)""",
            flags,
        )
        self._frames = {
            found[1].casefold()
            for option in without_labels(options)
            for found in re.finditer(r"(\w+) ([A-Z])\b", option)
            if found[2] in self.positions
        }

    def mentions(self, text: str) -> list[Mention]:
        text = _NOT_AVAILABLE.sub("   ", text)
        lone = text.strip(string.punctuation + string.whitespace).upper()
        if lone in self.positions:
            return [Mention(0, len(text), lone)]
        if _ONLY_LABELS.fullmatch(text):
            names = [(each, each.group().upper()) for each in re.finditer(r"\w+", text)]
            if all(name in self.positions or name in ("AND", "OR") for _, name in names):
                return [Mention(m.start(), m.end(), n) for m, n in names if n in self.positions]
        phrases = self._phrases.mentions(text)
        whole = [each for each in phrases if _is_whole(text, each)]
        if whole:  # an option "Neither" is left to keyword
            name = self._by_position.get(whole[0].name, "")
            return [Mention(0, len(text), name, weak=True)]
        found: list[Mention] = []
        frames = self._frames | self._shared_frames(text)
        for match in self._pattern.finditer(text):
            kind = match.lastgroup or ""
            label = match[kind].upper()
            if kind != "bare" or self._stands_as_label(text, match, frames):
                found.append(Mention(match.start(), match.end(), label))
        return self._with_phrases(text, found, phrases)

    def _with_phrases(
        self, text: str, labels: Sequence[Mention], phrases: Sequence[Mention]
    ) -> list[Mention]:
        """Labels, and the words of options, which are one mention where they overlap."""
        kept: list[Mention] = []
        rest = deque(labels)
        for each in phrases:
            name = self._by_position.get(each.name)
            if name is None:
                continue
            while rest and rest[0].end <= each.start:
                kept.append(rest.popleft())
            inside = []
            while rest and rest[0].start < each.end:
                inside.append(rest.popleft())
            if not inside:
                # The option "Point B" names its own label.
                weak = not re.search(rf"\b{re.escape(name)}\b", text[each.start : each.end])
                kept.append(each._replace(name=name, weak=weak))
            elif {label.name for label in inside} == {name}:
                start, end = min(each.start, inside[0].start), max(each.end, inside[-1].end)
                kept.append(Mention(start, end, name))
            else:
                kept += inside
        return [*kept, *rest]

    def _shared_frames(self, text: str) -> set[str]:
        """Words that stand before at least two labels: "Box A", "box B"."""
        before: dict[str, set[str]] = {}
        for found in _FRAME.finditer(text):
            if found[2].upper() in self.positions:
                before.setdefault(found[1].casefold(), set()).add(found[2])
        return {word for word, labels in before.items() if len(labels) > 1}

    def _listed(self, text: str, match: re.Match[str]) -> bool:
        """Whether another label stands beside this one: "A, B and C"."""
        after = _LISTED_AFTER.match(text, match.end())
        before = _LISTED_BEFORE.search(text, max(0, match.start() - 12), match.start())
        return any(each and each[1] in self.positions for each in (after, before))

    def _stands_as_label(self, text: str, match: re.Match[str], frames: set[str]) -> bool:
        """Whether a letter or number without brackets is a label, rather than a word or a count."""
        label, start = match["bare"], match.start()
        capital = label.isupper()
        after_cjk = _AFTER_CJK.search(text, max(0, start - 1), start)
        if capital and (after_cjk or self._listed(text, match)):
            return True
        before = _BEFORE.search(text, max(0, start - 40), start)
        word = before[1].casefold() if before else ""
        if capital and word and not word.isascii():
            return True  # a language whose function words are not listed here
        joined = before is not None and not before[2]
        cue = word in _CUE_WORDS or bool(_CUE.search(text, max(0, start - 30), start))
        follows = bool(_FOLLOWS.match(text, match.end()))
        if not capital:
            # "There are 2 dogs" does not name an option.
            return cue and (label not in "ai" or follows)
        if (joined and word in frames) or (cue and (label not in "AI" or follows)):
            return True
        if label == "I":
            return follows and not word
        linked = not word or not joined or word in _LINKS
        if label != "A":
            return linked
        # Inside a sentence, an article is not written as a capital.
        inside = joined and word in _LINKS and before is not None and before[1].islower()
        return (linked and follows) or (inside and not _CAPITAL.match(text, match.end()))


_AFTER_CJK = re.compile(f"[{CJK}]")
_CAPITAL = re.compile(r" [A-Z]|-")
_ONLY_LABELS = re.compile(
    r"[\W_]{0,4}(?:[A-Za-z]|\d{1,2})"
    r"(?:[\W_]{1,6}(?:(?:and|or) \(?)?(?:[A-Za-z]|\d{1,2})){1,30}[\W_]{0,4}"
)
_LISTED_AFTER = re.compile(r"[\"')]?(?:,|/| ?&| and| or|, and|, or) ?[\"'(]?([A-Z])\b")
_LISTED_BEFORE = re.compile(r"\b([A-Z])[\"')]?(?:,|/| ?&| and| or|, and|, or) ?[\"'(]?\Z")
_NOT_AVAILABLE = re.compile(r"\bn/a\b", re.IGNORECASE)
_FRAME = re.compile(r"\b([A-Za-z]+) [\"'(]?([A-Z]|\d{1,2})\b(?!['-]\w)")
_BEFORE = re.compile(r"([\w']+)[ ]?([^\w\s]*)[\s\"'(\[]*\Z")
_CUE_WORDS = frozenset(
    """answer choice option letter caption options choices answers label labeled labelled point
    points box image images picture pictures figure statement description candidate region circle
    object""".split()  # noqa: SIM905
)
"""Words that a label may follow."""
_CUE = re.compile(
    r"(?i)\b(?:answer|choice|option|letter|caption|ans|choose|pick|select|go with|go for)s?"
    r"[\"']?[ ]?"
    r"(?:is|would be|should be|must be|will be)?[ ]?:?\s?[\"'(]*\Z"
)
# Before these, a letter is neither an article nor a pronoun.
_FOLLOWS = re.compile(
    r"""[^\w\s'-]|[ ][-–—=][ ]|\s?\Z|\n|[ ](?:is|are|was|and|or|nor|because|since|as|but|if|appears?
    |seems?|looks?|has|have|had|does|do|did|fits?|matches|match|shows?|represents?|corresponds?|more
    |less|most|better|best|lies|sits|stands|would|should|could|can|will|must|may|might|than|on|in|to
    |for|with|from|at|over|while|which|that|accurately|clearly|correctly|due|given|based|instead
    |rather|the)\b""",
    re.VERBOSE,
)
_LINKS = frozenset(
    """is be are was as so say choose pick select think and or but not than thus therefore with for
    to of hence go opt guess chose selected picked believe conclude consider prefer prefers s it's
    either neither nor between both only just definitely probably likely clearly from towards toward
    leaves remaining actually es est ist mark circle choosing picking selecting because since if
    when whether although though unlike comparing after before like even where among while whereas
    that then says said means me still would""".split()  # noqa: SIM905
)
"""Words after which a capital is a label."""


def _is_whole(text: str, mention: Mention) -> bool:
    outside = text[: mention.start] + text[mention.end :]
    return not outside.strip(QUOTES + string.punctuation + string.whitespace)
