"""Errors in config files, by the name of the file, which those of Python and Hydra may leave out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult


@contextmanager
def named_config_files() -> Iterator[None]:
    """Name the file, if a config cannot be composed because of one.

    Raises:
        ValueError: if a config includes itself.
    """
    source: Any = SourcesRegistry.instance().resolve("file")  # Hydra imports its plugins twice; this class is used
    load, last = source.load_config, [""]

    def named(self: Any, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        last[0] = str(path)
        try:
            return load(self, config_path)
        except (ConfigLoadError, ConfigCompositionException):
            raise  # they name it
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8, by its byte {error.start}; save it in UTF-8.") from None
        except RecursionError:
            raise ValueError(f"{path} contains itself, by an alias *NAME; leave it out.") from None
        except Exception as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} cannot be read as a config ({reason}); repair the file.") from None

    source.load_config = named
    try:
        yield
    except RecursionError:
        raise ValueError(f"{last[0]} includes itself by its defaults; leave that entry out.") from None
    finally:
        source.load_config = load
