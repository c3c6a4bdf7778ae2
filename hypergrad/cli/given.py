"""What the command line sets below a key, so that a message can name it."""

import re

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


def overrides() -> list[str]:
    """The arguments of the command line for the config, as they were written; an interpolation stays one."""
    if not HydraConfig.initialized():
        return []
    found = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [*map(str, found)] if isinstance(found, list) else []


def given(*keys: str) -> list[str]:
    """The arguments of the command line that set or delete these keys, or a key below them."""
    key = ".".join(keys)
    return [text for text in overrides() if f"{text.lstrip('+~')}=".startswith((f"{key}=", f"{key}."))]


def name_given(error: Exception, *keys: str) -> None:
    """Add to an error what the command line sets or deletes below these keys, unless the error names it already."""
    for override in given(*keys):
        name = override.partition("=")[0].rpartition(".")[2]
        if override.startswith("~"):
            error.add_note(f"The command line deletes {override[1:]}: leave {override} out.")
        elif not re.search(rf"\b{re.escape(name)}\b", str(error)):
            error.add_note(f"The command line sets {override}: give it another value, or leave it out.")
