"""Prompts about the same images, which are read once: answers scored, or texts generated.

    trunk   system, image(s), whatever all prompts begin with    one pass, by the model's own code
    tree    rest of each prompt (question, order, command),       one pass over all of them; what
            and below it the tokens of each answer                two paths share is there once

A node of the tree sees the trunk and its own ancestors, at the position that it would have if its
path stood alone; logits are taken only where a token of an answer is to be predicted. So a batch
costs as many tokens as are different in it, and the numbers are those of each path alone.

Texts are generated behind the trunk too, each prompt by itself from there on.

What a model must allow: a mask of its own making (4-D) over a cache, explicit positions, and tokens
that see only what comes before them. Whether it does is found out by trying (``sharing``).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Tokens = list[int]


class TokenTree:
    """A trie of token sequences.

    Attributes:
        tokens: of every node, parents before children.
        parents: index of every node's parent; -1 where it is the trunk.
        depths: 0 for children of the trunk.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def add(self, path: Tokens) -> list[int]:
        """Nodes of a sequence, from the first token to the last; new ones where there are none."""
        nodes: list[int] = []
        parent = -1
        for depth, token in enumerate(path):
            node = self._children.setdefault((parent, token), len(self.tokens))
            if node == len(self.tokens):
                self.tokens.append(token)
                self.parents.append(parent)
                self.depths.append(depth)
            nodes.append(node)
            parent = node
        return nodes

    def sees(self) -> npt.NDArray[np.bool_]:
        """Which nodes each node sees: its ancestors and itself, [nodes, nodes]."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


@dataclass(frozen=True)
class Branch:
    """A prompt's tokens, image placeholders expanded, and those of each answer, EOS included."""

    prompt: Tokens
    answers: Sequence[Tokens]

    @property
    def length(self) -> int:
        """Of the longest path."""
        return len(self.prompt) + max(map(len, self.answers), default=0)


def common_prefix(sequences: Sequence[Tokens]) -> int:
    """Length of what all sequences begin with."""
    first, last = min(sequences), max(sequences)
    for index, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return index
    return min(len(first), len(last))


class _Row:
    """One trunk and its tree, laid out for the model: nodes whose logits are read come last."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self.trunk = common_prefix([branch.prompt for branch in branches])
        tree = TokenTree()
        read: dict[int, None] = {}
        # Of every answer: the node that predicts each token (-1: the trunk), and the tokens.
        answers: list[tuple[list[int], Tokens]] = []
        for branch in branches:
            rest = list(branch.prompt[self.trunk :])
            for answer in branch.answers:
                nodes = [-1, *tree.add([*rest, *answer[:-1]])][len(rest) :]
                answers.append((nodes, answer))
                read.update(dict.fromkeys(node for node in nodes if node >= 0))
        order = [node for node in range(len(tree.tokens)) if node not in read] + list(read)
        self.n_read = len(read)
        self.tokens = [tree.tokens[node] for node in order]
        self.depths = [tree.depths[node] for node in order]
        self.sees = tree.sees()[np.ix_(order, order)]
        # From the end, as rows of a batch are padded in front.
        place = {node: index - len(order) for index, node in enumerate(order)} | {-1: 0}
        self.answers = [([place[node] for node in nodes], answer) for nodes, answer in answers]


@dataclass(frozen=True)
class Trunk:
    """What prompts begin with, read once: a row for each picture (or loader) that they are about.

    ``ids`` and ``mask`` are [rows, length], padded in front; ``positions`` the same, or with axes
    before it; ``logits`` of the token behind, [rows, 1, vocabulary]; ``cache`` the argument with
    which the model reads on.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor
    cache: dict[str, Any]


@torch.inference_mode()
def read_trunk(model: Any, inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]) -> Trunk:
    """The first ``lengths`` tokens of each row, with whatever images stand among them.

    ``inputs`` are the processor's outputs for one prompt of each row, on the model's device, padded
    on the left: ``input_ids`` [rows, length] and what goes with them.
    """
    cut = _cut(inputs, lengths)
    positions = _positions(model, cut)
    output = model(**cut, position_ids=positions, use_cache=True, logits_to_keep=1)
    return Trunk(
        cut["input_ids"],
        cut["attention_mask"],
        positions,
        output.logits[:, -1:],
        cache_of(model, output),
    )


@torch.inference_mode()
def score(
    model: Any, inputs: Mapping[str, torch.Tensor], rows: Sequence[Sequence[Branch]]
) -> list[list[list[float]]]:
    """Summed log-probability (natural log) of every answer, by row and branch.

    ``rows`` are branches that share the images, and their tokens; ``inputs`` as ``read_trunk``.
    """
    laid = [_Row(branches) for branches in rows]
    trunk = read_trunk(model, inputs, [row.trunk for row in laid])
    logits = [trunk.logits]
    length = max(len(row.tokens) for row in laid)
    if length:
        n_read = max(row.n_read for row in laid)
        more = model(
            **_tree(laid, trunk, length, model.dtype),
            **trunk.cache,
            use_cache=True,
            logits_to_keep=n_read,
        ).logits[:, -n_read:]
        # The trunk's first, so that index 0 is the trunk and -1 the last node that is read.
        logits.append(more)
    return _sums(torch.cat(logits, dim=1), rows, laid)


def continued(
    trunk: Trunk, rows: Sequence[int], rests: Sequence[Tokens], pad_id: int
) -> dict[str, Any]:
    """Inputs of ``generate`` for prompts that begin with a trunk each, which is not read again.

    Args:
        rows: the trunk's row of each prompt.
        rests: what each prompt has beyond it, a token at least.
    """
    device = trunk.ids.device
    at = torch.tensor(rows, device=device)
    length = max(map(len, rests))
    ids = torch.tensor([[pad_id] * (length - len(rest)) + rest for rest in rests], device=device)
    mask = torch.tensor([[0] * (length - len(rest)) + [1] * len(rest) for rest in rests])
    mask = mask.to(device)
    last = trunk.positions[..., -1:].index_select(-2, at)
    positions = last + mask.cumsum(1)
    for cache in trunk.cache.values():
        cache.reorder_cache(at)  # from rows to prompts
    return {
        "input_ids": torch.cat([trunk.ids[at], ids], dim=1),
        "attention_mask": torch.cat([trunk.mask[at], mask.to(trunk.mask.dtype)], dim=1),
        "position_ids": torch.cat([trunk.positions.index_select(-2, at), positions], dim=-1),
        **trunk.cache,
    }


def _sums(
    logits: torch.Tensor, rows: Sequence[Sequence[Branch]], laid: Sequence[_Row]
) -> list[list[list[float]]]:
    # All at once: row, place, token of each prediction.
    wanted = [
        (number, place, token)
        for number, row in enumerate(laid)
        for places, answer in row.answers
        for place, token in zip(places, answer, strict=True)
    ]
    at, place, token = torch.tensor(wanted, device=logits.device).unbind(1)
    # A row's logits once each, however many answers begin there.
    normaliser = torch.logsumexp(logits.float(), dim=-1)
    values = (logits[at, place, token].float() - normaliser[at, place]).double().tolist()
    taken = iter(values)
    return [
        [[sum(next(taken) for _ in answer) for answer in branch.answers] for branch in branches]
        for branches in rows
    ]


def _cut(inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]) -> dict[str, torch.Tensor]:
    """The inputs cut to the first ``lengths`` tokens of each row, padded on the left again."""
    shape = inputs["input_ids"].shape
    n_padding = (shape[1] - inputs["attention_mask"].sum(1)).tolist()
    longest = max(lengths)
    cut = dict(inputs)
    for name, value in inputs.items():
        if value.shape[:2] != shape or value.ndim != 2:
            continue
        cut[name] = value.new_zeros(len(lengths), longest)
        for row, (start, length) in enumerate(zip(n_padding, lengths, strict=True)):
            cut[name][row, longest - length :] = value[row, start : start + length]
    return cut


def _positions(model: Any, trunk: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """As the model's own ``generate`` makes them: [rows, length], or with axes in front."""
    own = getattr(model, "_prepare_position_ids_for_generation", None)
    if own is not None:
        rest = {name: value for name, value in trunk.items() if name != "input_ids"}
        positions: torch.Tensor = own(trunk["input_ids"], rest)
        return positions
    mask = trunk["attention_mask"]
    return (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)


def _tree(
    rows: Sequence[_Row], trunk: Trunk, length: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Tokens, mask and positions of the trees of a batch, padded in front to ``length``."""
    n_trunk = trunk.mask.shape[1]
    ids = np.zeros((len(rows), length), dtype=np.int64)
    depths = np.zeros_like(ids)
    sees = np.zeros((len(rows), length, n_trunk + length), dtype=bool)
    # Padding sees itself: a softmax over nothing is no number.
    sees[:, :, n_trunk:] = np.eye(length, dtype=bool)
    for number, row in enumerate(rows):
        start = length - len(row.tokens)
        ids[number, start:] = row.tokens
        depths[number, start:] = row.depths
        sees[number, start:, n_trunk + start :] = row.sees
        sees[number, start:, :n_trunk] = trunk.mask[number].bool().numpy(force=True)
    device = trunk.mask.device
    # Added to the scores, which every implementation of attention but flash understands.
    mask = torch.zeros(sees.shape, dtype=dtype, device=device)
    mask.masked_fill_(~torch.from_numpy(sees).to(device), torch.finfo(dtype).min)
    return {
        "input_ids": torch.from_numpy(ids).to(device),
        "attention_mask": mask[:, None],
        "position_ids": trunk.positions[..., -1:] + 1 + torch.from_numpy(depths).to(device),
    }


def cache_of(model: Any, output: Any) -> dict[str, Any]:
    """Keys and values of what was read, as the argument with which the model reads on."""
    # Newer versions of transformers call argument and output `cache`.
    argument, field = (
        "cache" if "cache" in names else "past_key_values"
        for names in (inspect.signature(model.forward).parameters, output)
    )
    return {argument: output[field]}
