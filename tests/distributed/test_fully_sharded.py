"""Sharded parameters on two ranks: the hypergradients of one process, and refusals of what is not served."""

import re

import pytest
import ranks
import torch
from sharded_cases import QUICK, compared

import hypergrad as hg

PAIRS = [name.split(", ") for name in compared()]


def of_both(case):
    """What each rank found; a machine that is busy takes several times the 15 seconds of an idle one."""
    is_slow = case in compared() and case not in QUICK
    return ranks.run("sharded_cases", function="compared" if is_slow else "cases", seconds=180).of(case)


def pairs(*kinds):
    """The cases of these estimators, of which the longer ones are slow."""
    some = [pair for pair in PAIRS if pair[0] in kinds]
    return [pytest.param(*pair, marks=[] if ", ".join(pair) in QUICK else pytest.mark.slow) for pair in some]


def found(case):
    """What the first rank found."""
    return of_both(case)[0]


@pytest.mark.parametrize(("linsolve", "problem"), pairs("cg", "neumann"))
def test_implicit_is_that_of_one_process_with_exact_products(linsolve, problem):
    first, second = of_both(f"{linsolve}, {problem}")
    assert first["grad"] == second["grad"]
    assert first["residual"] == second["residual"]
    assert first["error"] < 1e-6
    assert first["params"] < 1e-12
    assert first["loss"] < 1e-12


@pytest.mark.parametrize(("method", "problem"), pairs("f2sa", "sama", "bome"))
def test_single_loops_are_those_of_one_process(method, problem):
    errors = found(f"{method}, {problem}")
    assert errors["error"] < (1e-8 if method == "sama" else 1e-9)
    assert errors["params"] < 1e-9


def test_in_bfloat16():
    errors = found("bfloat16")
    assert errors["formats"] == ["torch.float32"]
    assert errors["f2sa"] < 0.05
    assert errors["sama"] < 0.05
    assert errors["cg"] < 0.05


def test_a_trainer_and_the_trained_module():
    ends = found("tuned")
    assert ends["hparams"] < 1e-8
    assert ends["grad"] < 1e-6
    assert ends["outputs"] < 1e-8
    assert ends["accuracy"][0] == ends["accuracy"][1]


def test_gathered_parameters_are_not_kept_after_an_evaluation():
    assert found("evaluated elsewhere") < 1e-12


def test_a_loss_with_its_gradients_is_one_all_reduce_and_two_more_for_penalties():
    """Besides what FSDP2 sends: g and ∂g/∂λ; the sums of 28 tensors, and their derivatives."""
    assert found("traffic") == [1, 1, 3, 1 + 2 * 28]


def test_batch_normalisation_has_the_statistics_of_all_ranks():
    assert found("normalized") == "nothing"


def test_hyperparameters_that_act_through_the_model():
    """The check of the products compares their mixed derivatives too."""
    assert found("scaled inputs") == "nothing"


def test_sums_norms_and_products_are_those_of_the_whole():
    assert max(found("reductions")) < 1e-14


REFUSED = {
    "unrolled": "Unrolled needs second derivatives, but FullySharded has first ones alone. Use hg.Implicit(product=",
    "forward": "Forward needs second derivatives, but FullySharded",
    "reverse": "Reverse needs second derivatives, but FullySharded",
    "error bar": "The error bar of Implicit needs second derivatives, which FullySharded has not: error_bar=False.",
    "gmres": "linsolve has GMRES. Use one of these two.",
    "preconditioner": "hg.CG without a preconditioner and hg.Neumann use, but linsolve has a preconditioner.",
    "soba": "SOBA needs second derivatives, but FullySharded",
    "no step": "F2SA needs a solver",
    "newton": "rule for each entry of a gradient, but Newton is none. Use hg.GradientDescent",
    "other problem": "of the model of an hg.Supervised, but the problem is a Quadratic. Use hg.DataParallel.",
    "precision": "precision must be None, 'bf16-mixed' or a torch.distributed.fsdp.MixedPrecisionPolicy, but it is",
    "another precision": "FullySharded computes in a precision of its own",
    "recompute": "does not recompute activations",
    "dropout": "draws random numbers, such as dropout, which are others on each rank. Give check=hg.Supervised(…)",
    "units": "The pattern 'layers.*' of units matches no part of the model",
    "a whole tensor": "mul must have operands that are all sharded, or numbers",
    "a mean": "have no mean",
    "an entry": "have no __getitem__",
    "a number": "have no tolist",
    "per weight": "'l2' is a L2 per 'weight', whose entries belong to entries of these. Use per='all'",
    "a buffer": "does not serve a hyperparameter that is a buffer of the model",
    "wrong products": "with the Hessian by differences of sharded gradients differs from the exact one by 9.9e-03",
    "examples that are mixed": "needs a loss that is a mean or a sum over examples",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_served_is_refused_by_name(case):
    assert REFUSED[case] in found("refusals")[case]


def test_without_torchrun_it_says_what_to_do():
    model = torch.nn.Linear(2, 1)
    train, dev = ((torch.randn(8, 2), torch.randn(8, 1)) for _ in range(2))
    problem = hg.Supervised(
        model=model, loss=torch.nn.functional.mse_loss, train=train, dev=dev, hyperparameters={"l2": hg.L2(init=0.1)}
    )
    with pytest.raises(ValueError, match=re.escape("torch.distributed is not initialised. Start the program with")):
        hg.FullySharded(problem)
