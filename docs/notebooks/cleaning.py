# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Data cleaning
#
# **The question.** 40 % of the labels of 800 train images are wrong, and nobody knows which. 200 further images have
# labels that were checked. Can they show which of the 800 to believe?
#
# Give each train image a weight λ_i between 0 and 1, and choose the weights by the loss on the checked images, the
# validation (dev) part:
#
#     min_λ f(w*(λ))    with    w*(λ) = argmin_w 1/n Σ_i λ_i ℓ_i(w) + c ‖w‖²
#
# The hypergradient is dF/dλ_i = −1/n ∇ℓ_iᵀ H⁻¹ ∇f. An image gets more weight if a step that lowers its own loss lowers
# the dev loss too. All 800 entries come from one linear system.
#
# ## The data, and the problem
#
# `hg.HyperCleaning` replaces labels by wrong ones itself, and remembers which, so that the result can be judged.

# %%
from functools import partial

import torch

import hypergrad as hg

data = hg.first_of(hg.digits(dev=0.2, test=0.3), train=800, dev=200)
problem = hg.HyperCleaning(data, noise=0.4, l2=1e-3)

# %% [markdown]
# ## Learn the weights
#
# L-BFGS trains softmax regression to its minimum, conjugate gradient solves the system, and Adam moves the logits of the
# weights. All weights start at 1/2.

# %%
estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-3), inner_tol=1e-4, error_bar=False)
result = hg.fit(problem, estimator, partial(torch.optim.Adam, lr=0.5), 12, progress=False)
for name in ("test_accuracy", "precision", "recall"):
    print(f"{name:13} {result.first.metrics[name]:.3f} → {result.best.metrics[name]:.3f}")
result

# %% [markdown]
# Precision is the share of wrong labels among the images with a weight below 1/2, and recall the share of the wrong
# labels that are found.
#
# ## Is it worth it?
#
# The checked images could also train a model themselves. So we also train on them alone, and on them together with all
# images that seem right. The test part judges.

# %%
def test_accuracy(X, y):
    trained = hg.Supervised(
        model=hg.softmax_regression(64, 10),
        loss=torch.nn.functional.cross_entropy,
        train=(X, y),
        dev=data.test,
        hyperparameters={"l2": hg.L2(init=1e-3)},
    )
    return hg.fit(trained, estimator, torch.optim.SGD, 0, progress=False).first.metrics["dev_accuracy"]


X, y = problem.X, problem.y  # with the wrong labels
kept = result.hparams["weights"] > 0.5
choices = {
    "all 800": (X, y),
    "200 checked": data.dev,
    "kept and checked": (torch.cat([X[kept], data.dev.X]), torch.cat([y[kept], data.dev.y])),
    "800 without errors": data.train,
}
for name, examples in choices.items():
    print(f"{name:18} {test_accuracy(*examples):.3f}")

# %% [markdown]
# ![histograms of the learned weights of right and of wrong labels, and images with the smallest weights](../tutorials/img/cleaning.png)
#
# The weights separate right labels from wrong ones, and nobody had to choose a threshold. Look at the second line before
# you clean data of your own: the checked images are also worth much as train images.
#
# ## What to change next
#
# - Another noise, or fewer checked images: `noise=0.6`, `dev=50`. From some point on the weights overfit the checked
#   images, and the test loss in the summary says so.
# - Your own model and data: `hg.Supervised(…, hyperparameters={"weights": hg.ExampleWeights()})`.
# - A network: `product=hg.GaussNewton()` in the estimator, or K-FAC: [kfac](../kfac.md).
# - Many examples: mini-batches in one loop, [a stochastic single loop](../tutorials/stochastic_loop.md).
# - 20,000 images, and six other methods: [the experiment](../../experiments/hyper_cleaning/README.md).
#
# Concepts: [implicit differentiation](../implicit.md), [losses and weights](../losses.md).
