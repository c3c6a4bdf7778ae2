"""Semi-amortised posteriors: shares of processes make the whole, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import nn

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.core.collectives import Ranks

LATENT, PIXELS, TRAIN, TEST = 2, 5, 7, 3


def problem(amortized: bool = True, **settings: Any) -> hg.SemiAmortized:
    torch.manual_seed(0)
    parts = [hg.Split(torch.rand(n, PIXELS), torch.zeros(n)) for n in (TRAIN, 1, TEST)]
    given: dict[str, Any] = {"latent": LATENT, "num_test": TEST, "batch_size": 4, "decoder": nn.Linear(LATENT, PIXELS)}
    given |= {"encoder": nn.Linear(PIXELS, 2 * LATENT) if amortized else None} | settings
    return hg.SemiAmortized(hg.Splits(*parts), **given)


@pytest.mark.parametrize("encoder", [True, False], ids=["encoder", "prior"])
@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_processes_make_the_whole(world, encoder):
    whole = problem(encoder).on_ranks(Ranks.rehearsed(world))
    hparams = whole.init_hparams()
    params = {name: w + 0.1 for name, w in whole.initial(whole.init_params(), hparams).items()}
    for batch, share, loss in (
        (whole.inner_batch(3), whole.inner_share, whole.inner_loss),
        (whole.outer_batch(3), whole.outer_share, whole.outer_loss),
    ):
        parts = [share(batch, rank, world) for rank in range(world)]
        assert sum(part for _, part in parts) == pytest.approx(1)
        total = sum(part * loss(params, hparams, own) for own, part in parts)
        torch.testing.assert_close(total, loss(params, hparams, batch))


def test_each_image_moves_as_it_would_alone():
    """∂g/∂(μ_i, ρ_i) does not depend on the other images."""
    whole = problem()
    params, hparams, eps = whole.init_params(), whole.init_hparams(), whole.inner_batch(0)
    _, grad = whole.inner_loss_and_gradient(params, hparams, eps)
    alone = whole.on_images(whole.images[2:3])
    _, own = alone.inner_loss_and_gradient({name: w[2:3] for name, w in params.items()}, hparams, eps[:, 2:3])
    torch.testing.assert_close(flatten({name: g[2:3] for name, g in grad.items()}), flatten(own))


def test_without_test_images_there_is_no_test_loss():
    some, none = problem(), problem(num_test=0)
    assert none.metrics(none.init_params(), none.init_hparams()) == {}
    assert some.metrics(some.init_params(), some.init_hparams()).keys() == {"test_loss"}
    assert len(some.images) == TRAIN + TEST
    assert len(some.at_outer_step(0).images) == 4 + TEST


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_test": TEST + 1}, f"num_test must be at most {TEST}, the images of the test part, but it is {TEST + 1}"),
        (
            {"decoder": nn.Linear(LATENT, 3).double()},
            rf"The decoder must have outputs of shape \(n, {PIXELS}\), but for",
        ),
        (
            {"encoder": nn.Linear(PIXELS, LATENT).double()},
            rf"The encoder must have outputs of shape \(n, {2 * LATENT}\)",
        ),
        ({"latent": 0}, "SemiAmortized.latent must be at least 1"),
    ],
    ids=["test images", "decoder", "encoder", "latent"],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        problem(**settings)


def test_batch_statistics_cannot_be_shared():
    network = nn.Sequential(nn.Linear(LATENT, PIXELS), nn.BatchNorm1d(PIXELS))
    with pytest.raises(ValueError, match="BatchNorm1d"):
        problem(decoder=network).on_ranks(Ranks.rehearsed(2))
