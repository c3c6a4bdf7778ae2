"""A message names the key, the value and what to do, also where Hydra, torch or Python found the mistake."""

import functools

import pytest
import torch
from commands import call

import hypergrad as hg
from hypergrad import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("a=b=1", "'a=b=1' cannot be read as KEY=VALUE: mismatched input '='"),
        ("seed", "'seed' cannot be read as KEY=VALUE: missing EQUAL"),
        ("rank_timeout=[", "'rank_timeout=[' cannot be read as KEY=VALUE: no viable alternative"),
        ("seed@x=1", "To set a value, leave out @ and what follows it."),
        ("resume=1e400", "error: resume: "),
        ("--config-dir=nowhere", "--config-dir must name a folder that exists."),
        ("problem.l2=-1", "The command line sets problem.l2=-1: give it another value, or leave it out."),
        ("problem=supervised", "The model must accept the inputs of the train part, (8, 10) float64, but Linear"),
        (
            "+optimizer._convert_=x",
            "optimizer._convert_ must be 'none' or 'partial' or 'object' or 'all', but it is 'x'",
        ),
        ("optimizer._target_=1e400", "optimizer._target_ must be text, but it is inf"),
        ("hydra.verbose={a:1}", "hydra.verbose must be true, false or names of loggers, but it is {'a': 1}"),
        ("++resume=1", "resume must be the folder of a run, or auto, or null, but it is 1 of type int"),
        ("optimizer._partial_=3", "optimizer._partial_ must be true or false, but it is 3"),
        ("optimizer=sgd optimizer.momentum=nan", "optimizer: SGD.momentum must be a number, but it is nan; give one."),
        ("scheduler=step scheduler.gamma=nan", "scheduler: StepLR.gamma must be a number, but it is nan; give one."),
    ],
)
def test_the_message_names_key_and_remedy(arguments, said, tmp_path):
    done = call(run.main, *arguments.split(), "outer_steps=0", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("scheduler", "key"),
    [
        (functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=0), "T_max"),
        (functools.partial(torch.optim.lr_scheduler.StepLR, step_size=0), "step_size"),
    ],
)
def test_a_scheduler_that_divides_by_zero_is_named(scheduler, key):
    trainer = hg.Trainer(
        problem=hg.Ridge(hg.diabetes()),
        estimator=hg.Implicit(solver=hg.Newton(), linsolve=hg.CG(), inner_steps=9),
        optimizer=functools.partial(torch.optim.Adam, lr=0.1),
        scheduler=scheduler,
        outer_steps=1,
    )
    with pytest.raises(ValueError, match=f"divides by zero where {key} is 0; give an integer of at least 1"):
        trainer.fit()
