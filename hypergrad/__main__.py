"""The command line: `python -m hypergrad` lists the commands."""

import argparse
import difflib

from hypergrad.cli.command_help import COMMANDS

_COMPLETION = r"""
_hypergrad() {
    local word="${COMP_LINE##* }" split="${COMP_WORDS[COMP_CWORD]#=}" module="${COMP_WORDS[2]}"
    [[ "${COMP_WORDS[1]} $module" == "-m hypergrad."* ]] || return
    local known="$(COMP_LINE="run ${COMP_LINE#*"$module" }" "$1" -m "$module" -sc query=bash 2>/dev/null)"
    COMPREPLY=($(compgen -W "$known" -- "$word"))
    COMPREPLY=("${COMPREPLY[@]#"${word%"$split"}"}")
}
complete -o nospace -o default -F _hypergrad python python3
"""
"""A function of bash, which splits words at =. Hydra's own completes scripts and programs, and not `python -m`."""


def main(arguments: list[str] | None = None) -> None:
    """List the commands, or print what lets bash complete their arguments.

    Also raised, by what it calls: SystemExit if there are other arguments.
    """
    width = max(len(each.name) for each in COMMANDS)
    lines = [f"  python -m hypergrad.{each.name:{width}}  {each.summary}" for each in COMMANDS]
    parser = argparse.ArgumentParser(
        prog="python -m hypergrad",
        description="\n".join(["commands:", *lines, "\nEach of them has --help, with its options and examples."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--completion", action="store_true", help="print what lets bash complete arguments with Tab")
    chosen, others = parser.parse_known_args(arguments)
    if others:
        near = difflib.get_close_matches(others[0], [each.name for each in COMMANDS], n=1)
        meant = f"Did you mean python -m hypergrad.{near[0]}? " if near else ""
        parser.error(f"{meant}There is no {others[0]!r} here: a command is python -m hypergrad.NAME.")
    if chosen.completion:
        print(_COMPLETION.strip())
    else:
        parser.print_help()


if __name__ == "__main__":
    main()
