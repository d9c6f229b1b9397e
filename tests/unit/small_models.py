"""Small models of Hugging Face transformers, made without a download."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

_WORDS = ("[PAD]", "[UNK]", "late", "early", "rain", "sun")


def a_classifier(**settings: Any) -> Any:
    """Return one of four words to two classes, with random numbers in its steps."""
    return transformers.BertForSequenceClassification(a_configuration(**settings))


def a_configuration(**settings: Any) -> Any:
    """Return that of the classifier; its weights are the same each time."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    limits = {"vocab_size": len(_WORDS), "intermediate_size": 8, "max_position_embeddings": 8}
    return transformers.BertConfig(**{**sizes, **limits, **settings})


def a_tokenizer() -> Any:
    """Return what makes the classifier's inputs."""
    numbers = {word: number for number, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    )
