"""Names of the entries of hyperparameters, from where they are known to where they are shown."""

import json
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.distributions import constraints

import hypergrad as hg
from hypergrad.callback.jsonl import JSONLines
from hypergrad.callback.summary import Summary
from hypergrad.callback.tensorboard import TensorBoard
from hypergrad.outer.labels import entry_labels

TENSORS = ("0.weight", "0.bias", "2.weight", "2.bias")
UNROLLED = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3)


def classifier(classes=2, /, **hyperparameters):
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(12, 4, generator=generator), torch.arange(12) % classes) for _ in range(2)]
    torch.manual_seed(0)
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, classes)),
        loss=nn.functional.cross_entropy,
        train=parts[0],
        dev=parts[1],
        hyperparameters=hyperparameters,
    )


def positive(shape, **settings):
    return hg.Hyperparameter(0.1, shape=shape, constraint=constraints.positive, **settings)


RATE, L2 = hg.GradientDescent(lr="lr"), {"l2": hg.L2(per="tensor")}
GROUPED = hg.GradientDescent(lr="lr", groups=("*.weight", "*.bias"))
SOURCES = {
    "tensors": (classifier(**L2), UNROLLED, {"l2": TENSORS}),
    "some tensors": (classifier(l2=hg.L1(per="tensor", on="*.bias")), UNROLLED, {"l2": ("0.bias", "2.bias")}),
    "classes": (classifier(3, c=hg.ClassWeights()), UNROLLED, {"c": ("class 0", "class 1", "class 2")}),
    "declared": (classifier(lr=positive((3,), labels=("a", "b", "c"))), hg.Unrolled(solver=RATE, inner_steps=3), None),
    "steps": (classifier(lr=positive((2,))), hg.Unrolled(solver=RATE, inner_steps=2), {"lr": ("step 0", "step 1")}),
    "groups": (classifier(lr=positive((1, 2))), hg.Forward(solver=GROUPED), {"lr": ("*.weight", "*.bias")}),
    "each tensor": (classifier(lr=positive((1, 4))), hg.Unrolled(solver=RATE), {"lr": TENSORS}),
    "steps and groups": (
        classifier(lr=positive((2, 2))),
        hg.Unrolled(solver=GROUPED, inner_steps=2),
        {"lr": ("step 0, *.weight", "step 0, *.bias", "step 1, *.weight", "step 1, *.bias")},
    ),
    "two of a kind": (
        classifier(**L2, lr=positive((1, 4))),
        hg.Unrolled(solver=hg.Momentum(lr=hg.Cosine(base="lr", steps=2)), inner_steps=2),
        {"l2": TENSORS, "lr": TENSORS},
    ),
    "folds": (hg.k_fold(classifier(**L2), 2), UNROLLED, {"l2": TENSORS}),
    "no names": (classifier(l2=hg.L2(per="weight"), s=hg.ExampleWeights()), UNROLLED, {}),
    "a schedule too long": (classifier(lr=positive((1001,))), hg.Unrolled(solver=RATE, inner_steps=1001), {}),
}


@pytest.mark.parametrize(("problem", "estimator", "expected"), SOURCES.values(), ids=SOURCES)
def test_the_library_names_the_entries_that_it_knows(problem, estimator, expected):
    assert entry_labels(problem, estimator) == ({"lr": ("a", "b", "c")} if expected is None else expected)


def recorded(problem, folder, estimator=UNROLLED):
    console = Console(record=True, width=200)
    callbacks = [JSONLines(folder), TensorBoard(folder), Summary(folder, console)]
    sgd = lambda u: torch.optim.SGD(u, lr=0.1)  # noqa: E731
    result = hg.fit(problem, estimator, sgd, 2, progress=False, callbacks=callbacks)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return result, rows, console.export_text()


def test_an_entry_has_its_name_in_every_record_of_a_run(tmp_path):
    result, rows, text = recorded(classifier(**L2), tmp_path)
    assert json.loads((tmp_path / "labels.json").read_text()) == {"l2": list(TENSORS)}
    seen = EventAccumulator(str(tmp_path)).Reload()
    for i, name in enumerate(TENSORS):
        values = result.trajectory["l2"][:, i].tolist()
        reached = f"{values[-1]:.6g}"
        assert [row["hparam/l2"][i] for row in rows] == values
        assert [row[f"hparam/l2/{name}"] for row in rows] == values
        assert [row[f"hparam/l2/{name}"] for row in result.history] == values
        assert [event.value for event in seen.Scalars(f"hparam/l2/{name}")] == pytest.approx(values)
        (line,) = (line for line in text.splitlines() if f"l2[{name}]" in line)
        assert reached in line
    last = json.loads((tmp_path / "summary.json").read_text())["last"]
    assert last["hparam/l2/2.bias"] == result.last.hparams["l2"][3].item()


def test_a_vector_without_names_has_the_indices_of_its_entries(tmp_path):
    _, rows, text = recorded(classifier(s=hg.ExampleWeights()), tmp_path)
    assert not (tmp_path / "labels.json").exists()
    assert [rows[-1][f"hparam/s/{i}"] for i in range(12)] == rows[-1]["hparam/s"]
    assert "median" in text


def test_many_entries_are_a_range_with_the_names_of_its_ends(tmp_path):
    problem = classifier(12, c=hg.ClassWeights())
    result, rows, text = recorded(problem, tmp_path)
    low, high = (int(i) for i in (result.last.hparams["c"].argmin(), result.last.hparams["c"].argmax()))
    assert re.search(rf"{result.last.hparams['c'].min().item():.3g} \(class {low}\) +│\n", text)
    assert re.search(rf"to {result.last.hparams['c'].max().item():.3g} \(class {high}\) +│\n", text)
    long = hg.Unrolled(solver=hg.GradientDescent(lr="lr"), inner_steps=21)
    _, rows, _ = recorded(classifier(lr=positive((21,))), tmp_path / "long", long)
    assert not any(tag.startswith("hparam/lr/") for row in rows for tag in row)
    assert json.loads((tmp_path / "long" / "labels.json").read_text())["lr"][20] == "step 20"


def test_names_stay_with_a_run_that_is_resumed(tmp_path):
    settings = {
        "problem": classifier(**L2),
        "estimator": UNROLLED,
        "optimizer": lambda u: torch.optim.SGD(u, lr=0.1),
    }
    hg.Trainer(outer_steps=1, callbacks=[hg.StateSaver(tmp_path), JSONLines(tmp_path)], **settings).fit()
    result = hg.Trainer(outer_steps=2, callbacks=[JSONLines(tmp_path)], **settings).fit(resume=tmp_path)
    assert [record.labels["l2"] for record in (result.first, result.last)] == [TENSORS, TENSORS]
    assert "hparam/l2/2.bias" in (tmp_path / "metrics.jsonl").read_text().splitlines()[2]


def test_a_name_of_several_words_is_a_tag_of_tensorboard(tmp_path):
    result, _, _ = recorded(classifier(3, c=hg.ClassWeights()), tmp_path)
    tags = [tag for tag in EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] if tag.startswith("hparam/c/")]
    assert len(tags) == 3
    assert result.history[-1]["hparam/c/class 2"] == result.last.hparams["c"][2].item()


def test_a_hyperparameter_without_entries_stands_beside_others():
    record = hg.fit(classifier(**L2), UNROLLED, lambda u: torch.optim.SGD(u, lr=0.1), 0, progress=False).last
    empty = replace(record, hparams=record.hparams | {"none": torch.zeros(0)})
    assert not any(tag.startswith("hparam/none") for tag in empty.scalars())
    assert len([tag for tag in empty.scalars() if tag.startswith("hparam/l2/")]) == 4
