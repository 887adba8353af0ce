"""Tokenizers like those of released models, trained on a few sentences."""

import io
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, WordLevelTrainer
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Is the beer bottle to the left of or to the right of the armchair? Answer left or right.",
    "A beer bottle to the left of an armchair. A beer bottle to the right of an armchair.",
    "Are the butterfly's wings closer to being open or closed? (a) Open (b) Closed",
    "What's in the picture, a cat or a dog? Answer with A or B. USER: ASSISTANT: User: Assistant:",
    "user assistant system [INST] [/INST] answer en yes no left right on under above below",
] * 4


def _bpe(
    corpus: Sequence[str], special: Sequence[str], alphabet: Sequence[str], **model: Any
) -> Any:
    tokenizer = Tokenizer(models.BPE(**model))
    return tokenizer, BpeTrainer(
        vocab_size=len(special) + len(alphabet) + 200,
        special_tokens=list(special),
        initial_alphabet=list(alphabet),
        show_progress=False,
    )


def prepend_bos(tokenizer: Tokenizer, bos: str) -> None:
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )


def llama_tokenizer(extra: Sequence[str] = (), pad: str | None = None, **kwargs: Any) -> Any:
    """Like Llama's and Mistral's: BPE with byte fallback, spaces as ▁, BOS before every text."""
    special = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    tokenizer, trainer = _bpe(CORPUS, special, [], unk_token="<unk>", byte_fallback=True)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # Real tokenizers do not split before BPE; merges across words are rare there, but not with
    # only 200 merges.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    prepend_bos(tokenizer, "<s>")
    return _wrap(
        tokenizer,
        extra,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        **kwargs,
    )


def gemma_tokenizer(extra: Sequence[str] = (), add_bos: bool = True, **kwargs: Any) -> Any:
    """Like Gemma's: BPE with byte fallback, spaces as ▁, separate newlines, BOS before texts."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *[f"<0x{i:02X}>" for i in range(256)]]
    tokenizer, trainer = _bpe(CORPUS, special, ["\n"], unk_token="<unk>", byte_fallback=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if add_bos:
        prepend_bos(tokenizer, "<bos>")
    return _wrap(
        tokenizer,
        extra,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        **kwargs,
    )


def byte_tokenizer(
    extra: Sequence[str] = (), corpus: Sequence[str] = CORPUS, split: bool = True, **kwargs: Any
) -> Any:
    """Like GPT-2's and Qwen's: byte-level BPE without BOS. ``split=False`` lets words merge."""
    tokenizer, trainer = _bpe(
        corpus, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainer)
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **kwargs}
    return _wrap(tokenizer, extra, **tokens)


def word_tokenizer(
    *,
    lower: bool,
    bos: str | None,
    eos: str,
    pad: str,
    unk: str = "<unk>",
    length: int,
    **kwargs: Any,
) -> Any:
    """Word-level tokenizer, sufficient for text encoders: [BOS] words EOS, then padding."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=unk))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = list(dict.fromkeys([pad, unk, *([bos] if bos else []), eos]))
    trainer = WordLevelTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *(text.lower() for text in CORPUS)], trainer)
    names = [*([bos] if bos else []), eos]
    tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*([bos] if bos else []), "$A", eos]),
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )
    tokens = {"eos_token": eos, "pad_token": pad, "unk_token": unk, "model_max_length": length}
    if bos:
        tokens["bos_token"] = bos
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**tokens, **kwargs})


def sentencepiece_model() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.lower() for text in CORPUS),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _wrap(tokenizer: Tokenizer, extra: Sequence[str], **kwargs: Any) -> Any:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kwargs)
    fast.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken(t, special=True, normalized=False) for t in extra
            ]
        }
    )
    return fast
