"""The public names that README, docs, experiments and configs use most have an example, which prints what it says."""

import doctest
import inspect

import pytest
import torch

import hypergrad

MOST_USED = (
    "Supervised",
    "Unrolled",
    "Implicit",
    "fit",
    "L2",
    "Momentum",
    "CG",
    "Splits",
    "Ridge",
    "LBFGS",
    "digits",
    "GradientDescent",
    "Trainer",
    "Hyperparameter",
    "SingleLoop",
    "Split",
    "hypergradient",
    "Neumann",
    "diabetes",
    "HyperCleaning",
    "ExampleWeights",
    "GaussNewton",
    "argmin",
    "F2SA",
    "ImplicitInfluence",
    "MetaLearning",
    "Checkpoint",
    "Cosine",
    "Dense",
    "InfinitesimalJackknife",
)
"""By the number of mentions, most first. Left out are what is extended and not called (`InnerProblem`,
`HypergradEstimator`), what is not ours (`Tensors`, `positive`), and what needs more than one process or package
(`DataParallel`, `EKFAC`)."""


@pytest.mark.parametrize("name", MOST_USED)
def test_the_example_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    _, _, example = inspect.cleandoc(getattr(hypergrad, name).__doc__).partition("\nExamples:\n")
    assert example, f"hypergrad.{name} needs a section Examples in its docstring"
    test = doctest.DocTestParser().get_doctest(example, {"hg": hypergrad, "torch": torch}, name, None, None)
    said: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert tried > 1
    assert not failed, "".join(said)
