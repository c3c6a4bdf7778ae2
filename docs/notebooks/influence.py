# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Influence and leave-one-out
#
# **The question.** Which train images make the model worse on new ones? Leaving each one out and training again would
# answer it, with as many trainings as there are images. One linear system answers it for all of them at once.
#
# Give train example i the weight ω_i in the train loss; ω_i = 1 is in, ω_i = 0 is out. The derivative of the best weights
# w\*(ω) by ω_i comes from the implicit function theorem, and with the validation (dev) loss f
#
#     s_i = −dF/dω_i = ∂f/∂wᵀ H⁻¹ ∇ℓ_i / N      with H = ∂²g/∂w²
#
# is the change of the dev loss without example i, to first order. An example with a negative score is harmful.
#
# ## 300 images, 15 of them with a wrong label

# %%
import torch
from torch import nn

import hypergrad as hg

torch.set_default_dtype(torch.float64)
data = hg.first_of(hg.digits(), train=300)
random = torch.Generator().manual_seed(0)
wrong = torch.randperm(300, generator=random)[:15]
y = data.train.y.clone()
y[wrong] = (y[wrong] + torch.randint(1, 10, (15,), generator=random)) % 10

torch.manual_seed(0)
problem = hg.Supervised(
    model=nn.Linear(64, 10),
    loss=nn.CrossEntropyLoss(),
    train=(data.train.X, y),
    dev=data.dev,
    hyperparameters={"l2": hg.L2(init=1e-2), "weight": hg.ExampleWeights()},
)

# %% [markdown]
# ## Train, and score
#
# The formula holds at the minimum, so training goes there: L-BFGS until the gradient is small. `hg.Dense()` factors the
# Hessian of the 650 weights.

# %%
training = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-8).training
hparams = problem.init_hparams()
params = training.run(problem, hparams, problem.init_params()).params

method = hg.ImplicitInfluence(linsolve=hg.Dense())
scores = hg.influence_scores(problem, params, hparams, method=method, mean=True)
order = scores.argsort()  # the most harmful first
for first in (15, 30):
    found = torch.isin(order[:first], wrong).sum()
    print(f"among the {first} most harmful images are {found} of the 15 with a wrong label")

# %% [markdown]
# ## Is it true?
#
# Now leave 40 images out, one after the other, and train again: the 20 most harmful ones and the 20 most helpful ones.
# A weight of 0 takes an image out.

# %%
chosen = torch.cat([order[:20], order[-20:]])
before = problem.outer_loss(params, hparams, None)
changes = []
for i in chosen:
    without = hparams | {"weight": hparams["weight"].index_fill(0, i, 0.0)}
    again = training.run(problem, without, params).params
    changes.append(problem.outer_loss(again, without, None) - before)
changes = torch.stack(changes)
print("correlation", torch.corrcoef(torch.stack([scores[chosen], changes]))[0, 1].item())
print("largest difference", (scores[chosen] - changes).abs().max().item(), "of", changes.abs().max().item())

# %% [markdown]
# ![predicted changes against those of 40 trainings, and the six most harmful images with their labels](../tutorials/img/influence.png)
#
# ## What to change next
#
# - A network is not at a minimum after training. `linsolve=hg.EKFAC()` is the method for it, and `hg.UnrolledInfluence`
#   differentiates the training that was done: [influence](../influence.md).
# - `mean=False` gives a score for each pair of a dev and a train image, and `hg.group_scores` adds those of a group.
# - `hg.InfinitesimalJackknife(order=2)` predicts the *weights* without an example, to second order:
#   [Taylor series](../taylor.md).
# - From the command line: `python -m hypergrad.influence experiment=digits top=10`.
# - If many labels are wrong, learn the weights of the examples: [data cleaning](../tutorials/cleaning.md).
#
# Concepts: [implicit differentiation](../implicit.md), [the experiment on leaving one
# out](../../experiments/leave_one_out/README.md).
