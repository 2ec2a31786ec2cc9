"""A long encoder of a few thousand numbers, and a tokenizer of words and letters."""

import torch

from unspool.models.long_encoder import LongEncoder, LongEncoderConfig

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzé0123456789.,?!-"


def tokenizer():
    """WordPiece over letters: a word of n letters has n tokens, but for some that are known."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["pain", "drug", "red", "blue", "is", "the", "what", "name"]
    words = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), *known]
    inner = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    from tokenizers.processors import TemplateProcessing

    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def encoder(kind="longformer", *, length=64, layers=1, width=32, window=8, dropout=0.0):
    """A random encoder for that tokenizer."""
    torch.manual_seed(0)
    return LongEncoder(
        LongEncoderConfig(
            kind=kind,
            vocab_size=len(tokenizer()),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=length + (kind == "longformer"),
            pad_token_id=0,
            type_vocab_size=2,
            window=window,
            block=4,
            random_blocks=1,
            initializer_range=0.15,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )
