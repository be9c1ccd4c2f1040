"""A small chooser that has learnt nothing."""

from __future__ import annotations

from importlib import resources

import torch
from tokenizers import Tokenizer

from memorist.models.chooser_policy import ChooserNet, ChooserPolicy, bert_config, prepared


def tiny_chooser() -> ChooserPolicy:
    """One layer over the bundled encoder's words, the same every time."""
    torch.manual_seed(0)
    words = resources.files("memorist") / "memory" / "minilm" / "tokenizer.json"
    net = ChooserNet(bert_config(1, 24, 30522))
    return ChooserPolicy(net, prepared(Tokenizer.from_file(str(words))), "tiny")
