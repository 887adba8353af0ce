"""``vlm-harness mine-pairs``: image pairs that one encoder finds alike and another different."""

import sys
from pathlib import Path

import click

from vlm_harness.cli.common import FiniteRange, include_path_option, registry, say
from vlm_harness.errors import InputError, listing

COSINE = FiniteRange(-1, 1)


@click.command("mine-pairs")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--alike", required=True, metavar="MODEL", help="Encoder that finds pairs alike.")
@click.option("--different", required=True, metavar="MODEL", help="Encoder that does not.")
@click.option("--alike-above", type=COSINE, default=0.95, show_default=True)
@click.option("--different-below", type=COSINE, default=0.6, show_default=True)
@click.option(
    "--top", type=click.IntRange(1), default=1000, show_default=True, help="Pairs kept, at most."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("pairs.jsonl"),
    show_default=True,
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1, mps [the best there is].")
@include_path_option
def mine_pairs(
    folder: Path,
    alike: str,
    different: str,
    alike_above: float,
    different_below: float,
    top: int,
    output: Path,
    batch_size: int,
    device: str | None,
    include_path: tuple[str, ...],
) -> None:
    """Find pairs among the images of FOLDER, as MMVP's were found.

    MODEL is a dual encoder (name, checkpoint folder, backend:checkpoint), or a vision-only
    transformers checkpoint such as facebook/dinov2-large (folder or hub name). Writes JSON lines of
    a, b, cosine_alike, cosine_different; pairs that the encoders disagree on most come first.
    """
    from vlm_harness.analysis import mining

    refs = mining.images_below(folder)
    # Said before hours of work, not after.
    if not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent}", where="--output")
    if output.is_dir():
        raise InputError(f"{output} is a folder; give the name of a file", where="--output")

    from vlm_harness.backends.embeddings import embed, open_encoder
    from vlm_harness.backends.interface import LoadOptions

    known, options = registry(include_path), LoadOptions(device=device)
    encoders = [
        open_encoder(text, known, options, option)[1]
        for text, option in ((alike, "--alike"), (different, "--different"))
    ]
    with click.progressbar(length=len(refs), label="embedding", file=sys.stderr) as bar:
        images = embed(refs, encoders, batch_size, bar.update)
    if images.failures:
        say(
            f"warning: {len(images.failures)} of {len(refs)} images cannot be read and are left "
            f"out: {listing(images.failures.values(), 3)}",
            err=True,
        )
    first = mining.first_copies(images.sha256)
    if len(first) < 2:
        raise InputError(
            f"of {len(refs)} image files, {len(first)} different ones can be read, and a pair "
            "needs two",
            where=folder,
        )
    found = mining.mine(
        *(each if len(first) == len(each) else each[first] for each in images.by_encoder),
        alike_above=alike_above,
        different_below=different_below,
        top=top,
    )
    mining.write_pairs(found.pairs, [images.refs[index].path for index in first], output)
    copies = len(images.refs) - len(first)
    say(
        f"{len(first)} images" + (f" ({copies} copies left out)" if copies else "") + f", "
        f"{len(first) * (len(first) - 1) // 2} pairs; {found.n} of them above {alike_above:g} by "
        f"{alike} and below {different_below:g} by {different}"
        + (f"; the first {len(found.pairs)} are kept" if found.n > len(found.pairs) else "")
    )
    say(str(output))
