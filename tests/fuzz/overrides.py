"""Random arguments of `hypergrad.run`: keys, groups and values that are strange, each drawn by its seed and number."""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

CONFIGS = Path(__file__).parents[2] / "configs"
STRANGE = [
    *("abc", "null", "nan", "inf", "-1", "0", "1e400", "1.5", "[]", "{}", "''", "true", f"1{'0' * 30}", "'é∂w'"),
    *("[1,2]", "{a: 1}", "???", "1e-320", "${nowhere}", "'${oc.env:NOPE}'", "0x10", "'a=b'", "a b", "[", "b=1"),
    "{_target_: os.system}",
]
FORBIDDEN = (
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "torch.load",
    "hypergrad.cli.command.command",
    "shutil.move",
)
HYDRA = ("hydra.run.dir=[1]", "hydra.mode=x", "hydra.verbose={a: 1}", "hydra/launcher=x", "hydra.job.chdir=x")
GROUPS = (
    *("acceptance", "data", "estimator", "linsolve", "optimizer", "problem", "product", "scheduler", "solver", "tape"),
)


@dataclass(frozen=True)
class Case:
    """Arguments; `named` is what a message must name, `value` what it says is wrong, `fails` whether it has to."""

    arguments: tuple[str, ...]
    named: str
    value: str = ""
    fails: bool = False


def leaves(node: object, *keys: str) -> list[str]:
    """The dotted keys of a nested dict."""
    if isinstance(node, dict) and node:
        return [leaf for key, part in node.items() for leaf in leaves(part, *keys, str(key))]
    return [".".join(keys)]


@cache
def composed_keys() -> tuple[str, ...]:
    """All keys of the primary config."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return tuple(leaves(OmegaConf.to_container(compose("config"))))


def misspelt(word: str, draw: random.Random) -> str:
    """A word with one letter left out, twice, or changed."""
    at = draw.randrange(len(word))
    return word[:at] + draw.choice(["", word[at] * 2, "q"]) + word[at + 1 :]


def override_case(seed: int, number: int) -> Case:
    """One case; the same for the same seed and number."""
    draw, keys = random.Random(f"{seed} {number}"), composed_keys()
    key, kind, value = draw.choice(keys), draw.randrange(10), draw.choice(STRANGE)
    last = key.rpartition(".")[2]
    if kind == 0:
        *way, last = key.split(".")
        wrong = ".".join([*way, misspelt(last, draw)])
        return Case((f"{wrong}=1",), wrong.rpartition(".")[2], fails=wrong not in keys)
    if kind == 1:
        group = draw.choice(GROUPS)
        names = [path.stem for path in (CONFIGS / group).glob("*.yaml")]
        wrong = misspelt(draw.choice(names), draw)
        return Case((f"{group}={wrong}",), wrong or group, fails=wrong not in [*names, ""])
    if kind == 2:
        form = draw.choice(["+{}=1", "~{}", "++{}=1", "{}", "{}={}=1", "{}==1", "+{}", "{}@x=1", "~{}=1", "+{}@=1"])
        return Case((form.replace("{}", key),), last)
    if kind == 3:
        wrong = draw.choice(["/nowhere", "resume=nowhere", "resume=/etc/passwd", "--config-dir=nowhere", "--cfg=x"])
        return Case((wrong,), wrong.rpartition("=")[2], fails=True)
    if kind == 4:
        return Case(("-m", "seed=0,1", f"{key}={value}"), last, value)
    if kind == 5:
        way, target = draw.choice(GROUPS), draw.choice(FORBIDDEN)
        return Case((f"++{way}._target_={target}",), "_target_", target, fails=True)
    if kind == 6 and draw.randrange(2):
        wrong = draw.choice(HYDRA)
        return Case((wrong,), wrong.partition("=")[0].rpartition(".")[2], fails=True)
    return Case((f"{key}={value}",), last, value)
