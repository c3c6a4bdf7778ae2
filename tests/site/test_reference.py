"""The reference on the site has every public name, and every group, option and key of configs/."""

import importlib
import re

import pytest

import hypergrad
from scripts.site import api, configs

REPOSITORY = "https://example.org/hypergrad"
PAGES = api.pages(REPOSITORY)
OPTIONS = sorted(configs.CONFIGS.rglob("*.yaml"))


def test_each_public_name_has_one_place():
    places = [
        name for page in PAGES.values() for name in re.findall(r"^(?:::: |.*#)hypergrad\.(\w+)(?: }|$)", page, re.M)
    ]
    assert sorted(places) == dir(hypergrad)


def test_each_folder_has_a_page_with_its_code():
    assert {f"api/{api.folder(name)}.md" for name in dir(hypergrad)} == PAGES.keys() - {"api/index.md"}
    for path in re.findall(rf"\({REPOSITORY}/blob/main/(.+?)\)", "".join(PAGES.values())):
        assert (api.ROOT / path).is_file()


def test_a_class_shows_what_its_bases_promise():
    assert "Promised by [`LinearSolver`][hypergrad.LinearSolver]: " in PAGES["api/linsolve.md"]
    assert "[`solve`][hypergrad.LinearSolver.solve]" in PAGES["api/linsolve.md"]
    assert "    - `cycle`: " in PAGES["api/linsolve.md"]  # of a class that is not public
    assert "Promised by [`InnerProblem`][hypergrad.InnerProblem]: all that is listed there." in PAGES["api/problem.md"]


def test_each_group_has_a_page():
    groups = {path.parent.relative_to(configs.CONFIGS).as_posix() for path in OPTIONS} - {"."}
    assert groups == configs.GROUPS.keys(), "describe the new group in GROUPS of scripts/site/configs.py"


def test_each_option_is_described():
    written = "\n".join(configs.pages(REPOSITORY).values())
    for path in OPTIONS:
        assert f"({REPOSITORY}/blob/main/configs/{path.relative_to(configs.CONFIGS).as_posix()})" in written


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_key_has_a_meaning(path):
    silent = [key for key, value, meaning in configs.keys(path) if value and not meaning and key[:6] != "hydra."]
    assert not silent, f"say what {silent} are: in the docstring of the target, or in a comment on the line of {path}"


def test_a_key_has_its_default_and_what_docstring_and_comment_say(tmp_path):
    path = tmp_path / "cg.yaml"
    path.write_text(
        "_target_: hypergrad.CG\ntol: 1.0e-3  # and beside.\nmax_iter: 5  # Most iterations\n"
        "own:\n  # A comment,\n  b: [x, 2]  # in two parts\n"
    )
    assert list(configs.keys(path)) == [
        ("_target_", "hypergrad.CG", "what is built, [hypergrad.CG][]"),
        ("tol", "1.0e-3", "stop once ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0. And beside."),
        ("max_iter", "5", "most iterations, each with one product with A per right-hand side, ≥ 1."),
        ("own", "", ""),
        ("own.b", "[x, 2]", "A comment, in two parts"),
    ]


def test_an_experiment_knows_the_keys_of_what_it_chooses():
    known = {key: meaning for key, _, meaning in configs.keys(configs.CONFIGS / "experiment" / "lr_schedule.yaml")}
    assert known["outer_steps"] == "updates of the hyperparameters"
    assert known["solver.lr"]


def test_the_arguments_of_a_docstring_are_read():
    text = "Sum.\n\nArgs:\n    x (Tensor): one,\n        in two lines.\n    y: as x: two.\n\nReturns:\n    z: no."
    assert configs.arguments(text) == {"x": "one, in two lines.", "y": "as x: two."}


@pytest.mark.parametrize("path", sorted(api.ROOT.glob("scripts/site/*.py")), ids=lambda path: path.stem)
def test_the_hooks_need_no_mkdocs_to_be_imported(path):
    assert importlib.import_module(f"scripts.site.{path.stem}").__doc__
