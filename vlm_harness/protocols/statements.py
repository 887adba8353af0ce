"""Cuts an answer into statements, and finds what each says about the options."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vlm_harness.protocols import grammar


class Mention(NamedTuple):
    """A place where a text names something that may be an option."""

    start: int
    end: int
    name: str
    """What is named; mentions of the same thing have the same name."""
    weak: bool = False
    """Supports or contradicts a choice, but does not make one by itself."""


BARE, COMPLEMENT, CONCLUSION, MARKED = 1, 2, 3, 4
"""How much a choice counts: an answer by itself ("B."), the end of a clause after "is", a sentence
that concludes ("So ... B"), an announced answer ("The answer is B")."""


@dataclass(slots=True)
class Statement:
    """A sentence or line. Options are characters of the sketch."""

    text: str
    """The sketch of the statement."""
    words: str = ""
    """The words of its mentions."""
    affirmed: list[str] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    main: set[str] = field(default_factory=set)
    """The options that the main clause affirms."""
    chosen: list[str] = field(default_factory=list)
    """The options that the statement announces or concludes."""
    rank: int = 0
    """How much ``chosen`` counts: see ``BARE`` and the others."""
    opens: str = ""
    """The option that the statement begins with."""
    starts: str = ""
    """The option that the statement begins with, like a label: "B, because ..."."""
    item: str = ""
    """The option that an enumeration discusses here."""
    bare: bool = False
    """Nothing but an answer."""
    new_line: bool = True
    asks: bool = False
    revised: bool = False
    """The statement before announces that the answer is reconsidered."""
    announces: bool = False
    """The answer is announced, and follows on the next line."""
    announced: bool = False
    """The statement before announced this answer."""

    @property
    def refuses(self) -> bool:
        return bool(grammar.REFUSES.search(self.text))

    @property
    def best(self) -> bool:
        """Whether it contains a comparative or superlative."""
        return bool(grammar.SUPERLATIVE.search(self.text) or grammar.SUPERLATIVE.search(self.words))

    @property
    def most(self) -> bool:
        return bool(grammar.MOST.search(self.text))

    @property
    def contrasts(self) -> bool:
        return bool(grammar.CONTRAST.search(self.text))

    @property
    def turns(self) -> bool:
        """Whether it turns to another option: "B, on the other hand, ..."."""
        return bool(grammar.TURNS.search(self.text))

    @property
    def explains(self) -> bool:
        return bool(grammar.EXPLAINS.match(self.text))

    @property
    def concludes(self) -> bool:
        return bool(grammar.CONCLUDES.match(self.text))

    @property
    def final(self) -> bool:
        """Whether the answer is called final, or revises what was said before."""
        return self.revised or bool(
            grammar.FINAL.search(self.text) or grammar.REVISES.search(self.text)
        )


_END = re.compile(
    r"""(?<![\W_][A-Za-z])(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\b[DM]r)(?<!\bcf)\.(?!\w)["')\]]*
    |[!?]+["')\]]*|\n
    |(?<=[\ue000-\uf8ff"')\]])[ ]
        (?=(?:The|This|That|It|In|There|Because|Here|Explanation|Reason|Note|I)\b)""",
    re.VERBOSE,
)
_O = re.compile(grammar.O)
_TOKEN = re.compile(
    "|".join(
        f"(?P<{name}>{part.pattern})"
        for name, part in (
            ("neither", grammar.NEITHER),
            ("negation", grammar.NEGATION),
            ("doubt", grammar.QUESTION_WORD),
        )
    )
    + f"|{grammar.CLAUSE.pattern}|(?P<option>{grammar.O})",
    re.IGNORECASE | re.VERBOSE,
)
_STARTS = re.compile(
    rf"\A{grammar.SKIP}(?:(?:the|final|my|correct) ){{0,3}}(?:answer|option|choice|caption|output)?"
    rf"[ :\"'(\[]{{0,4}}({grammar.O})[\"')\]]{{0,3}}"
    r"(?:[ ]?[,;:.)–—]|[ ](?:-|because\b|since\b|as\b|due\b)|\Z)",
    re.IGNORECASE,
)
_OPENS = re.compile(
    rf"\A{grammar.SKIP}(?:(?:option|choice|the|point|picture|image|answer|caption|box|\d) ){{0,2}}"
    rf"[\"'(\[]{{0,3}}({grammar.O})",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[ :.()\[\]\"'–=-]{0,8}(?:the )?")
_BEFORE = re.compile(rf"({grammar.O})[:.,()\[\]\"'–= -]{{0,8}}(?:the )?\Z")
_NEXT = re.compile(rf"[:.,()\[\]\"'–= -]{{0,8}}(?:the )?({grammar.O})")


def statements(text: str, mentions: Sequence[Mention], codes: Mapping[str, str]) -> list[Statement]:
    """The statements of a text.

    Args:
        mentions: in the order of the text, without overlap.
        codes: the private character of each name.
    """
    mentions = _merged(text, mentions)
    found: list[Statement] = []
    words = iter(mentions)
    announced, new_line = False, True
    sketch = _sketch(text, mentions, codes)
    for begin, end, stop in _cuts(sketch):
        part = sketch[begin:end].strip()
        if not part:
            new_line |= stop == "\n"
            continue
        one = _statement(part, asks="?" in stop)
        own = [next(words) for _ in _O.findall(part)]
        one.words = " ".join(text[each.start : each.end] for each in own)
        one.new_line, new_line = new_line, stop == "\n"
        if announced and not one.rank and one.affirmed:
            one.chosen, one.rank, one.announced = one.affirmed[:1], MARKED, True
        elif announced and one.rank == BARE:
            one.rank, one.announced = MARKED, True
        one.revised = bool(found and grammar.RECONSIDERS.search(found[-1].text))
        announced = one.announces
        found.append(one)
    _mark_items(found)
    return found


_LONGEST = 2000


def _cuts(sketch: str) -> Iterator[tuple[int, int, str]]:
    """Begin and end of each sentence or line, and what ends it.

    Longer ones are cut, because the time for one grows faster than its length.
    """
    start = 0
    for stop in _END.finditer(sketch + "\n"):
        while stop.start() - start > _LONGEST:
            yield start, start + _LONGEST, ""
            start += _LONGEST
        yield start, stop.start(), stop.group()
        start = stop.end()


def _merged(text: str, mentions: Sequence[Mention]) -> list[Mention]:
    """Mentions, with those of one option that stand together as one: "the third image (C)"."""
    merged: list[Mention] = []
    for each in mentions:
        before = merged[-1] if merged else None
        if (
            before is not None
            and before.name == each.name
            and _BETWEEN.fullmatch(text, before.end, each.start)
        ):
            merged[-1] = Mention(before.start, each.end, each.name, before.weak and each.weak)
        else:
            merged.append(each)
    return merged


def _sketch(text: str, mentions: Sequence[Mention], codes: Mapping[str, str]) -> str:
    """The text with one character per mention."""
    parts, end = [], 0
    for each in mentions:
        parts += [text[end : each.start], codes[each.name]]
        end = each.end
    return "".join([*parts, text[end:]])


def _mark_items(statements: Sequence[Statement]) -> None:
    """Find enumerations, which go through the options, one per line."""
    lines = [n for n, each in enumerate(statements) if each.new_line and each.opens]
    runs: list[list[int]] = []
    for n in lines:
        before = statements[runs[-1][-1]] if runs else None
        one = statements[n]
        seen = {statements[each].opens for each in runs[-1]} if runs else set()
        if before and one.opens not in seen and before.bare == one.bare:
            runs[-1].append(n)
        else:
            runs.append([n])
    for run in runs:
        if len(run) < 2:
            continue
        if statements[run[0]].announced:
            statements[run[0]].rank = 0
        for begin, end in zip(run, [*run[1:], run[-1] + 1], strict=True):
            for each in statements[begin:end]:
                each.item = statements[begin].opens


def _statement(part: str, asks: bool) -> Statement:
    found = Statement(part, asks=asks)
    if not _O.search(part):
        found.announces = bool(
            part.endswith((":", "=")) and (grammar.MARKER.search(part) or _concludes(part))
        ) or bool(_HEADING.fullmatch(part))
        return found
    part = grammar.COMPARED.sub(lambda match: _O.sub(" ", match.group()), part)
    places = _stances(part, found)
    until = _before_aside(part)
    found.main = {part[each] for each in places if each < until}
    marker = _marker(part)
    found.asks = asks and (marker is None or bool(grammar.INTERROGATIVE.match(part)))
    if found.asks or not places:
        return found
    _choose(part, found, places, marker)
    if opens := _OPENS.match(part):
        found.opens = opens[1]
    starts = _STARTS.match(part)
    if starts and starts[1] in found.affirmed and len(_together(part, starts.start(1))) == 1:
        found.starts = starts[1]
    return found


_HEADING = re.compile(r"(?i)\W{0,8}(?:the )?(?:final |correct ){0,2}(?:answer|conclusion)\W{0,8}")


def _choose(part: str, found: Statement, places: Sequence[int], marker: int | None) -> None:
    """Record what a statement chooses, and how much that counts."""
    found.bare = not grammar.FILLER.sub("", _O.sub("", part))
    if marker is not None:
        until = _before_aside(part, marker)
        after = [each for each in places if marker <= each < until]
        if after:
            found.chosen, found.rank = _together(part, after[0]), MARKED
            return
        found.announces = part.endswith((":", "="))
    righted = [
        each.start()
        for each in grammar.RIGHTED.finditer(part)
        if part[each.start()] in found.affirmed
        and not grammar.CONCEDES.search(part, 0, each.start())
    ]
    if righted:
        found.chosen, found.rank = _together(part, righted[-1]), MARKED
    elif grammar.CORRECTS.match(part) and len({*found.affirmed}) == 1:
        found.chosen, found.rank = found.affirmed[:1], MARKED
    elif found.bare:
        found.chosen, found.rank = sorted({*found.affirmed, *found.listed}), BARE
    elif concluded := _conclusion(part, found, places):
        found.chosen, found.rank = sorted(concluded), CONCLUSION
    elif len({*found.affirmed}) == 1:
        complement = grammar.COMPLEMENT.search(part)
        if complement and complement.start(1) in places:
            found.chosen, found.rank = [complement[1]], COMPLEMENT


def _before_aside(part: str, start: int = 0) -> int:
    """Where the main clause ends."""
    aside = grammar.ASIDE.search(part, start)
    return aside.start() if aside else len(part)


def _stances(part: str, found: Statement) -> list[int]:
    """Record what a statement affirms, denies and lists; return where it affirms and lists."""
    lists = [(each.start(), each.end()) for each in grammar.LISTED.finditer(part)]
    scope: str | None = None
    places: list[int] = []
    prelude = grammar.PRELUDE.match(part)
    reasons_until = prelude.end() if prelude else 0
    denied_until = -1
    for token in _TOKEN.finditer(part):
        kind, at = token.lastgroup, token.start()
        if kind in ("neither", "negation", "doubt"):
            scope = kind
        elif kind in ("comma", "stop"):
            # In "neither left, right, nor front", a comma does not end the negation.
            inside = any(start < at < end for start, end in lists)
            if not (kind == "comma" and (scope == "neither" or (inside and scope))):
                scope = None
        else:
            code = token.group()
            group = next((g for g in lists if g[0] <= at < g[1]), (at, at + 1))
            if at < denied_until or grammar.DENIED.match(part, group[1]):
                denied_until = group[1]
                found.denied.add(code)
            elif scope == "doubt" or at < reasons_until:
                continue
            elif scope:
                found.denied.add(code)
            elif len(set(_O.findall(part[slice(*group)]))) > 1:
                found.listed.add(code)
                places.append(at)
            else:
                found.affirmed.append(code)
                places.append(at)
    return places


def _marker(part: str) -> int | None:
    """Where the announcement of an answer ends; None without one, or if it is negated.

    Of several, the last that a mention follows, but none in the reasons given for an earlier one.
    """
    last = None
    for marker in grammar.MARKER.finditer(part):
        clause = re.split(r"[,;:]", part[: marker.start()])[-1]
        if grammar.NEGATION.search(clause) or grammar.PROPOSES.search(clause):
            continue
        answered = last is not None and _O.search(part, last)
        if answered and (
            not _O.search(part, marker.end()) or _BECAUSE.search(part, last or 0, marker.start())
        ):
            break
        last = marker.end()
    return last


_BECAUSE = re.compile(r"\b(?:because|since|as|due to|given)\b", re.IGNORECASE)


def _together(part: str, at: int) -> list[str]:
    """The option at a place, with those that are listed with it or directly follow it."""
    for group in grammar.LISTED.finditer(part):
        if group.start() <= at < group.end():
            return list(dict.fromkeys(_O.findall(group.group())))
    following, before = _NEXT.match(part, at + 1), _BEFORE.search(part, max(0, at - 16), at)
    together = [part[at], *(each[1] for each in (following, before) if each)]
    return list(dict.fromkeys(together))


def _concludes(part: str) -> int | None:
    """Where a conclusion begins."""
    opener = grammar.CONCLUDES.match(part)
    if opener:
        return opener.end()
    return max((each.end() for each in grammar.SO.finditer(part)), default=None)


def _conclusion(part: str, found: Statement, places: Sequence[int]) -> set[str]:
    """The options after "therefore" or "so"; empty without it, or if others come before it."""
    begins = _concludes(part)
    if begins is None:
        return set()
    until = _before_aside(part, begins)
    after = {part[each] for each in places if begins <= each < until}
    if len(after - found.listed) == 1:
        after -= found.listed
    before = {part[each] for each in places if each < begins}
    return set() if before - after else after
