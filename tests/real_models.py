"""Models from packages, tiny and randomly initialised, with data that they accept."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

_TRAIN, _DEV = 6, 5
_TOKENS, _LENGTH, _CLASSES = 11, 6, 3
_LABELS: dict[str, Any] = {"num_labels": _CLASSES}  # settings of all configs, which their types do not know
_START: dict[str, Any] = {"decoder_start_token_id": 0}


@dataclass(frozen=True)
class RealModel:
    """A module, a loss or None if the module returns it, and examples.

    `draws` says whether it has dropout; `refused` is in the message of a refusal.
    """

    module: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor] | None
    train: Any
    dev: Any
    draws: bool = False
    refused: str = ""


def untyped(module: str, *names: str) -> list[Any]:
    """Parts of a module that pyright would need half a minute to read."""
    found = import_module(module)
    return [getattr(found, name) for name in names]


def _images(size: int) -> Any:
    def part(n: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, 3, size, size, generator=generator), torch.arange(n) % _CLASSES

    return part(_TRAIN, 1), part(_DEV, 2)


def _tokens(**more: Callable[[Tensor], Tensor]) -> Any:
    """Token ids with a mask of padded ends, and further entries computed from the ids."""

    def part(n: int, seed: int) -> dict[str, Tensor]:
        ids = torch.randint(2, _TOKENS, (n, _LENGTH), generator=torch.Generator().manual_seed(seed))
        mask = (torch.arange(_LENGTH) < 3 + torch.arange(n)[:, None] % (_LENGTH - 2)).long()
        ids = ids * mask  # the token of padding is 0
        return {"input_ids": ids, "attention_mask": mask} | {name: make(ids) for name, make in more.items()}

    return part(_TRAIN, 1), part(_DEV, 2)


def _classes(ids: Tensor) -> Tensor:
    return torch.arange(len(ids)) % _CLASSES


def _next_tokens(ids: Tensor) -> Tensor:
    return ids.masked_fill(ids == 0, -100)


def _bert(dropout: float = 0.1) -> RealModel:
    BertConfig, BertForSequenceClassification = untyped("transformers", "BertConfig", "BertForSequenceClassification")

    config = BertConfig(
        vocab_size=_TOKENS,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=_LENGTH,
        **_LABELS,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return RealModel(BertForSequenceClassification(config), None, *_tokens(labels=_classes), draws=dropout > 0)


def _gpt2() -> RealModel:
    GPT2Config, GPT2LMHeadModel = untyped("transformers", "GPT2Config", "GPT2LMHeadModel")

    config = GPT2Config(
        vocab_size=_TOKENS, n_positions=_LENGTH, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return RealModel(GPT2LMHeadModel(config), None, *_tokens(labels=_next_tokens), draws=True)


def _llama(checkpointing: bool = False) -> RealModel:
    LlamaConfig, LlamaForCausalLM = untyped("transformers", "LlamaConfig", "LlamaForCausalLM")

    config = LlamaConfig(
        vocab_size=_TOKENS,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_LENGTH,
        bos_token_id=0,
        eos_token_id=0,
    )
    module = LlamaForCausalLM(config)
    if checkpointing:
        module.activation_checkpointing_enable()
        module.config.use_cache = False
    return RealModel(module, None, *_tokens(labels=_next_tokens))


def _t5() -> RealModel:
    T5Config, T5ForConditionalGeneration = untyped("transformers", "T5Config", "T5ForConditionalGeneration")

    config = T5Config(
        vocab_size=_TOKENS,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=2,
        num_heads=2,
        **_START,
        feed_forward_proj="gated-gelu",  # of T5 v1.1; a rectifier met a kink at the very λ of the test
    )
    return RealModel(T5ForConditionalGeneration(config), None, *_tokens(labels=_next_tokens), draws=True)


def _vit() -> RealModel:
    ViTConfig, ViTForImageClassification = untyped("transformers", "ViTConfig", "ViTForImageClassification")

    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=3,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        **_LABELS,
    )
    return RealModel(ViTForImageClassification(config), cross_entropy, *_images(8))


def _resnet() -> RealModel:
    ResNetConfig, ResNetForImageClassification = untyped("transformers", "ResNetConfig", "ResNetForImageClassification")

    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        hidden_act="gelu",  # at the kinks of a rectifier there is no minimum with a gradient of 0
        **_LABELS,
    )
    return RealModel(ResNetForImageClassification(config), cross_entropy, *_images(16))


def _convnext() -> RealModel:
    ConvNextConfig, ConvNextForImageClassification = untyped(
        "transformers", "ConvNextConfig", "ConvNextForImageClassification"
    )

    config = ConvNextConfig(patch_size=2, hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, **_LABELS)
    return RealModel(ConvNextForImageClassification(config), cross_entropy, *_images(8))


def _lora() -> RealModel:
    LoraConfig, get_peft_model = untyped("peft", "LoraConfig", "get_peft_model")

    real = _bert(dropout=0.0)
    config = LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules=["query", "value"], lora_dropout=0.0)
    with catch_warnings():
        filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # which peft calls
        module = get_peft_model(real.module, config)  # pyright: ignore[reportArgumentType]
    return RealModel(module, None, real.train, real.dev)


class _Encoder(nn.Module):
    """nn.TransformerEncoder with a causal mask and a mask of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(_TOKENS, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, _CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1], dtype=self.head.weight.dtype)
        padded = torch.zeros_like(attention_mask, dtype=causal.dtype).masked_fill(attention_mask == 0, -torch.inf)
        z = self.encoder(self.embed(input_ids), mask=causal, src_key_padding_mask=padded, is_causal=True)
        return self.head(z[:, 0])


class _Attention(nn.Module):
    """nn.MultiheadAttention with a mask of padding, of which the weights are used too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(_TOKENS, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8 + _LENGTH, _CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        mixed, weights = self.attend(x, x, x, key_padding_mask=attention_mask == 0)
        return self.head(torch.cat([mixed.mean(1), weights.mean(1)], 1))


class _PackedLSTM(nn.Module):
    """nn.LSTM on packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(_TOKENS, 5), nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, _CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1).cpu()
        packed = pack_padded_sequence(self.embed(input_ids), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.head(torch.cat([h[-1], h[-2]], 1))


def _sequences(make: Callable[[], nn.Module], draws: bool = False) -> RealModel:
    train, dev = _tokens()
    train, dev = ((X, _classes(X["input_ids"])) for X in (train, dev))
    return RealModel(make(), cross_entropy, train, dev, draws=draws)


def _flat(first: nn.Module, refused: str = "") -> RealModel:
    module = nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(4, _CLASSES))
    return RealModel(module, cross_entropy, *_images(2), refused=refused)


def _evaluated_spectral_norm() -> nn.Module:
    layer = parametrizations.spectral_norm(nn.Linear(12, 4))
    layer.get_submodule("parametrizations.weight.0").eval()
    return layer


REAL_MODELS: dict[str, Callable[[], RealModel]] = {
    "transformers BERT, dropout": _bert,
    "transformers BERT": lambda: _bert(dropout=0.0),
    "transformers GPT-2, dropout": _gpt2,
    "transformers Llama": _llama,
    "transformers Llama, gradient checkpointing": lambda: _llama(checkpointing=True),
    "transformers T5 v1.1, dropout": _t5,
    "transformers ViT": _vit,
    "transformers ResNet, batch norm": _resnet,
    "transformers ConvNeXt": _convnext,
    "peft LoRA on BERT": _lora,
    "nn.TransformerEncoder, masks, dropout": lambda: _sequences(_Encoder, draws=True),
    "nn.MultiheadAttention, masks": lambda: _sequences(_Attention),
    "nn.LSTM, packed": lambda: _sequences(_PackedLSTM),
    "nn.utils.parametrizations.weight_norm": lambda: _flat(parametrizations.weight_norm(nn.Linear(12, 4))),
    "nn.utils.parametrizations.spectral_norm, in eval()": lambda: _flat(_evaluated_spectral_norm()),
    "nn.utils.parametrizations.spectral_norm": lambda: _flat(
        parametrizations.spectral_norm(nn.Linear(12, 4)),
        refused="changes the buffer '1.parametrizations.weight.0._u' of its _SpectralNorm",
    ),
}
"""By name: how to make each, in torch's default dtype."""
