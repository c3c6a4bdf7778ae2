"""Wrong arguments of every command, and broken files: a code above 0, and a message that names what is wrong."""

from pathlib import Path

import pytest
from commands import call

from hypergrad import run
from hypergrad.baseline.__main__ import main as baseline
from hypergrad.check.__main__ import main as check
from hypergrad.influence.__main__ import main as influence
from hypergrad.plot.__main__ import main as plot
from hypergrad.table.__main__ import main as table

BROKEN = {
    "bracket": (b"problem: [", "broken.yaml"),
    "tab": (b"a:\n\tb: 1", "broken.yaml"),
    "bytes": (b"\xff\xfe\x00a", "broken.yaml"),
    "text": (b"words", "broken"),
    "list": (b"- 1", "broken"),
    "python": (b"a: !!python/object/apply:os.system [ls]", "broken.yaml"),
    "defaults": (b"defaults: [nowhere]", "nowhere"),
    "forbidden": (b"# @package _global_\nproblem: {_target_: os.system, command: ls}", "problem._target_"),
    "unknown": (b"# @package _global_\nproblem: {_target_: hypergrad.Nothing}", "problem._target_"),
    "number": (b"# @package _global_\nproblem: 3", "problem"),
    "late bytes": (b"# " + b"a" * 600 + b"\n# \xff", "broken.yaml is no text in UTF-8, by its byte 605"),
    "utf-16": ("name: a".encode("utf-16"), "broken.yaml is no text in UTF-8"),
    "null byte": (b"a: \0", "broken.yaml"),
    "alias": (b"a: *x", "broken.yaml"),
    "twice": (b"a: 1\na: 2", "broken.yaml"),
    "recursive": (b"a: &x {b: *x}", "broken.yaml contains itself, by an alias"),
    "includes itself": (b"defaults: [broken]", "broken.yaml includes itself by its defaults"),
    "no defaults": (b"defaults: 3", "experiment/broken"),
    "header": (b"# @package\nname: a", "broken.yaml cannot be read as a config (Expected header format"),
    "null key": (b"# @package _global_\nnull: 3", "broken.yaml"),
}


@pytest.fixture
def experiments(tmp_path):
    """The folder of experiments of one's own."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    return tmp_path / "conf" / "experiment"


def of_broken(cwd):
    return call(run.main, "--config-dir=conf", "experiment=broken", "outer_steps=0", cwd=cwd)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_of_an_experiment_is_named(kind, experiments, tmp_path):
    content, named = BROKEN[kind]
    (experiments / "broken.yaml").write_bytes(content)
    _require_refusal(of_broken(tmp_path), named)


def test_an_experiment_that_is_no_file_is_named(experiments, tmp_path):
    path = experiments / "broken.yaml"
    path.mkdir()
    _require_refusal(of_broken(tmp_path), "experiment/broken")
    path.rmdir()
    for target in ("nowhere", "broken.yaml"):  # a link to nothing, and one to itself
        path.symlink_to(target)
        _require_refusal(of_broken(tmp_path), "experiment/broken")
        path.unlink()
    path.symlink_to("/proc/self/mem")  # a file that nobody can read, not even root
    _require_refusal(of_broken(tmp_path), "broken.yaml cannot be read as a config (Input/output error)")


@pytest.mark.parametrize(
    ("main", "arguments", "named"),
    [
        (table, "nowhere", "nowhere"),
        (table, "file", "file"),
        (table, ". --csv", "--csv"),
        (table, "--over-seed .", "."),
        (plot, "nowhere", "nowhere"),
        (plot, ".", "."),
        (plot, ". --out", "--out"),
        (influence, "top=0", "top must be"),
        (influence, "top=1.5", "top must be"),
        (influence, "steps=abc", "steps must be"),
        (influence, "each=maybe", "each must be"),
        (influence, "each=true", "each=true needs"),
        (influence, "table=xls", "xls"),
        (influence, "method=ekfacc", "ekfacc"),
        (influence, "resume=nowhere", "resume"),
        (baseline, "budget=abc", "budget"),
        (baseline, "budget=-1", "budget"),
        (baseline, "budget=nan", "budget"),
        (baseline, "method=tpee", "tpee"),
        (baseline, "-m seed=0,1", "-m"),
        (check, "-m seed=0,1", "-m"),
        (check, "estimator=unroled", "unroled"),
        (check, "problem.l2=-1", "l2"),
        (run, "hydra.run.dir=file", "file cannot be read or written (File exists)"),
        (run, "hydra.run.dir=file/x", "file/x cannot be read or written (Not a directory)"),
        (run, "-m seed=0,1 hydra.sweep.dir=file", "file cannot be read or written"),
        (run, "-m seed=0,1 hydra.sweep.subdir=x", "hydra.sweep.subdir=x would be the folder of every run"),
        (run, "--config-dir=file", "--config-dir must name a folder that exists"),
        (run, "--config-path=file", "add your own configs with --config-dir FOLDER"),
        (run, "--config-name=nowhere", "add your own configs with --config-dir FOLDER"),
        (run, "optimizer=adam optimizer.lr=inf", "Adam.lr must be finite, but it is inf; lower the lr."),
        (run, "distributed=true", "distributed must be one of data_parallel, fsdp, none, but it is true"),
        (run, "distributed=null", "but it is null; ~distributed leaves it out"),
        (run, "data.test=1e400", "test must be a fraction of the examples, between 0 and 1, but it is inf"),
        (run, "data.dev=nan", "dev must be a fraction of the examples, between 0 and 1, but it is nan"),
        (run, "solver._target_=null", "solver._target_ must be text, but it is None"),
        (run, "solver.weight_decay=l2", "Set it to 0 instead of 'l2'"),
        (run, "~optimizer._partial_=1", "leave ~optimizer._partial_=1 out"),
        (run, "-m seed=0,1 solver.lr=${oc.env:NOPE}", "The command line has solver.lr=${oc.env:NOPE}"),
        (run, "name=${oc.env:NOPE}", "The command line has name=${oc.env:NOPE}"),
        (run, "~callback.tensorboard.folder callback.tensorboard=null", "Leave this argument out"),
        (table, "file --csv nowhere/x.csv", "file is not a folder"),
        (influence, "experiment=digits groups=file steps=1", "file"),
        (influence, "experiment=digits groups=conf steps=1", "there is no file conf"),
        (baseline, "budget=file", "budget must be"),
    ],
)
def test_wrong_arguments_are_named(main, arguments, named, tmp_path):
    (tmp_path / "file").write_text("no run")
    done = call(getattr(main, "main", main), *arguments.split(), cwd=tmp_path)
    _require_refusal(done, named)


def test_an_empty_distributed_is_that_of_one_process(tmp_path):
    configs = [call(run.main, f"distributed={value}", "--cfg", "job", cwd=tmp_path).stdout for value in ("{}", "none")]
    assert configs[0] == configs[1] != ""


def test_files_that_cannot_be_written_are_named(tmp_path):
    done = call(run.main, "outer_steps=0", "hydra.run.dir=run", "callback=[jsonl,summary]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "file").write_text("no folder")
    for main, arguments, named in [
        (table, ("run", "--csv", "nowhere/x.csv"), "nowhere/x.csv cannot be read or written"),
        (table, ("run", "--csv", "run"), "run cannot be read or written (Is a directory)"),
        (plot, ("run", "--out", "file"), "file cannot be read or written"),
        (plot, ("run", "--out", "file/x"), "file/x cannot be read or written"),
    ]:
        _require_refusal(call(main, *arguments, cwd=tmp_path), named)


def test_a_failing_job_leaves_the_results_of_the_others(tmp_path):
    done = call(run.main, "-m", "problem.l2=-1,1", "outer_steps=0", "callback.tensorboard=null", cwd=tmp_path)
    assert done.returncode == 1
    found = sorted(path.read_text() for path in Path(tmp_path).rglob("summary.json"))
    assert ['"finished"' in text for text in found].count(True) == 1
    assert len(found) == 2
    assert "1 of 2 runs failed" in done.stderr


def _require_refusal(done, named):
    assert done.returncode in (1, 2)
    said = done.stderr[done.stderr.rfind("error: ") :]
    assert said.startswith("error: ")
    assert named in said
    assert "Traceback" not in done.stderr
