"""Networks of the usual shapes, of any size: small ones show the overhead of the host."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention


class Block(nn.Module):
    """Two convolutions with group normalisation, and the way around them."""

    def __init__(self, before: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) for _ in range(2))
        shortcut = [nn.Conv2d(before, width, 1, stride, bias=False), nn.GroupNorm(groups, width)]
        self.shortcut = nn.Sequential(*(shortcut if stride > 1 else []))

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) ↦ (n, width, h / stride, w / stride)."""
        inner = relu(self.norms[0](self.first(x)))
        return relu(self.norms[1](self.second(inner)) + self.shortcut(x))


def resnet18(width: int = 64, groups: int = 32, num_classes: int = 10) -> nn.Module:
    """ResNet-18 with group normalisation and a stem for small images: 62 tensors, 11 million numbers at width 64."""
    stages = [(width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 2)]
    blocks = [
        block
        for before, after, stride in stages
        for block in (Block(before, after, stride, groups), Block(after, after, 1, groups))
    ]
    stem = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes))


class Layer(nn.Module):
    """Causal attention and two dense layers, each after a normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, width) ↦ the same shape."""
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(self.norms[0](x)).chunk(3, -1))
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.dense(self.norms[1](x))


class GPT(nn.Module):
    """A decoder whose loss is that of the next token; at its defaults that of 124 million numbers."""

    def __init__(
        self, vocabulary: int = 50257, length: int = 1024, width: int = 768, heads: int = 12, layers: int = 12
    ):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (n, t) ↦ logits (n, vocabulary, t), for `cross_entropy` with the ids that follow, (n, t)."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.layers(x))).transpose(1, 2)
