"""Options, their values, and what sets a value of the config."""

import shlex

import pytest

from hypergrad.cli.settings import options_first, own_settings


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        ("--config-dir lr=0.1/conf -m experiment=mine", "--config-dir lr=0.1/conf -m experiment=mine"),
        ("experiment=mine -cd a=b -m solver.lr=1", "-cd a=b -m experiment=mine solver.lr=1"),
        ("seed=1 --config-name x=y ~scheduler -c job", "--config-name x=y -c job seed=1 ~scheduler"),
        ("--config-dir=lr=0.1/conf seed=1", "--config-dir=lr=0.1/conf seed=1"),
        ("'name=my run' -p 'solver=x y' seed=2", "-p 'solver=x y' 'name=my run' seed=2"),
    ],
)
def test_the_value_of_an_option_stays_with_it(given, ordered):
    assert options_first(shlex.split(given)) == shlex.split(ordered)


def test_the_value_of_an_option_is_no_setting():
    settings, rest = own_settings(["--config-dir", "top=5/conf", "top=7", "seed=1"], {"top": "10"})
    assert settings == {"top": "7"}
    assert rest == ["--config-dir", "top=5/conf", "seed=1"]
