"""What the command line sets below a key, so that a message can name it."""

import re

from hydra.core.hydra_config import HydraConfig


def given(*keys: str) -> list[str]:
    """The arguments of the command line that set these keys, or a key below them."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    key = ".".join(keys)
    return [text for text in overrides if text.lstrip("+").startswith((f"{key}=", f"{key}."))]


def name_given(error: Exception, *keys: str) -> None:
    """Add to an error what the command line sets below these keys, unless the error names it already."""
    for override in given(*keys):
        name = override.partition("=")[0].rpartition(".")[2]
        if not re.search(rf"\b{re.escape(name)}\b", str(error)):
            error.add_note(f"The command line sets {override}: give it another value, or leave it out.")
