"""Normalises the text of an answer before it is read: thinking blocks, markup, Unicode forms."""

import re
import unicodedata

_SPECIAL = re.compile(
    r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:[be]os|pad|unk|end_of_\w{1,20})>|<\d{1,3}x[0-9a-f]{2}>",
    re.IGNORECASE,
)
_BLOCK = r"(?:think|thinking|thought|thoughts|reasoning|reason|analysis|scratchpad|reflection)"
_OPEN = re.compile(
    rf"<(?:seed:)?{_BLOCK}>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<\|channel\|>analysis",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"</(?:seed:)?{_BLOCK}>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<\|channel\|>final",
    re.IGNORECASE,
)


def special_removed(text: str) -> str:
    """The text without the special tokens of tokenizers, such as ``<|im_end|>`` and ``</s>``."""
    return _SPECIAL.sub(" ", text)


def conclusion(text: str) -> str | None:
    """What follows the thinking of a reasoning model; None if the thinking was cut off.

    A text with only the closing tag is complete: some chat templates write the opening tag into the
    prompt.
    """
    end = max((match.end() for match in _CLOSE.finditer(text)), default=0)
    return None if _OPEN.search(text, end) else text[end:]


_QUOTES = str.maketrans("“”„‟«»‘’‚‛＂＇｀´`「」『』", '""""""\'\'\'\'\'\'\'\'\'""""')
_PLAIN = str.maketrans("，。：；！？、【】〔〕（）［］〈〉", ",.:;!?,[][]()[]()")
_MATH = re.compile(
    r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|operatorname)\s*(?=\{)|\\[()\[\]]|\$+"
)
_ESCAPED = re.compile(r"\\([_*#&%{}()\[\]$-])")
_FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)\w*[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t|:=_*-]{3,}$", re.MULTILINE)
_LINE = re.compile(r"^[ \t]*(?:[>#]+[ \t]*|[-*+•●▪]+[ \t]+)+", re.MULTILINE)
# An underscore inside a word stays; otherwise `x_left` would become two words.
_EMPHASIS = re.compile(r"\*+|~~|(?<![^\W_])_+|_+(?![^\W_])")
_BOLD_LABEL = re.compile(r"(\*{1,2}|__|`)([A-Za-z0-9])[.):]?\1")
_HARD_WRAP = re.compile(r"(?<=[a-z,])\n(?=[a-z])")
_HTML = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|div|center|code|pre)\s*/?>", re.IGNORECASE)


def fold_unicode(text: str) -> str:
    """NFC, with full-width forms, quotation marks and CJK punctuation as their ASCII forms.

    Compatibility forms other than full-width ones stay: "½" is not "1⁄2", nor "²" a "2".
    """
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text).translate(_QUOTES)
    text = re.sub(
        "[\uff01-\uff5e]", lambda found: chr(ord(found.group()) - 0xFEE0), text.translate(_PLAIN)
    )
    # Private characters have a meaning in a sketch (see `grammar`); the others are invisible.
    text = re.sub("[\ue000-\uf8ff]", " ", text)
    return re.sub("[\u200b-\u200f\u2060\ufeff\ufe0f\u00ad]", "", text).replace("\u2011", "-")


def plain(text: str) -> str:
    """The words of an answer without markup, one line per line, single spaces.

    Removes Markdown, LaTeX and HTML markup; the cells of a table are separated by commas.
    """
    text = fold_unicode(special_removed(text))
    if "\\" in text or "$" in text:
        text = _ESCAPED.sub(r"\1", _MATH.sub(" ", text))
    text = _HTML.sub(" ", text) if "<" in text else text
    text = _BOLD_LABEL.sub(r"(\2)", _RULE.sub("", _FENCE.sub("", text)))
    text = _EMPHASIS.sub(" ", _LINE.sub("", text).replace("`", " "))
    lines = (" ".join(line.split()) for line in text.splitlines())
    lines = (line.strip("| ").replace(" | ", ", ") for line in lines)
    return _HARD_WRAP.sub(" ", "\n".join(filter(None, lines)))


def squeeze(text: str) -> str:
    """One line with single spaces, in the form of ``fold_unicode``."""
    return " ".join(fold_unicode(text).split())


CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
LETTER = rf"[^\W{CJK}]"
"""A word character of a script that separates words by spaces."""


def wrapped(text: str) -> str | None:
    """The contents of the last ``\\boxed{}`` or ``<answer>``."""
    found = list(_WRAPPER.finditer(text))
    return (found[-1]["tag"] or found[-1]["box"]) if found else None


_WRAPPER = re.compile(
    r"\\boxed\s*\{(?P<box>(?:[^{}]|\{[^{}]{0,200}\}){1,400})\}|<answer>(?P<tag>.{1,400}?)</answer>",
    re.DOTALL | re.IGNORECASE,
)
