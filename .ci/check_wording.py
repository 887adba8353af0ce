#!/usr/bin/env python3
"""Check the project's text for phrases that do not belong in it.

    python .ci/check_wording.py            every file that git tracks or would track
    python .ci/check_wording.py FILE ...   these files only

Prints ``file:line: phrase -> use ...`` for each match and exits with status 1 if there are any.
Only unambiguous phrases are listed; reviewers judge words that have a proper use ("right", "whole",
"picture"). Underscores count as spaces, so names of functions and tests are checked too.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

CHECKED = (
    "*.md", "*.py", "*.yaml", "*.yml", "*.j2", "*.js", "*.css", "*.toml", "*.cff", "*.ipynb",
    "Makefile", "*/Makefile", "Dockerfile", "*/Dockerfile", ".ci/run",
)  # fmt: skip
EXCLUDED = (
    "*/vendor/*",  # written by others
    "tests/data/*", "models/tiny-*", "leaderboard/results/*",  # recorded; some have checksums
    "leaderboard/paper/*", "tasks/*_statements.yaml",  # published elsewhere
    ".ci/check_wording.py", "tests/test_wording.py",
)  # fmt: skip


class Rule(NamedTuple):
    """A banned phrase. A space in ``pattern`` also matches a line break within a paragraph."""

    pattern: str
    use: str
    bad: str
    good: str


PER = (
    "sample|model|run|task|pair|set|image|option|candidate|prompt|cell|benchmark|template|rendering"
)
SMALL = "(?:of|if|in|is|as|at|to|on|or|and|for|from|with|by)"

RULES = (
    Rule(r"(go|goes|going|gone|went) on with", "resume, continue, retry with",
         "An unfinished run is gone on with.", "An unfinished run is resumed."),
    Rule(r"(goes|gone|went) on(?! with| top)", "resume, continue",
         "A run that failed goes on.", "A run that failed is resumed."),
    Rule(rf"(lines?|rows?|files?|entry|one) an? ({PER})", "per",
         "one line a sample", "one line per sample"),
    Rule(rf"(one|two|\d+) (?!{SMALL}\b)\w+ an? ({PER})", "per",
         "one question a pair", "one question per pair"),
    Rule(r"(?<!there\s)(?-i:is none)", "expected ..., got ...; ... is missing",
         "the page is an HTML file, and x.txt is none", "expected a .html file, got x.txt"),
    Rule(r"(?-i:are none)", "no ..., missing",
         "pairs, where there are none", "without pairs"),
    Rule(r"anew", "again, re-...",
         "the answer is computed anew", "the answer is recomputed"),
    Rule(r"torn (line|log|file|entry)s?|(line|log|entry)s? torn", "truncated",
         "a torn line at the end", "a truncated line at the end"),
    Rule(r"(line|sample|entry)s? doubled|doubled (line|sample|entry|entrie)s?", "duplicate",
         "doubled lines are dropped", "duplicate lines are dropped"),
    Rule(r"heal(s|ed|ing)?", "repair",
         "the log is healed", "the log is repaired"),
    Rule(r"(throw|throws|thrown|throwing|threw)( \w+){0,3} away", "overwrite, delete, discard",
         "--fresh throws it away", "--fresh overwrites it"),
    Rule(r"ask(s|ed|ing)? (alone|again)", "retry individually, retry",
         "each sample is asked alone", "samples are retried individually"),
    Rule(r"ask(s|ed|ing)?( [\w']+){1,5} again", "retry, re-evaluate",
         "the command asks the failed samples again", "the command retries the failed samples"),
    Rule(r"made ready|mak(e|es|ing) ready", "prepare",
         "images are made ready in threads", "images are prepared in threads"),
    Rule(r"(scores?|metrics?|ones?) to( be)? quoted?", "primary metric",
         "the score to quote of each task", "the primary metric of each task"),
    Rule(r"gold (answer|label|option)s?", "correct",
         "the gold answer", "the correct answer"),
    Rule(r"(whole|half) (pair|set)s?", "complete, incomplete",
         "the share of whole pairs", "the share of complete pairs"),
    Rule(r"cosines? of ((a|the) )?pairs?", "pair cosine similarity",
         "the cosine of the pair", "the pair cosine similarity"),
    Rule(r"miniatures?", "toy model, toy benchmark",
         "the bundled miniatures", "the bundled toy models"),
    Rule(r"(an?|the|this|each|no) (label )?overlays?(?= (of|is|are|that|which|corrects?)\b)",
         "label corrections",
         "the overlay that corrects MMVP", "the label corrections for MMVP"),
    Rule(r"(security|known|reports?|reporting|reported)( an?)? holes?|holes? in (what|the sandbox)",
         "vulnerability",
         "no known holes", "no known vulnerabilities"),
    Rule(r"(web|http|https|http\(s\)|page's|site's) address(es)?", "URL",
         "http(s) addresses alone", "http(s) URLs only"),
    Rule(r"address(es)? of (an?|the|its|this|every|each) (web ?)?(page|site|report|target)s?",
         "URL", "prints the address of the page", "prints the URL of the page"),
    Rule(r"becom(e|es|ing) of", "what happens to ..., how ... are handled",
         "what becomes of odd images", "how unusual images are handled"),
    Rule(r"(is|are|was|were) not (there|here)", "missing, not found",
         "6 of 6 images are not there", "6 of 6 images are missing"),
    Rule(r"(command|run)s? that began", "original",
         "The command that began the run resumes it.", "Rerun the original command to resume it."),
    Rule(r"find(s|ing)? (its|the|their) runs? again", "resume",
         "The same command finds its run again.", "The same command resumes its run."),
    Rule(r"(?-i:(Read|Bold|Checked|Refused|Kept|Compared|Shown|Taken) (is|are))",
         "subject first: ... is read",
         "Read is results.json of each run.", "The results.json of each run is read."),
    Rule(r"tak(e|es|en|ing)( no)? notice of", "use, apply, have an effect",
         "options that nothing takes notice of", "options that have no effect"),
    Rule(r"(hang|hangs|hung|hanging) together", "belong together, depend on each other",
         "samples of a pair hang together", "samples of a pair are not independent"),
    Rule(r"(speak|speaks|spoke) against", "problem",
         "all that speaks against a run", "all problems of a run"),
    Rule(r"equally many", "the same number of, equal-count",
         "bins of equally many pairs", "bins with the same number of pairs"),
    Rule(r"enem(y|ies)", "untrusted, attacker",
         "treated as written by an enemy", "treated as untrusted"),
)  # fmt: skip

# ``x is none`` is a test in Jinja, not a phrase.
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
# A line break, with the quotes or comment signs that a wrapped string or comment has around it.
_BREAK = r"""(?:[ ]|[ ]?["']?\n[\s#*>/]*(?:f?["'])?)"""


def compiled(rule: Rule) -> re.Pattern[str]:
    """The rule as a pattern for a file's text, in which underscores are spaces."""
    return re.compile(rf"\b(?:{rule.pattern.replace(' ', _BREAK)})(?!\w)", re.IGNORECASE)


PATTERNS = tuple((compiled(rule), rule) for rule in RULES)


def findings(text: str, jinja: bool = False) -> Iterator[tuple[int, str, str]]:
    """Line number, phrase and replacement of every banned phrase in a text.

    ``jinja`` leaves expressions in double braces out.
    """
    if jinja:
        text = _JINJA.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    spaced = text.replace("_", " ")
    found = []
    for pattern, rule in PATTERNS:
        for match in pattern.finditer(spaced):
            phrase = " ".join(text[match.start() : match.end()].split())
            found.append((text.count("\n", 0, match.start()) + 1, phrase, rule.use))
    yield from sorted(found)


def is_checked(path: str) -> bool:
    """Whether a path, relative to the root of the checkout, is one whose wording is checked."""
    inside = any(fnmatch(path, pattern) for pattern in CHECKED)
    return inside and not any(fnmatch(path, pattern) for pattern in EXCLUDED)


def listed() -> list[str]:
    """Files below the current folder that git tracks, or would track once they are added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    return sorted({name for name in names.split("\0") if name and Path(name).is_file()})


def check(paths: Iterable[str]) -> int:
    """Print the banned phrases in files; returns how many there are."""
    count = 0
    for path in filter(is_checked, paths):
        text = Path(path).read_text(encoding="utf-8")
        for line, phrase, use in findings(text, jinja=path.endswith((".j2", ".yaml", ".yml"))):
            print(f"{path}:{line}: {phrase!r} -> use {use}")
            count += 1
    return count


def main(arguments: Sequence[str]) -> int:
    """Check the files named, or all files; returns the exit status."""
    count = check(arguments or listed())
    if count:
        print(f"{count} banned phrase{'s' if count > 1 else ''}; see .ci/check_wording.py")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
