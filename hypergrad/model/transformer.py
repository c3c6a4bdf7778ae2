"""A small transformer that classifies texts."""

import torch
from torch import Tensor, nn


class TransformerClassifier(nn.Module):
    """Class scores of texts: the mean over the words of what a transformer encoder makes of them, and a linear layer.

    Args:
        vocabulary: words are numbers below this; 0 is no word, and may only come after the words of a text.
        num_outputs: classes, ≥ 1.
        length: most words of a text, ≥ 1.
        width: of the vector of a word, divisible by `heads`.
        layers: encoder layers, ≥ 1.
        heads: of attention, ≥ 1.
        dropout: probability, in [0, 1).

    Shapes: texts (n, length), integers, each with a word at least; scores (n, num_outputs).

    Source: Vaswani et al., "Attention is all you need", NIPS (2017).
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        num_outputs: int,
        length: int,
        width: int = 32,
        layers: int = 1,
        heads: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.positions = nn.Parameter(0.1 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.dropout, self.scores = nn.Dropout(dropout), nn.Linear(width, num_outputs)

    def forward(self, texts: Tensor) -> Tensor:
        absent = texts == 0
        x = self.encoder(self.words(texts) + self.positions[: texts.shape[1]], src_key_padding_mask=absent)
        weights = (~absent).to(x.dtype).unsqueeze(2)
        return self.scores(self.dropout((x * weights).sum(1) / weights.sum(1)))
