#!/usr/bin/env python3
"""The branches of hypergrad that a command takes: each if, for, while and match both ways, in all of its processes.

    scripts/branches.py 94 python -m pytest                         # exit code 1 below 94 %
    scripts/branches.py --missing 0 python -m pytest tests/linsolve  # and which branches were not taken

The command finds bytecode that sets a byte of a file, which all processes share, for each branch that is taken. So a
process starts as fast as without, and one that is killed counts too. Code for type checkers alone does not count.
"""

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_NAME = "__branches__"


class Marking(ast.NodeTransformer):
    """Puts `__branches__[k] = 1` at the start of branch k.

    Attributes:
        path: of the file.
        found: where each branch is, which grows.
    """

    def __init__(self, path: str, found: list[str]) -> None:
        self.path, self.found = path, found

    def visit_If(self, node: ast.If) -> ast.AST:
        return node if ast.unparse(node.test) == "TYPE_CHECKING" else self._both_ways(node, "is true", "is false")

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._both_ways(node, "is entered", "ends")

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._both_ways(node, "is entered", "" if isinstance(node.test, ast.Constant) else "ends")

    def visit_Match(self, node: ast.Match) -> ast.AST:
        for case in node.cases:
            case.body = self._marked(case.pattern, case.body, "matches")
        last = node.cases[-1]
        if last.guard or not (isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None):
            node.cases.append(ast.match_case(ast.MatchAs(), None, self._marked(node, [], "matches nothing")))
        return self.generic_visit(node)

    def _both_ways(self, node: ast.If | ast.For | ast.While, one: str, other: str) -> ast.AST:
        node.body = self._marked(node, node.body, one)
        if other:
            node.orelse = self._marked(node, node.orelse, other)
        return self.generic_visit(node)

    def _marked(self, node: Any, body: list[ast.stmt], way: str) -> list[ast.stmt]:
        (mark,) = ast.parse(f"{_NAME}[{len(self.found)}] = 1").body
        self.found.append(f"{self.path}:{node.lineno} {way}")
        for part in ast.walk(mark):
            ast.copy_location(part, body[0] if body else node)
        return [mark, *body]


class _Loader(SourceFileLoader):
    """Compiles a file with marks; its `get_code` writes the bytecode where Python looks for it."""

    found: list[str]
    taken: Path

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        where = Path(path).relative_to(ROOT)
        tree = Marking(str(where), self.found).visit(ast.parse(data))
        if where == Path("hypergrad", "__init__.py"):  # which a process imports before all others
            file = f"__import__('os').open({str(self.taken)!r}, {os.O_RDWR})"
            share = f"__import__('builtins').{_NAME} = __import__('mmap').mmap({file}, 0)"
            tree.body[1:1] = ast.parse(share).body
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True, optimize=_optimize)


def main() -> int:
    """Run the command and print what it took; its own exit code if that is not 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("floor", type=float)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.pycache_prefix, sys.dont_write_bytecode = str(Path(folder, "bytecode")), False
        _Loader.found, _Loader.taken = [], Path(folder, "taken")
        for path in sorted((ROOT / "hypergrad").rglob("*.py")):
            _Loader("", str(path)).get_code("")
        _Loader.taken.write_bytes(bytes(len(_Loader.found)))
        code = subprocess.run(given.command, env=os.environ | {"PYTHONPYCACHEPREFIX": sys.pycache_prefix}).returncode
        taken = _Loader.taken.read_bytes()
    if given.missing:
        print(*(branch for branch, was in zip(_Loader.found, taken, strict=True) if not was), sep="\n")
    percent = 100 * sum(taken) / len(taken)
    print(f"branch coverage {percent:.1f} % of {len(taken):,} branches; at least {given.floor:g} % are required")
    return code or int(percent < given.floor)


if __name__ == "__main__":
    sys.exit(main())
