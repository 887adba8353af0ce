"""Finds numbers in a text, in digits or as English words."""

import re
from decimal import Decimal

from vlm_harness.protocols.statements import Mention

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
NUMBER = re.compile(
    rf"""(?P<number>
    (?<!\w)(?<!\d[.,])(?<![^\W\d]-)(?i:(?<!than[ ])(?<!at[ ]least[ ])(?<!at[ ]most[ ]))
    (?:{_DIGITS}
        | (?ai:(?!one\b)|(?<!the[ ])(?<!this[ ])(?<!that[ ])(?<!which[ ])(?<!each[ ])(?<!no[ ]))
            (?ai:{_SPELLED}))
    (?!\w|[.,]\d|-[^\W\d]|[ -](?i:hundred|thousand|million|billion|dozen|and[ ]a[ ]half|point)\b)
)""",
    re.VERBOSE,
)


def value(written: str) -> Decimal:
    word = written.casefold().replace("-", " ")
    value = _WORDS[word] if word in _WORDS else Decimal(written.replace(",", ""))
    return value.normalize()


def number_mentions(text: str) -> list[Mention]:
    return [
        Mention(match.start(), match.end(), str(value(match.group())))
        for match in NUMBER.finditer(text)
    ]
