"""Placeholders of images in a prompt, which a question must not contain.

A processor replaces each placeholder by the tokens of an image. A question that contains one, as in
"What does the tag <image> do?", would ask for an image that does not exist. It is escaped.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import TemplateError

INSERT_IMAGE_TOKENS = ("Blip2Processor", "InstructBlipProcessor")
"""Processors that insert the image tokens themselves; the prompt has no placeholder."""


MEDIA = ("image", "video", "audio")


def find_placeholders(processor: Any, config: Any, render: Callable[[int], str]) -> tuple[str, ...]:
    """The placeholders that a question must not contain, the longest first.

    They are the tokens that the processor or the model replaces, and the special tokens that the
    prompt format adds for an image. If the format has no place for an image, the result is empty:
    a placeholder in the question is then the place.

    Args:
        config: the configuration of the model; None if it is not loaded.
        render: the complete prompt for a number of images.
    """
    inserts = type(processor).__name__ in INSERT_IMAGE_TOKENS
    with_image = render(1)
    try:
        without = render(0)
    except TemplateError:  # the template of a model that always needs an image
        without = ""
    if with_image == without and not inserts:
        return ()
    tokenizer = processor.tokenizer
    own = {token for owner in (processor, tokenizer, config) for token in _tokens(owner, tokenizer)}
    added = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special and with_image.count(token.content) > without.count(token.content)
    }
    return tuple(sorted(own | added, key=lambda token: (-len(token), token)))


def _tokens(owner: Any, tokenizer: Any) -> Iterator[str]:
    """The tokens that stand for an image, a video or a sound, by the names that families use."""
    for medium in MEDIA:
        token = getattr(owner, f"{medium}_token", None)
        if token:
            yield str(token)
        for name in (f"{medium}_token_id", f"{medium}_token_index"):
            number = getattr(owner, name, None)
            if isinstance(number, int) and number in tokenizer.added_tokens_decoder:
                yield tokenizer.added_tokens_decoder[number].content


def escape(text: str, placeholders: tuple[str, ...]) -> str:
    """The text with a space after the first character of every placeholder: ``< image>``."""
    for token in placeholders:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text
