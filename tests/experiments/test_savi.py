"""Semi-amortised variational autoencoders: the bound, the steps that lower it, and the gradient through them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, leaves
from hypergrad.model.network import perceptron
from hypergrad.training.training import Training

SOLVER = hg.Momentum(lr=0.05, momentum=0.5)
LINEAR = partial(nn.Linear, dtype=torch.float64)


def images(n: int, seed: int, p: int = 9) -> hg.Split:
    """Images whose pixels are alike in each of two halves, so that there is something to infer."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(n, 2, generator=generator).repeat_interleave(p // 2 + 1, 1)[:, :p]
    return hg.Split((half + 0.3 * torch.rand(n, p, generator=generator)).clamp(0, 1), torch.zeros(n))


def small(**settings: Any) -> hg.SemiAmortized:
    """Six train images of 9 pixels, and two test images that are refined with them."""
    torch.manual_seed(0)
    latent = settings.get("latent", 2)
    made: dict[str, Any] = {"encoder": perceptron(9, 2 * latent, (4,)), "decoder": perceptron(latent, 9, (4,))}
    made |= {"latent": 2, "batch_size": 4, "num_test": 2}
    data = hg.Splits(images(6, 1), images(4, 2), images(4, 3))
    return hg.SemiAmortized(data, **(made | settings))


def some_hparams(problem: hg.SemiAmortized) -> hg.Tensors:
    generator = torch.Generator().manual_seed(5)
    hparams = problem.init_hparams()
    return {name: x + 0.5 * torch.randn(x.shape, generator=generator) for name, x in hparams.items()}


def by_hand(problem: hg.SemiAmortized, hparams: hg.Tensors, steps: int) -> torch.Tensor:
    """The dev loss after some steps of momentum, by torch's distributions and plain autograd."""
    x, judged = problem.images, len(problem.images) - problem.num_test

    def network(part, inputs):
        w1, b1, w2, b2 = (hparams[f"{part}.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
        return torch.tanh(inputs @ w1.T + b1) @ w2.T + b2

    def bounds(mean, log_var, eps):
        q = Normal(mean, (log_var / 2).exp())
        likelihood = Bernoulli(logits=network("decoder", mean + (log_var / 2).exp() * eps))
        distortion = -likelihood.log_prob(x.expand(len(eps), *x.shape)[:, : len(mean)]).sum(-1).mean(0)
        return distortion + kl_divergence(q, Normal(torch.zeros_like(mean), 1.0)).sum(-1)

    point = [half.clone() for half in network("encoder", x).chunk(2, 1)]
    velocity = [torch.zeros_like(half) for half in point]
    for t in range(steps):
        loss = bounds(point[0], point[1], problem.inner_batch(t)).sum()
        grads = torch.autograd.grad(loss, point, create_graph=True)
        velocity = [0.5 * v + g for v, g in zip(velocity, grads, strict=True)]
        point = [w - 0.05 * v for w, v in zip(point, velocity, strict=True)]
    mean, log_var = (half[:judged] for half in point)
    return bounds(mean, log_var, problem.outer_batch(3)).mean()


@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_gradient_through_the_steps_is_that_of_plain_autograd_and_of_differences(num_samples):
    problem = small(num_samples=num_samples).at_outer_step(2)
    assert isinstance(problem, hg.SemiAmortized)
    hparams, start, steps = some_hparams(problem), problem.init_params(), 5
    found = hg.Unrolled(solver=SOLVER, inner_steps=steps).estimate(problem, hparams, start, outer_step=3)
    point = leaves(hparams)
    loss = by_hand(problem, point, steps)
    assert found.outer_loss == pytest.approx(loss.item(), rel=1e-12)
    for name, truth in zip(point, torch.autograd.grad(loss, tuple(point.values())), strict=True):
        torch.testing.assert_close(found.grad[name], truth, rtol=1e-10, atol=1e-10 * truth.norm().item())

    def dev_loss(hp):
        end = Training(solver=SOLVER, steps=steps).run(problem, hp, start).params
        return problem.outer_loss(end, hp, problem.outer_batch(3))

    for part in ("encoder", "decoder"):
        ours = {name: torch.ones_like(x) * name.startswith(part) for name, x in hparams.items()}
        truth = central_difference(dev_loss, hparams, ours, step=1e-5).item()
        assert sum((found.grad[k] * d).sum().item() for k, d in ours.items()) == pytest.approx(truth, rel=1e-6)


def test_the_gradient_is_not_that_of_the_encoders_output_alone():
    """What the steps add to it: without them the encoder's gradient is another one."""
    problem = small().at_outer_step(0)
    hparams, start = some_hparams(problem), problem.init_params()
    found = hg.Unrolled(solver=SOLVER, inner_steps=20).estimate(problem, hparams, start)
    point = leaves(hparams)
    loss = problem.outer_loss(problem.initial(start, point), point, problem.outer_batch(0))
    amortized = dict(zip(point, torch.autograd.grad(loss, tuple(point.values())), strict=True))
    name = "encoder.2.weight"
    assert found.grad[name].norm() < 0.8 * amortized[name].norm()
    assert found.outer_loss < loss.item()


def test_the_bound_bounds_the_probability_of_an_image_and_steps_bring_it_nearer():
    """−log p(x) by quadrature over a latent of one dimension."""
    problem = small(latent=1, num_test=0)
    hparams = some_hparams(problem)
    z = torch.linspace(-8, 8, 4001)[:, None]
    weights = {name.removeprefix("decoder."): x for name, x in hparams.items() if name.startswith("decoder")}
    logits = problem.decoder(weights, z, None)
    log_joint = Bernoulli(logits=logits[:, None]).log_prob(problem.images).sum(-1) + Normal(0.0, 1.0).log_prob(z)
    evidence = torch.logsumexp(log_joint + torch.log(z[1] - z[0]), 0)

    def gap(params):
        eps = problem.draws(4000, len(problem.images), "test")
        return (problem.outer_loss(params, hparams, eps) + evidence.mean()).item()

    start = problem.init_params()
    refined = Training(solver=SOLVER, steps=100).run(problem, hparams, start).params
    assert 0 < gap(refined) < gap(problem.initial(start, hparams)) / 2


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_steps_lower_the_negative_elbo_of_train_and_test_images(steps):
    problem = small().at_outer_step(2)
    assert isinstance(problem, hg.SemiAmortized)
    hparams, start = some_hparams(problem), problem.init_params()
    eps = problem.draws(500, 4, "test")
    training = Training(solver=SOLVER, steps=steps)
    before, after = problem.initial(start, hparams), training.run(problem, hparams, start).params
    assert problem.outer_loss(after, hparams, eps) < problem.outer_loss(before, hparams, eps)
    assert float(problem.metrics(after, hparams)["test_loss"]) < float(problem.metrics(before, hparams)["test_loss"])


def test_an_epoch_has_every_train_image_once_and_the_test_images_always():
    problem = small(batch_size=4)
    epoch = [problem.at_outer_step(step) for step in (2, 3)]
    assert [len(part.images) for part in epoch] == [6, 4]
    assert all(torch.equal(part.images[-2:], problem.X_test[:2]) for part in epoch)
    seen = torch.cat([part.images[:-2] for part in epoch])
    assert torch.equal(seen.unique(dim=0), problem.X_train.unique(dim=0))
    assert torch.equal(problem.at_outer_step(2).images, epoch[0].images)


def test_draws_are_a_function_of_seed_and_steps():
    problem = small()
    one, other = problem.at_outer_step(0), problem.at_outer_step(1)
    assert torch.equal(one.inner_batch(2), problem.at_outer_step(0).inner_batch(2))
    for different in (one.inner_batch(3), other.inner_batch(2), small(seed=1).at_outer_step(0).inner_batch(2)):
        assert not torch.equal(one.inner_batch(2), different)
    assert one.outer_batch(0).shape == (1, 4, 2)


def test_the_trainer_trains_each_step_on_its_own_images():
    problem = small()
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=3)
    sgd = partial(torch.optim.SGD, lr=0.1)
    result = hg.fit(problem, estimator, sgd, 2, progress=False, warm_start=False)
    hparams = problem.init_hparams()
    for step in range(3):
        own = problem.at_outer_step(step)
        found = estimator.estimate(own, hparams, own.init_params(), outer_step=step)
        assert result.history[step]["loss/dev"] == found.outer_loss
        hparams = {name: x - 0.1 * found.grad[name] for name, x in hparams.items()}
    with pytest.raises(ValueError, match="warm_start=False"):
        hg.Trainer(problem=problem, estimator=estimator, optimizer=sgd)


def test_learning_through_the_steps_lowers_the_loss_of_test_images():
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=5)
    result = hg.fit(small(), estimator, partial(torch.optim.Adam, lr=0.05), 40, progress=False, warm_start=False)
    assert result.last.metrics["test_loss"] < result.first.metrics["test_loss"] - 0.5
    assert result.last.outer_loss < result.first.outer_loss - 0.5


def test_without_an_encoder_the_steps_start_at_the_prior():
    problem = small(encoder=None)
    assert all(name.startswith("decoder.") for name in problem.hyperparameters())
    start = problem.initial(problem.init_params(), problem.init_hparams())
    assert all((x == 0).all() for x in start.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_test": 5}, "num_test must be at most 4, the images of the test part, but it is 5"),
        ({"batch_size": 0}, "batch_size must be at least 1, but it is 0"),
        (
            {"encoder": LINEAR(9, 3)},
            r"encoder must have outputs of shape \(n, 4\), but .* \(6, 3\)",
        ),
        (
            {"decoder": LINEAR(2, 8)},
            r"decoder must have outputs of shape \(n, 9\), but .* \(6, 8\)",
        ),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)
