"""Reads which option an answer chooses, from its structure rather than its words.

An answer is cut into statements (sentences and lines). Each statement is read by itself: which
options it affirms, denies, lists, asks about or only compares with, and how it relates to the
answer as a whole: it announces the answer, concludes, or is nothing but an answer. A conclusion
counts more than the reasoning before it, and conclusions that contradict each other leave the
answer ambiguous. The running time is linear in the length of the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlm_harness.protocols.grammar import FIRST, LAST
from vlm_harness.protocols.statements import (
    BARE,
    COMPLEMENT,
    CONCLUSION,
    MARKED,
    Mention,
    Statement,
    statements,
)


@dataclass(frozen=True, slots=True)
class Extraction:
    """The result of an extractor."""

    index: int | None
    """Position in the options as shown; None if unparsed."""
    reason: Literal["found", "nothing", "ambiguous", "refusal", "cut_off"]
    match: str | None = None
    """The part of the text that decided."""


NOTHING = Extraction(None, "nothing")
CUT_OFF = Extraction(None, "cut_off")
REFUSED = Extraction(None, "refusal")


def read(
    text: str, mentions: Sequence[Mention], positions: Mapping[str, Sequence[int]]
) -> Extraction:
    """Find the option that a text chooses.

    Args:
        text: as returned by ``text.plain``.
        mentions: in the order of the text, without overlap.
        positions: positions of the options with each name; a name may have none.

    Mentions take precedence over refusals and negations, so that options such as "not visible" or
    "unknown" can be chosen.
    """
    names = list(dict.fromkeys([*positions, *(each.name for each in mentions)]))
    codes = {name: chr(FIRST + n) for n, name in enumerate(names[: LAST - FIRST])}
    strong = {codes[each.name] for each in mentions if not each.weak}
    written = {codes[m.name]: text[m.start : m.end] for m in mentions if not m.weak}
    decided = _decide(statements(text, mentions, codes), {codes[name] for name in positions})
    if not strong:
        return REFUSED if decided == REFUSED else NOTHING
    if isinstance(decided, Extraction):
        match = " / ".join(dict.fromkeys(written.values()))
        return Extraction(None, "ambiguous", match) if decided.reason == "ambiguous" else decided
    if decided not in strong:
        return NOTHING
    indexes = positions.get(names[ord(decided) - FIRST], ())
    return choice(indexes, written[decided])


def choice(indexes: Sequence[int], match: str) -> Extraction:
    """Found if exactly one option has the name; ambiguous if several have it; else nothing."""
    if len(indexes) == 1:
        return Extraction(indexes[0], "found", match)
    return Extraction(None, "ambiguous", match) if indexes else NOTHING


_AMBIGUOUS = Extraction(None, "ambiguous")


def _decide(said: Sequence[Statement], options: set[str]) -> str | Extraction:
    """The option that the statements choose, or why there is none."""
    refused = any(each.refuses for each in said)
    denied = {code for each in said for code in each.denied}
    none_fits = bool(options) and denied >= options
    bare = {code for each in said if each.bare and not each.item for code in each.chosen}
    ends = len(said) > 1 and said[-1].rank == BARE and len(bare) == 1
    top = _conclusions(said, refused, ends)
    if top:
        if none_fits and max(said[n].rank for n in top) < MARKED:
            return REFUSED
        return _last_word([said[n] for n in top], said[top[-1] :], options, bare)
    lead = _lead(said)
    if lead:
        return lead
    if refused or none_fits:
        return REFUSED
    affirmed = [code for each in said if not each.asks for code in each.affirmed + each.chosen]
    listed = [code for each in said if not each.affirmed for code in each.listed]
    named = {*affirmed, *listed}
    if len(named) == 1 and affirmed:
        return affirmed[0]
    return _AMBIGUOUS if len(named) > 1 else NOTHING


def _conclusions(said: Sequence[Statement], refused: bool, ends: bool) -> list[int]:
    """Positions of the statements that say what the answer is, of the highest kind there is.

    Args:
        refused: whether any statement refuses to answer.
        ends: whether the last statement is an answer by itself.
    """
    last = len(said) - 1
    # What an enumeration says about its items is reasoning.
    own = [n for n, each in enumerate(said) if not each.item]
    concluding = [n for n in own if said[n].rank >= CONCLUSION]
    complements = [n for n in own if said[n].rank == COMPLEMENT and (said[n].most or not refused)]
    found = concluding or ([] if ends else complements)
    if ends and last not in found:
        found = [*found, last]
    return found or [n for n, each in enumerate(said) if each.rank >= CONCLUSION]


def _last_word(
    top: Sequence[Statement], later: Sequence[Statement], options: set[str], bare: set[str]
) -> str | Extraction:
    """What the conclusions of an answer agree on.

    Args:
        top: the conclusions.
        later: the last conclusion, and what follows it.
        bare: the options that lines consist of.
    """
    withdrawn = {code for each in later for code in each.denied}
    refused = any(each.refuses and not each.chosen for each in later[1:])
    if withdrawn and (withdrawn >= options or refused):
        return REFUSED
    last = top[-1]
    if len(last.chosen) != 1:
        return _AMBIGUOUS
    others = [each for each in top if each.chosen != last.chosen]
    codes = [code for each in top for code in each.chosen]
    closes = not any(each.affirmed or each.listed for each in later[1:])
    agreed = (
        not others
        or last.final
        or last.rank > max(each.rank for each in others)
        # "So the answer is A. ... So the answer is B. ..." goes through the options.
        or (closes and (last.bare or last.concludes) and len(set(codes)) < len(codes))
    )
    if not agreed or (len(bare) == 1 and bare != {*last.chosen} and not last.final):
        return _AMBIGUOUS
    return last.chosen[0]


def _lead(said: Sequence[Statement]) -> str | None:
    """What the answer begins with, if an explanation follows."""
    naming = [each for each in said if each.chosen or each.affirmed or each.denied]
    if not naming or naming[0].refuses:
        return None
    first, others = naming[0], naming[1:]
    bare = {code for each in naming if each.rank == BARE for code in each.chosen}
    starts = {each.starts for each in naming if each.new_line and each.starts}
    if first.rank == BARE and len(first.chosen) == len(bare) == 1 and len(starts) <= 1:
        return first.chosen[0]
    if first.asks or len(bare) > 1:
        return None
    begins = first is said[0]
    if begins and first.starts and starts == {first.starts}:
        return first.starts
    if len(first.main) != 1 or first.item:
        return None
    rivals = [each for each in others if each.main - first.main]
    explained = begins and len(said) > 1 and (said[1].explains or said[1].new_line)
    turned = begins and bool(rivals) and all(each.turns for each in rivals)
    surpasses = first.best and not any(each.best and not each.contrasts for each in rivals)
    return next(iter(first.main)) if explained or turned or surpasses else None
