"""BERT of the transformers library, as it comes: batches by name, and the loss that it returns."""

from functools import cache
from typing import Any

import pytest
import torch
from plain_training import estimates, slope
from real_models import untyped
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import hypergrad as hg

pytestmark = pytest.mark.slow
LR, STEPS, L2 = 0.1, 4, 0.01


def bert() -> nn.Module:
    BertConfig, BertForSequenceClassification = untyped("transformers", "BertConfig", "BertForSequenceClassification")

    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_labels": 3, "attn_implementation": "eager"}
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **settings,
    )
    return BertForSequenceClassification(config).double()


def texts(seed: int, n: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(6) < 3 + torch.arange(n)[:, None] % 4).long()
    ids = torch.randint(1, 20, (n, 6), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(n) % 3}


class Rows(Dataset):
    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: x[index] for name, x in self.batch.items()}


def encoded(batch: dict[str, Tensor]) -> Any:
    (BatchEncoding,) = untyped("transformers", "BatchEncoding")

    return BatchEncoding(batch)


def without_labels(batch: dict[str, Tensor]) -> Any:
    return {name: x for name, x in batch.items() if name != "labels"}, batch["labels"]


@cache
def truth() -> tuple[float, float]:
    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(**batch).loss

    train, dev = texts(1), texts(2)
    return slope(bert(), lambda m, t: loss(m, train), lambda m: loss(m, dev), l2=L2, lr=LR, steps=STEPS, eps=1e-4)


FORMS: dict[str, Any] = {
    "returned": (None, encoded),
    "loader": (None, lambda batch: DataLoader(Rows(batch), batch_size=3)),
    "logits": (cross_entropy, encoded),
    "pair": (nn.CrossEntropyLoss(), without_labels),
}


@pytest.mark.parametrize(("loss", "form"), FORMS.values(), ids=FORMS)
def test_bert_has_the_slope_of_plain_training(loss, form):
    problem = hg.Supervised(
        model=bert(),
        loss=loss,
        train=form(texts(1)),
        dev=form(texts(2)),
        test=form(texts(3)),
        hyperparameters={"l2": hg.L2(init=L2)},
    )
    found = estimates(problem, lr=LR, steps=STEPS)
    assert found == pytest.approx(truth(), rel=1e-6)
    assert 0 <= problem.metrics(problem.init_params(), problem.init_hparams())["test_accuracy"] <= 1


def test_a_model_without_a_head_is_refused():
    BertConfig, BertModel = untyped("transformers", "BertConfig", "BertModel")

    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises((TypeError, ValueError), match="BertModel must return .* last_hidden_state.* wrap it"):
        hg.Supervised(
            model=BertModel(config).double(),
            loss=cross_entropy,
            train=texts(1),
            dev=texts(2),
            hyperparameters={"l2": hg.L2(init=L2)},
        )
