"""Labels that options carry, such as "(a) Open", "B. Closed" and "(10) ten dogs"."""

import re
from collections.abc import Sequence

_LABEL = re.compile(
    r"\A\s*(?:\((?P<inner>[A-Za-z]|\d{1,2})\)|(?P<bare>[A-Za-z]|\d{1,2})[.)])\s+(?=\S)"
)
_KINDS = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def own_labels(options: Sequence[str]) -> list[str]:
    """The labels of the options; empty unless all options carry consecutive labels of one style.

    Labels without brackets must begin at "A", "a" or "1": the options "J. Smith" and "K. Smith"
    have initials, not labels. The order does not matter, since options may be shuffled.
    """
    found = [_LABEL.match(option) for option in options]
    labels = [match["inner"] or match["bare"] for match in found if match]
    if not labels or len(labels) < len(options):
        return []
    kinds = {next(n for n, kind in enumerate(_KINDS) if label[0] in kind) for label in labels}
    bracketed = {match["inner"] is not None for match in found if match}
    if len(kinds) > 1 or len(bracketed) > 1:
        return []
    ranks = sorted(int(label) if label.isdigit() else ord(label) for label in labels)
    begins = True in bracketed or ranks[0] in (1, ord("A"), ord("a"))
    return labels if begins and ranks == list(range(ranks[0], ranks[0] + len(ranks))) else []


def without_labels(options: Sequence[str]) -> list[str]:
    """The options without the labels that ``own_labels`` finds."""
    return [_LABEL.sub("", each) for each in options] if own_labels(options) else list(options)


def strip_label(option: str) -> str:
    """One option without a leading "(a) ", "a) ", "A. " or "(1) "."""
    found = _LABEL.match(option)
    # Alone, "2. Downing Street" may be an address.
    return option if found is None or (found["bare"] or "").isdigit() else option[found.end() :]
