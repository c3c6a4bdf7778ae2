"""Updates of torch's optimisers as functions of tensors, against torch step by step."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.outer.optimizer_update import OptimizerUpdate

OPTIMIZERS: dict[str, Any] = {
    "sgd": partial(SGD, lr=0.1),
    "decay": partial(SGD, lr=0.1, weight_decay=0.2, maximize=True),
    "momentum": partial(SGD, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.2),
    "nesterov": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adam": partial(Adam, lr=0.1),
    "adam with decay": partial(Adam, lr=0.1, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.2, maximize=True),
    "amsgrad": partial(Adam, lr=0.1, amsgrad=True),
    "adamw": partial(AdamW, lr=0.1, weight_decay=0.2),
    "lr as a tensor": partial(AdamW, lr=torch.tensor(0.1)),
}


def hyperparameters():
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw).double().requires_grad_() for name, shape in (("a", ()), ("b", 3))}


def by_rule(update, slots):
    """u and the state after the next step, by the update."""
    numbers = [torch.tensor(x).double() for x in update.numbers(update.steps_taken())]
    values = {name: x.detach().clone() for name, x in update.u.items()}
    return update.update(values, {name: x.grad for name, x in update.u.items()}, slots, numbers)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_equals_torch(make):
    """For 20 steps with a lr, and a momentum or beta, that a scheduler changes."""
    u, draw = hyperparameters(), torch.Generator().manual_seed(1)
    optimizer = make(list(u.values()))
    update = OptimizerUpdate(optimizer, u)
    for step in range(20):
        for x in u.values():
            x.grad = torch.randn(x.shape, generator=draw).double()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + step)
            if "betas" in group:
                group["betas"] = (0.5 + 0.01 * step, group["betas"][1])
        slots = update.slots()
        found = None if slots is None else by_rule(update, slots)
        assert (found is None) == (step == 0 and bool(update.rule.entries(optimizer.param_groups[0])))
        optimizer.step()
        if found is not None:
            values, kept = found
            for name, x in u.items():
                torch.testing.assert_close(values[name], x.detach(), rtol=1e-15, atol=1e-15)
                for entry, value in kept[name].items():
                    torch.testing.assert_close(value, optimizer.state[x][entry], rtol=2e-15, atol=1e-15)


def test_stored_steps_continue():
    """Every other step by the update, stored in the optimiser: the same as all of them by torch, in two groups."""
    ends = []
    for is_stored in (False, True):
        u, draw = hyperparameters(), torch.Generator().manual_seed(1)
        optimizer = Adam([{"params": [u["a"]], "lr": 0.2}, {"params": [u["b"]], "lr": 0.05}])
        update = OptimizerUpdate(optimizer, u)
        for step in range(9):
            for x in u.values():
                x.grad = torch.randn(x.shape, generator=draw).double()
            slots = update.slots()
            if is_stored and slots is not None and step % 2:
                values, kept = by_rule(update, slots)
                update.store(kept, 1)
                for name, x in u.items():
                    x.detach().copy_(values[name])
            else:
                optimizer.step()
        ends.append(torch.cat([x.detach().reshape(-1) for x in u.values()]))
    torch.testing.assert_close(*ends, rtol=1e-14, atol=1e-15)


def test_a_setting_that_is_switched_on_is_refused():
    u = hyperparameters()
    optimizer = SGD(list(u.values()))
    update = OptimizerUpdate(optimizer, u)
    optimizer.param_groups[0]["momentum"] = 0.9
    with pytest.raises(ValueError, match="of SGD, was switched on or off during the run"):
        update.numbers([0])


def test_what_has_no_rule_is_refused():
    u = hyperparameters()
    everything, first = list(u.values()), [u["a"]]
    hooked = SGD(everything)
    hooked.register_step_post_hook(lambda *_: None)
    refused: Any = {
        "the optimiser is RMSprop, and compiled ones are SGD, Adam, AdamW": torch.optim.RMSprop(everything),
        "the optimiser has hooks": hooked,
        "moves only some of the hyperparameters": SGD(first),
    }
    for message, optimizer in refused.items():
        with pytest.raises(CannotCompileError, match=message):
            OptimizerUpdate(optimizer, u)
