"""A value of another type than its function declares is refused by its key, before anything is called."""

from itertools import zip_longest
from pathlib import Path

import pytest
from commands import call
from hydra import compose, initialize_config_dir

from hypergrad import run
from hypergrad.cli.argument_types import require_types
from hypergrad.cli.screening import plain

CONFIGS = Path(__file__).parents[2] / "configs"
CALLED = ("baseline", "effect", "influence", "schedule", "sensitivity")
"""Groups of which the primary config chooses none."""


@pytest.mark.parametrize(
    ("target", "key", "value", "said"),
    [
        ("JSONLines", "folder", [1, 2], "JSONLines.folder must be text or a path, but it is [1, 2] of type list."),
        ("StateSaver", "keep", {"a": 1}, "StateSaver.keep must be an integer, but it is {'a': 1} of type dict."),
        ("StateSaver", "keep", True, "StateSaver.keep must be an integer, but it is True of type bool."),
        (
            "StateSaver",
            "keep",
            2**63,
            "which has more than 64 bits; write a number that is not an integer with a point",
        ),
        ("diabetes", "dev", "é∂w", "diabetes.dev must be a number, but it is 'é∂w' of type str."),
        ("diabetes", "quadratic", 1000, "diabetes.quadratic must be true or false, but it is 1000 of type int."),
        ("GradientDescent", "groups", -0.0, "groups must be a list, each text or 'entry' or null, but it is -0.0"),
        ("TensorBoard", "images", {"l2": "8"}, "TensorBoard.images must be a value for each name or null, but it is"),
        ("Lasso", "data", [1, 2], "Lasso.data must be a Splits, but it is [1, 2] of type list."),
        ("Implicit", "error_bar", None, "Implicit.error_bar must be true or false, but it is None of type NoneType."),
    ],
)
def test_the_key_the_type_and_the_value_are_named(target, key, value, said):
    with pytest.raises(TypeError) as caught:
        require_types({"_target_": f"hypergrad.{target}", key: value}, "problem", "part")
    assert str(caught.value).startswith("problem.part: ")
    assert said in str(caught.value)


def test_torch_declares_types_too():
    with pytest.raises(TypeError, match=r"Adam.betas must be a list of 2, each a number or a Tensor, but it is inf"):
        require_types({"_target_": "torch.optim.Adam", "betas": float("inf")})
    require_types({"_target_": "torch.optim.Adam", "betas": [0.9, 0.99], "lr": 1})


def test_what_is_not_known_yet_or_not_ours_is_left_to_others():
    require_types({"_target_": "hypergrad.JSONLines", "folder": "${nowhere}"})
    require_types({"_target_": "hypergrad.Lasso", "data": {"_target_": "hypergrad.diabetes", "seed": "???"}})
    require_types({"_target_": "builtins.dict", "size": "two"})
    require_types({"_target_": "hypergrad.Summary", "folder": "here", "console": 3})  # its type is for type checkers
    require_types({"_target_": "hypergrad.ProximalGradient", "lr": None})  # its default


def test_all_configs_have_the_types_that_their_objects_declare():
    groups = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in CONFIGS.glob("*/")}
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        # An experiment chooses of the other groups, and is composed alone. Of those, one config of each at a time.
        for name in groups.pop("experiment"):
            require_types(plain(compose("config", [f"experiment={name}"])), name)
        for names in zip_longest(*groups.values()):
            pairs = zip(groups, names, strict=True)
            chosen = [f"{'+' * (group in CALLED)}{group}={name}" for group, name in pairs if name is not None]
            require_types(plain(compose("config", chosen)), str(chosen))


@pytest.mark.parametrize("override", ["callback.checkpoint.keep={a: 1}", "problem.per_feature=abc"])
def test_the_command_line_says_it(override, tmp_path):
    done = call(run.main, override, "outer_steps=0", cwd=tmp_path)
    assert done.returncode == 1
    key, _, value = override.partition("=")
    assert f"{key.rpartition('.')[2]} must be" in done.stderr
    assert value.strip("{}")[0] in done.stderr
