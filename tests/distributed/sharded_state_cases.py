"""Runs with sharded parameters that are interrupted and go on; every rank calls each."""

import errno
import math
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import sharded_cases
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

import hypergrad as hg
from hypergrad.core.ranks import Peers

STATES = "HYPERGRAD_TEST_SHARDED_STATES"
"""The variable that names a folder for states, which a later launch reads."""
STOPPED, STEPS = 2, 4
KINDS: dict[str, hg.HypergradEstimator] = {
    "cg": hg.Implicit(  # which carries a flat vector
        **sharded_cases.TRAINING | {"solver": hg.Adam(lr=0.05), "inner_steps": 2},
        **sharded_cases.BY_DIFFERENCES,
        linsolve=hg.CG(tol=1e-3, max_iter=3),
    ),
    "f2sa": hg.SingleLoop(
        method=sharded_cases.SINGLE_LOOPS["f2sa"]
    ),  # which carries tensors by the names of parameters
}


class Stop(hg.Callback):
    """Raises an error at a step, as a fault between two states."""

    def on_step(self, record: hg.Record) -> None:
        if record.step == STOPPED + 1:
            raise ArithmeticError


class Wide(nn.Module):
    """A network with rows for each of four ranks; a tensor is used twice, one is frozen, and some are small."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(5, 8), nn.Parameter(torch.ones(1))
        self.second, self.third, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.third.weight = self.second.weight
        self.last.bias.requires_grad_(False)

    def forward(self, X: Tensor) -> Tensor:
        return self.last(self.third(torch.tanh(self.second(torch.tanh(self.first(X))))) * self.scale)


def network(added: float = 0.0) -> hg.Supervised:
    """The network on mini-batches; something may be added to one entry, which is on the last rank."""
    torch.manual_seed(1)
    found = Wide()
    with torch.no_grad():
        found.first.bias[-1] += added
    return sharded_cases.network(found, batch_size=9, dev_sample=11)


def problem(group: dist.ProcessGroup | None = None) -> hg.FullySharded:
    return hg.FullySharded(network(), group, check=False)


def fit(kind: str, where: hg.InnerProblem, **settings: Any) -> hg.Result:
    """Outer steps with Adam."""
    known: dict[str, Any] = {"outer_steps": STEPS, "exact_every": 1, **settings}
    resume = {key: known.pop(key) for key in ("resume", "any_world") if key in known}
    optimizer = partial(torch.optim.Adam, lr=0.1)
    trainer = hg.Trainer(problem=where, estimator=KINDS[kind], optimizer=optimizer, **known)
    with warnings.catch_warnings(action="ignore"):
        return trainer.fit(**resume)


@cache
def folder() -> Path:
    """Where states are, as the test says, or a new one for these ranks."""
    return Path(Peers(dist.group.WORLD).first(os.environ.get(STATES) or tempfile.mkdtemp()))


def leave(kind: str) -> Path:
    """A folder in which a run of these ranks broke off behind step 2."""
    path = folder() / f"{kind}-{dist.get_world_size()}"
    if not path.exists() or not list(path.glob("*.pt")):
        with_fault = [hg.StateSaver(path), Stop()]
        try:
            fit(kind, problem(), callbacks=with_fault)
        except ArithmeticError:
            dist.barrier()
    return path


def bits(where: hg.FullySharded, found: hg.Result) -> list[Any]:
    """All numbers of a run but its times, in whole tensors."""
    rows = [{key: x for key, x in row.items() if key != "run/seconds"} for row in found.history]
    tensors = [
        found.last.hparams,
        found.last.grad,
        *(where.whole(record.params) for record in (found.first, found.last, found.best)),
    ]
    return [rows, *({name: x.tolist() for name, x in each.items()} for each in tensors)]


@cache
def undisturbed(kind: str) -> list[Any]:
    where = problem()
    return bits(where, fit(kind, where))


def resumed(kind: str) -> list[bool]:
    """Whether a run that goes on has the bits of an undisturbed one, and the one after that."""
    path, again = leave(kind), folder() / f"again-{kind}-{dist.get_world_size()}"
    if dist.get_rank() == 0:
        shutil.copytree(path, again)
    dist.barrier()
    one, two = problem(), problem()
    first = fit(kind, one, resume=again, outer_steps=STEPS - 1, callbacks=[hg.StateSaver(again)])
    second = fit(kind, two, resume=again)
    return [first.last.step == STEPS - 1, bits(two, second) == undisturbed(kind)]


def difference(kind: str, path: Path, make: Callable[[], Any]) -> float:
    """How far a run of other ranks that goes on with another problem is from one of only this problem."""
    ends = []
    for resume in ({"resume": path, "any_world": True}, {}):
        where = make()
        last = fit(kind, where, **resume).last
        ends.append(last.hparams | last.grad | (where.whole(last.params) if where.param_shards() else last.params))
    return sharded_cases.apart(*ends)


def alone(kind: str) -> float:
    """How far a run that the first of these ranks takes over alone is from one of one process."""
    path, first = leave(kind), first_alone()
    return difference(kind, path, partial(problem, first)) if dist.get_rank() == 0 else 0.0


@cache
def first_alone() -> Any:
    """A group of the first rank; all ranks must call it."""
    return dist.new_group([0])


def unsharded(kind: str) -> float:
    """How far a run that each of these ranks takes over with whole parameters is from one with these."""
    return difference(kind, leave(kind), network)


def cut(kind: str) -> float:
    """How far a sharded run that takes over one with whole parameters is from a sharded one."""
    path = folder() / f"cut-{kind}-{dist.get_rank()}"
    fit(kind, network(), outer_steps=STOPPED, callbacks=[hg.StateSaver(path)])
    return difference(kind, folder() / f"cut-{kind}-0", problem)


def files() -> list[Any]:
    """The names in the folder of a run, where rows of a tensor are, and what the last state says of some tensors."""
    path = leave("f2sa")
    state = torch.load(path / f"state-00000{STOPPED}.pt", weights_only=True)
    entries = [
        state["params"]["scale"],
        state["records"][1]["params"]["scale"],
        state["adjoint"]["memory"]["z"]["scale"],
    ]
    places = FileSystemReader(path / f"state-00000{STOPPED}.shards").read_metadata().storage_data.items()
    w = {str(list(index.offset)): at.relative_path for index, at in places if index.fqn == "params/first.weight"}
    return [sorted(one.name for one in path.iterdir()), w, *map(str, entries)]


def damaged() -> dict[str, str]:
    """What is said of a state with a flipped bit in a file of its shards, and of one with the file of another state."""
    path, found = leave("f2sa"), dict[str, str]()
    for name in ("nothing", "__1_0.distcp", ".metadata", "__0_0.distcp"):
        run = folder() / f"damaged-{name}"
        if dist.get_rank() == 0:
            file = shutil.copytree(path, run) / f"state-00000{STOPPED}.shards" / name
            if name == "__0_0.distcp":
                shutil.copy(run / f"state-00000{STOPPED - 1}.shards" / name, file)
            elif name != "nothing":
                content = bytearray(file.read_bytes())
                content[len(content) // 2] ^= 1
                file.write_bytes(content)
        dist.barrier()
        found[name] = said(partial(fit, "f2sa", problem(), resume=run, outer_steps=STOPPED))
    return found


def rank_without_space() -> list[Any]:
    """What all ranks say if one of them cannot write at step 2, and the names that are left in the folder."""
    path, before = folder() / "full", FileSystemWriter.write_data

    class Fill(hg.Callback):
        def on_step(self, record: hg.Record) -> None:
            if record.step == 2 and dist.get_rank() == 1:
                FileSystemWriter.write_data = is_full  # type: ignore[method-assign]

    def is_full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    said = ""
    try:
        fit("f2sa", problem(), callbacks=[Fill(), hg.StateSaver(path)])
    except OSError as error:
        said = str(error)
    finally:
        FileSystemWriter.write_data = before  # type: ignore[method-assign]
    dist.barrier()
    return [said, sorted(one.name for one in path.iterdir())]


def asked_to_end() -> list[Any]:
    """After a signal to one rank: the names in the folder, and whether the model there is that of the best record."""
    path, losses, models = folder() / "asked", dict[int, float](), dict[int, Any]()

    class Ask(hg.Callback):
        def on_step(self, record: hg.Record) -> None:
            losses[record.step] = record.dev_loss or math.inf
            models[record.step] = record.module().state_dict()
            if record.step == 2 and dist.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGINT)

    said = ""
    try:
        fit("f2sa", problem(), callbacks=[Ask(), hg.StateSaver(path, every=100), hg.ModelSaver(path)])
    except KeyboardInterrupt as error:
        said = str(error)
    dist.barrier()
    wanted, found = models[min(losses, key=losses.__getitem__)], torch.load(path / "model.pt", weights_only=True)
    same = wanted.keys() == found.keys() and all(torch.equal(wanted[name], x) for name, x in found.items())
    return [said, sorted(one.name for one in path.iterdir()), same]


def state_dicts() -> list[Any]:
    """The models in a state dict on each rank, and whether that of the first is the trained module's."""
    where = problem()
    params, hparams = where.init_params(), where.init_hparams()
    found, wanted = where.state_dicts(params, hparams), where.trained_module(params, hparams).state_dict()
    return [[*found], all(torch.equal(wanted[name], x) for name, x in found.get("model", {}).items())]


def refusals() -> dict[str, str]:
    """What is said of states that do not belong to a run."""
    path, first = leave("f2sa"), first_alone()
    attempts = {
        "data parallel": lambda: fit("f2sa", hg.DataParallel(network()), resume=path),
        "bfloat16": lambda: fit("f2sa", hg.FullySharded(network(), precision="bf16-mixed", check=False), resume=path),
        "other weights": lambda: fit("f2sa", hg.FullySharded(network(1.0), check=False), resume=path),
        "one process": lambda: fit("f2sa", problem(first), resume=path) if dist.get_rank() == 0 else None,
    }
    return {name: said(attempt) for name, attempt in attempts.items()}


def said(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except (hg.CheckpointError, hg.RankError) as error:
        return str(error)
    finally:
        dist.barrier()
    return "nothing"


def cases() -> dict[str, Callable[[], Any]]:
    return {
        **{f"resumed, {kind}": partial(resumed, kind) for kind in KINDS},
        **{f"alone, {kind}": partial(alone, kind) for kind in KINDS},
        **{f"unsharded, {kind}": partial(unsharded, kind) for kind in KINDS},
        **{f"cut, {kind}": partial(cut, kind) for kind in KINDS},
        "files": files,
        "damaged": damaged,
        "rank without space": rank_without_space,
        "asked to end": asked_to_end,
        "state dicts": state_dicts,
        "refusals": refusals,
    }


def left() -> dict[str, Callable[[], Any]]:
    """For slow tests: states of this number of ranks, which resume on as many."""
    return {f"resumed, {kind}": partial(resumed, kind) for kind in KINDS}


def going_on() -> dict[str, Callable[[], Any]]:
    """For slow tests: from the states of 1, 2 and 4 ranks."""
    return {
        f"{kind} from {before}": partial(difference, kind, folder() / f"{kind}-{before}", problem)
        for kind in KINDS
        for before in (1, 2, 4)
    }
