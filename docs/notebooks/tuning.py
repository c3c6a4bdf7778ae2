# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Tuning a network's regularisation and schedule
#
# **The question.** A small network has 200 images to learn from. Which penalty should each of its tensors have, how much
# label smoothing, and which learning rate at each of its 60 training steps?
#
# That is 65 numbers, too many for a grid. Training is w_{t+1} = step(w_t, λ) for t = 0 … T − 1, and the validation (dev)
# loss f belongs to the weights at its end. Going backwards through the steps gives the derivative by all 65 at once:
#
#     dF/dλ = ∂f/∂λ + Σ_t (∂w_{t+1}/∂λ)ᵀ a_{t+1},    a_t = (∂w_{t+1}/∂w_t)ᵀ a_{t+1},    a_T = ∂f/∂w_T
#
# ## The data and the network

# %%
from functools import partial

import torch
from torch import nn

import hypergrad as hg

data = hg.first_of(hg.digits(dev=0.4, test=0.4), train=200)  # images of 8 × 8 pixels, as vectors
T = 60  # training steps


def tune(hyperparameters):
    torch.manual_seed(0)  # the same initial weights
    problem = hg.Supervised(
        model=nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        loss=nn.CrossEntropyLoss(),
        **data._asdict(),  # train, dev and test
        hyperparameters=hyperparameters,
        batch_size=50,
    )
    estimator = hg.Unrolled(solver=hg.Momentum(lr="rate"), inner_steps=T)
    adam = partial(torch.optim.Adam, lr=0.1)
    return hg.fit(problem, estimator, adam, 30, warm_start=False, progress=False)

# %% [markdown]
# `lr="rate"` says that the learning rate is the hyperparameter of that name. `warm_start=False` begins each training at
# the initial weights, so that the run which is tuned is always the same run of 60 steps.
#
# ## One learning rate
#
# First, only the rate is tuned, for comparison.

# %%
plain = tune({"rate": hg.Hyperparameter(0.05, constraint=hg.positive)})
plain

# %% [markdown]
# ## All of them
#
# The rate gets the shape (60,): one for each step. The penalties and the smoothing are effects, which say what a
# hyperparameter does.

# %%
result = tune({
    "rate": hg.Hyperparameter(torch.full((T,), 0.05), constraint=hg.positive),
    "decay": hg.L2(init=1e-3, per="tensor"),
    "smooth": hg.LabelSmoothing(init=0.1),
})
result

# %%
for name, record in {"untuned": result.first, "one rate": plain.best, "all 65": result.best}.items():
    test = record.metrics
    print(f"{name:8} dev {record.dev_loss:.3f}  test {test['test_loss']:.3f}  accuracy {test['test_accuracy']:.3f}")
print("penalties", result.hparams["decay"], "smoothing", result.hparams["smooth"])

# %% [markdown]
# ![dev loss over the outer steps, learning rates over the inner steps, penalties over the outer steps](../tutorials/img/tuning.png)
#
# The learned schedule is far above the first 0.05, and it is not smooth: each step has its own batch. Smoothing and
# penalties shrink. Both keep a network from being too sure of its answers, and after 60 steps this one is not. Look at
# the test part before you believe the dev part: 65 numbers were fitted to it. Here the test loss is lower too, but the
# test accuracy is no better than with one rate.
#
# ## What to change next
#
# - A schedule for each tensor: give `rate` the shape `(T, 4)`. Or start from a cosine:
#   `hg.Hyperparameter(hg.Cosine(base=0.1, steps=T).values(T), constraint=hg.positive)`.
# - More steps need more memory. `tape=hg.Checkpoint()` keeps about √T states instead of T: [memory](../memory.md).
# - If dev is small, `hg.k_fold(problem, 5)` judges by all of train and dev: [validation](../validation.md).
# - Your own network takes the place of `nn.Sequential(…)`: [models](../models.md). `result.save(folder)` saves the
#   learned weights: [going home](../going_home.md).
#
# Concepts: [four ways to a derivative](../differentiation.md), [what gradients cost](../cost.md).
