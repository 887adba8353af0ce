"""Shared prefixes: score or generate for prompts about the same images, computing images once.

prefix
    The tokens that all prompts of a row begin with: system text, image(s), common words. Computed
    in one forward pass by the model's own code and kept in its cache.
suffix tree
    A trie of everything after the prefix: the rest of each prompt (question, option order, command)
    and, below it, the tokens of each of its answers. A path from the root is one prompt with one
    answer; tokens that paths have in common are one node. All nodes are computed in one pass.
packed row
    One row of the batch: a prefix and the nodes of its suffix tree, laid out as one sequence.

A node attends to the prefix and to its ancestors, at the position it would have if its path were
computed individually. Logits are computed only where an answer token is predicted. The cost of a
batch is thus its number of distinct tokens, and the scores equal those of each path individually.

Generation shares only the prefix; each prompt continues from it in a row of its own.

The model must support a custom 4-D attention mask over a cache, explicit positions, and causal
attention. ``sharing`` tests whether it does.
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
        tokens: token of each node, parents before children.
        parents: index of each node's parent; -1 if it is the prefix.
        depths: depth of each node; 0 for children of the prefix.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def add(self, path: Tokens) -> list[int]:
        """Add a sequence; returns its nodes from the first token to the last."""
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

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which nodes each node attends to: its ancestors and itself, [nodes, nodes]."""
        mask = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                mask[node] |= mask[parent]
        return mask


@dataclass(frozen=True)
class TokenizedPrompt:
    """Tokens of a prompt, image placeholders expanded, and of each of its answers, with EOS."""

    prompt: Tokens
    answers: Sequence[Tokens]

    @property
    def length(self) -> int:
        """Number of tokens of the longest path."""
        return len(self.prompt) + max(map(len, self.answers), default=0)


def common_prefix(sequences: Sequence[Tokens]) -> int:
    """Length of the longest common prefix of all sequences."""
    first, last = min(sequences), max(sequences)
    for index, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return index
    return min(len(first), len(last))


class _PackedRow:
    """A prefix length and its suffix tree as one sequence; nodes whose logits are used come last.

    Attributes:
        prefix: number of tokens of the prefix.
        n_logits: number of nodes whose logits are used.
        tokens, depths: of each node, in the order of the sequence.
        mask: which nodes each node attends to, [nodes, nodes].
        answers: for each answer, the place of the node that predicts each token (0: the prefix;
            otherwise negative, counted from the end of the sequence), and the tokens.
    """

    def __init__(self, prompts: Sequence[TokenizedPrompt]) -> None:
        self.prefix = common_prefix([each.prompt for each in prompts])
        tree = TokenTree()
        predicting: dict[int, None] = {}
        # For each answer: the node that predicts each token (-1: the prefix), and the tokens.
        answers: list[tuple[list[int], Tokens]] = []
        for each in prompts:
            rest = list(each.prompt[self.prefix :])
            for answer in each.answers:
                nodes = [-1, *tree.add([*rest, *answer[:-1]])][len(rest) :]
                answers.append((nodes, answer))
                predicting.update(dict.fromkeys(node for node in nodes if node >= 0))
        order = [node for node in range(len(tree.tokens)) if node not in predicting]
        order += predicting
        self.n_logits = len(predicting)
        self.tokens = [tree.tokens[node] for node in order]
        self.depths = [tree.depths[node] for node in order]
        self.mask = tree.mask()[np.ix_(order, order)]
        # Counted from the end, since rows of a batch are padded on the left.
        place = {node: index - len(order) for index, node in enumerate(order)} | {-1: 0}
        self.answers = [([place[node] for node in nodes], answer) for nodes, answer in answers]


@dataclass(frozen=True)
class Prefix:
    """Computed prefixes of a batch, one row per image or group of images.

    Attributes:
        ids, mask: [rows, length], padded on the left.
        positions: [rows, length], or with more axes in front.
        logits: of the token after the prefix, [rows, 1, vocabulary].
        cache: keyword argument with which the model continues after the prefix.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor
    cache: dict[str, Any]


@torch.inference_mode()
def compute_prefix(
    model: Any, inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]
) -> Prefix:
    """Run the model over the first ``lengths`` tokens of each row, including their images.

    ``inputs`` are the processor's outputs for one prompt of each row, on the model's device, padded
    on the left: ``input_ids`` [rows, length] and the tensors that belong to them.
    """
    inputs = _truncate(inputs, lengths)
    positions = _positions(model, inputs)
    output = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
    return Prefix(
        inputs["input_ids"],
        inputs["attention_mask"],
        positions,
        output.logits[:, -1:],
        cache_of(model, output),
    )


@torch.inference_mode()
def score(
    model: Any, inputs: Mapping[str, torch.Tensor], rows: Sequence[Sequence[TokenizedPrompt]]
) -> list[list[list[float]]]:
    """Summed log-probability (natural log) of every answer, by row and prompt.

    The prompts of a row have the same images. ``inputs``: as for ``compute_prefix``.
    """
    packed = [_PackedRow(prompts) for prompts in rows]
    prefix = compute_prefix(model, inputs, [row.prefix for row in packed])
    logits = [prefix.logits]
    length = max(len(row.tokens) for row in packed)
    if length:
        n_logits = max(row.n_logits for row in packed)
        of_trees = model(
            **_tree_inputs(packed, prefix, length, model.dtype),
            **prefix.cache,
            use_cache=True,
            logits_to_keep=n_logits,
        ).logits[:, -n_logits:]
        # After those of the prefix: index 0 is the prefix, -1 the last node of the tree.
        logits.append(of_trees)
    return _sums(torch.cat(logits, dim=1), rows, packed)


def continuation_inputs(
    prefix: Prefix, rows: Sequence[int], rests: Sequence[Tokens], pad_id: int
) -> dict[str, Any]:
    """Inputs of ``generate`` for prompts that continue a computed prefix.

    Args:
        rows: for each prompt, the row of its prefix.
        rests: the tokens of each prompt after the prefix, at least one.
    """
    device = prefix.ids.device
    row_of_prompt = torch.tensor(rows, device=device)
    length = max(map(len, rests))
    ids = torch.tensor([[pad_id] * (length - len(rest)) + rest for rest in rests], device=device)
    mask = torch.tensor([[0] * (length - len(rest)) + [1] * len(rest) for rest in rests])
    mask = mask.to(device)
    positions = prefix.positions.index_select(-2, row_of_prompt)
    for cache in prefix.cache.values():
        cache.reorder_cache(row_of_prompt)  # from rows to prompts
    return {
        "input_ids": torch.cat([prefix.ids[row_of_prompt], ids], dim=1),
        "attention_mask": torch.cat(
            [prefix.mask[row_of_prompt], mask.to(prefix.mask.dtype)], dim=1
        ),
        "position_ids": torch.cat([positions, positions[..., -1:] + mask.cumsum(1)], dim=-1),
        **prefix.cache,
    }


def _sums(
    logits: torch.Tensor, rows: Sequence[Sequence[TokenizedPrompt]], packed: Sequence[_PackedRow]
) -> list[list[list[float]]]:
    # Row, place and token of each prediction, gathered in one operation.
    predictions = [
        (number, place, token)
        for number, row in enumerate(packed)
        for places, answer in row.answers
        for place, token in zip(places, answer, strict=True)
    ]
    row_index, place, token = torch.tensor(predictions, device=logits.device).unbind(1)
    # Normalised once per place, however many answers continue there.
    normaliser = torch.logsumexp(logits.float(), dim=-1)
    logprobs = logits[row_index, place, token].float() - normaliser[row_index, place]
    remaining = iter(logprobs.double().tolist())
    return [
        [[sum(next(remaining) for _ in answer) for answer in each.answers] for each in prompts]
        for prompts in rows
    ]


def _truncate(
    inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Truncate inputs to the first ``lengths`` tokens of each row, and pad on the left again."""
    shape = inputs["input_ids"].shape
    n_padding = (shape[1] - inputs["attention_mask"].sum(1)).tolist()
    longest = max(lengths)
    truncated = dict(inputs)
    for name, value in inputs.items():
        if value.shape[:2] != shape or value.ndim != 2:
            continue
        truncated[name] = value.new_zeros(len(lengths), longest)
        for row, (start, length) in enumerate(zip(n_padding, lengths, strict=True)):
            truncated[name][row, longest - length :] = value[row, start : start + length]
    return truncated


def _positions(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Positions as the model's own ``generate`` makes them: [rows, length], or more axes first."""
    own = getattr(model, "_prepare_position_ids_for_generation", None)
    if own is not None:
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        positions: torch.Tensor = own(inputs["input_ids"], rest)
        return positions
    mask = inputs["attention_mask"]
    return (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)


def _tree_inputs(
    rows: Sequence[_PackedRow], prefix: Prefix, length: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Tokens, mask and positions of the suffix trees, padded on the left to ``length``."""
    n_prefix = prefix.mask.shape[1]
    ids = np.zeros((len(rows), length), dtype=np.int64)
    depths = np.zeros_like(ids)
    attends = np.zeros((len(rows), length, n_prefix + length), dtype=bool)
    # Padding attends to itself: a softmax over nothing is NaN.
    attends[:, :, n_prefix:] = np.eye(length, dtype=bool)
    for number, row in enumerate(rows):
        start = length - len(row.tokens)
        ids[number, start:] = row.tokens
        depths[number, start:] = row.depths
        attends[number, start:, n_prefix + start :] = row.mask
        attends[number, start:, :n_prefix] = prefix.mask[number].bool().numpy(force=True)
    device = prefix.mask.device
    # An additive mask, which all attention implementations except flash support.
    mask = torch.zeros(attends.shape, dtype=dtype, device=device)
    mask.masked_fill_(~torch.from_numpy(attends).to(device), torch.finfo(dtype).min)
    return {
        "input_ids": torch.from_numpy(ids).to(device),
        "attention_mask": mask[:, None],
        "position_ids": prefix.positions[..., -1:] + 1 + torch.from_numpy(depths).to(device),
    }


def cache_of(model: Any, output: Any) -> dict[str, Any]:
    """The cache of a forward pass, as the keyword argument with which the model continues."""
    # Newer versions of transformers call both argument and output `cache`.
    argument, field = (
        "cache" if "cache" in names else "past_key_values"
        for names in (inspect.signature(model.forward).parameters, output)
    )
    return {argument: output[field]}
