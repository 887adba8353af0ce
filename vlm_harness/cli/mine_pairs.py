"""``vlm-harness mine-pairs``: image pairs that one encoder finds similar and another does not."""

import sys
from pathlib import Path

import click

from vlm_harness.cli.common import (
    FiniteRange,
    RenamedOption,
    include_path_option,
    registry,
    say,
)
from vlm_harness.errors import InputError, listing

COSINE = FiniteRange(-1, 1)


@click.command("mine-pairs")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--similar",
    cls=RenamedOption,
    old="--alike",
    required=True,
    metavar="MODEL",
    help="Encoder that must find the images similar.",
)
@click.option(
    "--different",
    required=True,
    metavar="MODEL",
    help="Encoder that must find the images different.",
)
@click.option(
    "--similar-above",
    cls=RenamedOption,
    old="--alike-above",
    type=COSINE,
    default=0.95,
    show_default=True,
    help="Minimum pair cosine under the --similar encoder.",
)
@click.option(
    "--different-below",
    type=COSINE,
    default=0.6,
    show_default=True,
    help="Maximum pair cosine under the --different encoder.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Maximum number of pairs to keep.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("pairs.jsonl"),
    show_default=True,
    help="JSON Lines file to write.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per batch."
)
@click.option("--device", help="cpu, cuda, cuda:1 or mps. [default: the best available]")
@include_path_option
def mine_pairs(
    folder: Path,
    similar: str,
    different: str,
    similar_above: float,
    different_below: float,
    top: int,
    output: Path,
    batch_size: int,
    device: str | None,
    include_path: tuple[str, ...],
) -> None:
    """Find image pairs that one encoder finds similar and another different, as in MMVP.

    FOLDER is searched for images.

    MODEL is a dual encoder (name, checkpoint folder or backend:checkpoint) or a vision-only
    transformers checkpoint such as facebook/dinov2-large (folder or hub name). Each line of the
    output has the keys a, b, cosine_alike and cosine_different. Pairs are sorted by the difference
    between the two cosines, largest first.
    """
    from vlm_harness.analysis import mining

    refs = mining.images_below(folder)
    # Checked before hours of work, not after.
    if not output.parent.is_dir():
        raise InputError(f"folder not found: '{output.parent}'", where="--output")
    if output.is_dir():
        raise InputError(f"{output} is a folder; expected a file name", where="--output")

    from vlm_harness.backends.embeddings import embed, open_encoder
    from vlm_harness.backends.interface import LoadOptions

    known, options = registry(include_path), LoadOptions(device=device)
    encoders = [
        open_encoder(text, known, options, option)[1]
        for text, option in ((similar, "--similar"), (different, "--different"))
    ]
    with click.progressbar(length=len(refs), label="embedding", file=sys.stderr) as bar:
        images = embed(refs, encoders, batch_size, bar.update)
    if images.failures:
        say(
            f"warning: {len(images.failures)} of {len(refs)} images cannot be read and are "
            f"skipped: {listing(images.failures.values(), 3)}",
            err=True,
        )
    first = mining.first_copies(images.sha256)
    if len(first) < 2:
        raise InputError(
            f"expected at least two different readable images, found {len(first)} in "
            f"{len(refs)} image files",
            where=folder,
        )
    found = mining.mine(
        *(each if len(first) == len(each) else each[first] for each in images.by_encoder),
        similar_above=similar_above,
        different_below=different_below,
        top=top,
    )
    mining.write_pairs(found.pairs, [images.refs[index].path for index in first], output)
    copies = len(images.refs) - len(first)
    say(
        f"{len(first)} images" + (f" ({copies} duplicates skipped)" if copies else "") + f", "
        f"{len(first) * (len(first) - 1) // 2} pairs; {found.n} of them above {similar_above:g} by "
        f"{similar} and below {different_below:g} by {different}"
        + (f"; kept the top {len(found.pairs)} (--top)" if found.n > len(found.pairs) else "")
    )
    say(str(output))
