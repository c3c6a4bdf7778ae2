"""A strange run folder, or config, can run nothing: what a config may name, and what it may not."""

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from commands import call

from hypergrad import run
from hypergrad.cli.permission import Permission
from hypergrad.cli.screening import screen

ROOT = Path(__file__).parents[2]
MINE = """
import os
from pathlib import Path
import hypergrad as hg

Path(__file__).with_suffix(".imported").touch()

class Mine(hg.Ridge):
    pass

def data(seed=0, **_):
    Path("called").touch()
    return hg.diabetes()
"""
ALLOWED = [
    *("hypergrad.Ridge", "hypergrad.problem.ridge.Ridge", "hypergrad.Budget.of", "hypergrad.run.Comparison"),
    *("torch.nn.Linear", "torch.nn.CrossEntropyLoss", "torch.nn.functional.cross_entropy", "torch.nn.functional.gelu"),
    *("torch.nn.functional.relu", "torch.nn.functional.softplus", "torch.tanh", "torch.zeros", "torch.float32"),
    *("torch.nn.init.zeros_", "torch.nn.utils.parametrizations.weight_norm", "torch.optim.Adam"),
    *("torch.optim.lr_scheduler.StepLR", "torch.distributions.constraints.positive", "torch.distributions.Normal"),
    *("torch.utils.data.TensorDataset", "torch.utils.data.DataLoader", "functools.partial", "builtins.dict"),
]
REFUSED = [
    *("os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.getattr"),
    *("builtins.__import__", "builtins.open", "importlib.import_module", "pickle.loads", "runpy.run_path"),
    *("torch.hub.load", "torch.load", "torch.jit.load", "torch.from_file", "torch.os.system", "torch.save"),
    *("torch.utils.cpp_extension.load_inline", "torch.utils.collect_env.run", "torch.ops.load_library"),
    *("torch.utils.data.datapipes.utils.decoder.basichandlers", "torch.utils.data.dataloader.os.system"),
    *("torch.nn.functional.importlib.import_module", "torch.nn.modules.module.torch.load", "torch.nn.functional"),
    *("torch.nn.Module.__init__.__globals__", "torch.nn.functional.warnings.warn", "torch.classes.load_library"),
    *("hypergrad.cli.command.sys.exit", "hypergrad.cli.building.instantiate", "hypergrad.cli.building.configured"),
    *("hypergrad.cli.target.public_target", "hypergrad.callback.state_file.torch.load", "hypergrad.run.main"),
    *("hypergrad.callback.jsonl.os.system", "hypergrad.core", "hypergrad.outer.lock.locked"),
    *("hydra.utils.instantiate", "hydra.utils.call", "hydra.main", "functools.reduce", "operator.methodcaller"),
    *("numpy.load", "joblib.load", "sklearn.datasets.fetch_openml", "webbrowser.open", "torch.nn.os.system;x", ""),
]


@pytest.mark.parametrize("target", ALLOWED)
def test_what_experiments_are_made_of_may_be_named(target, tmp_path):
    screen({"part": [{"_target_": target}]}, Permission(tmp_path))
    screen({"_target_": "hydra.utils.get_object", "path": target}, Permission(tmp_path))


@pytest.mark.parametrize("target", REFUSED)
def test_anything_else_may_not(target, tmp_path):
    with pytest.raises(ValueError, match=r"part\.0\._target_: a config may not name"):
        screen({"part": [{"_target_": target}]}, Permission(tmp_path))
    with pytest.raises(ValueError, match=r"path: a config may not name"):
        screen({"_target_": "hydra.utils.get_method", "path": target}, Permission(tmp_path))


@pytest.mark.parametrize(
    "part",
    [
        {"_target_": "hydra.utils.get_method", "_partial_": True},
        {"_target_": "hydra.utils.get_method", "_args_": ["os.system"]},
        {"_target_": "hydra.utils.get_object", "path": {"_target_": "hypergrad.digits"}},
        {"_target_": "functools.partial", "_args_": [{"_target_": "hydra.utils.get_method", "path": "os.system"}]},
        {"_target_": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": {"_target_": "os.system", "_partial_": True}},
        {"_target_": "hydra_plugins.somebody.Launcher"},
        {"_target_": "hydra._internal.utils._locate"},
        {"_target_": "${a.value.of.later}"},
        {"_target_": ["os.system"]},
    ],
    ids=str,
)
def test_no_detour_leads_there(part, tmp_path):
    with pytest.raises(ValueError, match=r"may not name|needs a `path`"):
        screen({"problem": {"parts": [part]}}, Permission(tmp_path))


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("callbacks", {"evil": {"_target_": "os.system", "command": "true"}}),
        ("callbacks", {"evil": "${oc.decode:${x}}"}),
        ("launcher", {"_target_": "subprocess.run"}),
        ("launcher", {"_target_": "${launcher}"}),
        ("sweeper", {"_target_": "hydra_plugins.o.O", "custom_search_space": "os.system"}),
        ("job_logging", {"handlers": {"file": {"()": "os.system", "command": "true"}}}),
        ("job_logging", {"handlers": {"file": {"class": "logging.os.system"}}}),
        ("hydra_logging", {"handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://os.system"}}}),
        ("hydra_logging", {"handlers": {"console": {"level": "${oc.env:X}", "args": ["ext://os.system"]}}}),
    ],
    ids=str,
)
def test_hydra_itself_builds_only_its_own(key, part, tmp_path):
    with pytest.raises(ValueError, match=f"^hydra.{key}"):
        screen({"hydra": {key: part}}, Permission(tmp_path))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of a user with a module of a name of its own, and with a package."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    name = f"mine_{abs(hash(tmp_path)) % 10**9}"
    (folder / f"{name}.py").write_text(MINE)
    return folder.resolve(), name


def test_modules_in_the_current_folder_may_be_named_but_not_what_they_import(here):
    folder, name = here
    screen({"_target_": f"{name}.Mine"}, Permission(folder))
    screen({"_target_": f"{name}.data"}, Permission(folder))
    screen({"_target_": f"{name}.missing"}, Permission(folder))  # Hydra says that it is missing
    for target in (f"{name}.os.system", f"{name}.os", f"{name}.Path", name):
        with pytest.raises(ValueError, match="may not name"):
            screen({"_target_": target}, Permission(folder))
    assert not (folder / "called").exists()


def test_a_module_elsewhere_has_to_be_allowed_on_the_command_line_and_is_not_imported_before(here, tmp_path):
    folder, name = here
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match=f"allow it on the command line: allow_targets={name}"):
        screen({"_target_": f"{name}.Mine"}, Permission(other))
    assert not (folder / f"{name}.imported").exists()
    for trusted in ((name,), (f"{name}.Mine",)):
        screen({"_target_": f"{name}.Mine"}, Permission(other, trusted))
    with pytest.raises(ValueError, match="may not name"):
        screen({"_target_": f"{name}.data"}, Permission(other, (f"{name}.Mine",)))


@pytest.mark.parametrize("where", ["strange/run", "strange", "."])
def test_modules_that_came_with_a_resumed_run_may_not_be_named(here, where):
    folder, name = here
    (folder / "strange" / "run").mkdir(parents=True)
    (folder / "strange" / "__init__.py").touch()
    for place in ("strange", "strange/run"):
        (folder / place / "evil.py").write_text(MINE)
    permission = Permission(folder, resumed=folder / where)
    for target in ("strange.evil.data", "strange.run.evil.data"):
        with pytest.raises(ValueError, match="that did not come with the resumed run"):
            screen({"_target_": target}, permission)
    assert not list(folder.rglob("evil.imported"))
    if where == ".":
        with pytest.raises(ValueError, match="may not name"):
            screen({"_target_": f"{name}.Mine"}, permission)
    else:
        screen({"_target_": f"{name}.Mine"}, permission)


def test_a_link_into_the_resumed_run_does_not_help(here):
    folder, _ = here
    (folder / "runs" / "run").mkdir(parents=True)
    (folder / "runs" / "run" / "evil.py").write_text(MINE)
    (folder / "evil_link.py").symlink_to(folder / "runs" / "run" / "evil.py")
    with pytest.raises(ValueError, match="may not name"):
        screen({"_target_": "evil_link.data"}, Permission(folder, resumed=folder / "runs" / "run"))


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """The command line in this process: what it printed, and its exit code."""

    def call(*arguments: str) -> tuple[object, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(sys, "argv", ["hypergrad", *arguments])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        try:
            run.main()
        except SystemExit as error:
            return error.code, f"{error.code}\n{capsys.readouterr().err}"
        return 0, capsys.readouterr().out

    return call


@pytest.fixture
def strange(main, tmp_path):
    """The folder of a run that somebody may have changed."""
    code, _ = main("outer_steps=1", "callback=[checkpoint,jsonl]")
    assert code == 0
    (folder,) = (tmp_path / "outputs" / "ridge").iterdir()
    return folder


def overrides_of(folder: Path) -> list[str]:
    return yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())


def change(folder: Path, *more: str) -> None:
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides_of(folder), *more]))


OVERRIDES = [
    "optimizer._target_=os.system",
    "callback.jsonl._target_=os.system",
    "+callback.evil={_target_:hydra.utils.get_method,path:os.system}",
    "problem.data={_target_:builtins.eval,_args_:['1']}",
    "data._target_=torch.hub.load",
    "+x.y.z.0={_target_:subprocess.run}",
    "++hydra.callbacks.evil={_target_:os.system,command:'touch PWNED'}",
    "hydra/launcher=submitit_local",
    "hydra.searchpath=[pkg://strange]",
    " hydra.job.env_set.CXX=evil",
    "--experimental-rerun=evil.pickle",
    "--multirun",
    "allow_targets=os",
    "+allow_targets=[os]",
]


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_strange_run_folder_can_run_nothing(override, strange, main, tmp_path):
    change(strange, override)
    code, said = main(f"resume={strange}", "outer_steps=2")
    assert code not in (0, None)
    assert "may not name" in said or "which no run of hypergrad leaves there" in said, said
    assert not list(tmp_path.rglob("PWNED"))


CONFIGS = {
    "problem": "problem: {_target_: os.system, command: touch PWNED}\n",
    "callbacks": "hydra: {callbacks: {evil: {_target_: os.system, command: touch PWNED}}}\n",
    "logging": "hydra: {job_logging: {handlers: {evil: {(): os.system, command: touch PWNED}}}}\n",
    "environment": "hydra: {job: {env_set: {CXX: evil}}}\n",
    "decoded": "note: \"${oc.decode:'{_target_: os.system, command: touch PWNED}'}\"\n",
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nor_can_the_configs_that_come_with_it(config, strange, main, tmp_path):
    (folder := tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (folder / "evil.yaml").write_text(f"# @package _global_\ndefaults: [ridge]\n{config}")
    path = strange / ".hydra" / "hydra.yaml"
    settings = yaml.safe_load(path.read_text())
    source = {"path": str(folder.parent), "schema": "file", "provider": "command-line"}
    settings["hydra"]["runtime"]["config_sources"].append(source)
    path.write_text(yaml.safe_dump(settings))
    change(strange, "experiment=evil")
    code, said = main(f"resume={strange}", "outer_steps=2")
    assert code not in (0, None)
    assert "may not" in said
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("overrides.yaml", "hydra: [", "cannot be read"),
        ("overrides.yaml", "{a: 1}", "must hold a list, but it holds a dict"),
        ("hydra.yaml", "hydra: [", "cannot be read"),
        ("hydra.yaml", "{a: 1}", "has no hydra.runtime.config_sources"),
    ],
)
def test_a_broken_file_of_a_run_is_named(name, content, said, strange, main):
    (strange / ".hydra" / name).write_text(content)
    code, text = main(f"resume={strange}", "outer_steps=2")
    assert str(code).startswith("error: ")
    assert f"{name} {said}" in text
    assert "Traceback" not in text


def test_a_run_is_resumed_alone(strange, main, tmp_path):
    code, said = main(f"resume={strange}", "-m", "outer_steps=2,3")
    assert code != 0
    assert "a run is resumed alone, without -m" in said
    assert not (tmp_path / "multirun").exists()


def test_what_the_command_line_allows_runs_and_only_there(strange, main):
    change(strange, "+note={_target_:collections.Counter}")
    code, said = main(f"resume={strange}", "outer_steps=2")
    assert code != 0
    assert "note._target_: a config may not name collections.Counter" in said
    code, _ = main(f"resume={strange}", "outer_steps=2", "allow_targets=[collections]")
    assert code == 0
    assert not any("allow_targets" in text for text in overrides_of(strange))


def test_a_state_holds_tensors_and_plain_values_only(strange, main, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'PWNED'}",)

    (*_, path) = sorted(strange.glob("state-*.pt"))
    torch.save({"format": "hypergrad state", "version": 3, "x": Evil()}, path)
    code, said = main(f"resume={path}", "outer_steps=2")
    assert code != 0
    assert "cannot be read" in said
    assert not (tmp_path / "PWNED").exists()


def test_a_problem_of_ones_own_runs_and_goes_on(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = call(run.main, "problem._target_=mine.Mine", "data._target_=mine.data", "outer_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "ridge").iterdir()
    done = call(run.main, f"resume={folder}", "outer_steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
