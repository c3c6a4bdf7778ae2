"""What happens when nobody reads the output of a command, as in `python -m hypergrad.table FOLDER | head -1`."""

import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CODE = 128 + 13
"""That of SIGPIPE."""


@contextmanager
def quiet_end() -> Iterator[None]:
    """End as other programs do, without a message and with the code of SIGPIPE, once standard output is closed.

    Raises:
        BrokenPipeError: of another pipe.
        SystemExit: of the block; with 141 if standard output is closed.
    """
    shows, logging.raiseExceptions = logging.raiseExceptions, False  # Python's log prints a traceback otherwise
    try:
        try:
            yield
        finally:
            logging.raiseExceptions = shows
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError as error:
        if not is_of_output(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes it again at its end
        sys.exit(_CODE)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # of rich, which asks for a code of 1
            sys.exit(_CODE)
        raise


def is_of_output(error: BaseException) -> bool:
    """Whether an error says that nobody reads standard output any more."""
    if not isinstance(error, BrokenPipeError) or not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(1, 0)  # it reports errors also if it is asked for nothing
    return bool(output.poll(0))
