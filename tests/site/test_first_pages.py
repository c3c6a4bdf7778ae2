"""README and the first pages of the site: their commands, their sentences, their links."""

import re
import shlex
from pathlib import Path

import pytest
from commands import call

from hypergrad import run
from hypergrad.check.__main__ import main as check
from hypergrad.table.__main__ import main as table

ROOT = Path(__file__).parents[2]
START = sorted((ROOT / "docs" / "start").glob("*.md"))
FIRST = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("index", "choose", "faq", "checking")), *START]
EASY = 50
"""The least reading ease: "fairly difficult" begins below it."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def commands(page: Path, module: str) -> list[list[str]]:
    """The arguments of each command of a module on a page, without those that hold a placeholder."""
    lines = re.findall(rf"^    python -m hypergrad\.{module} (.+?)(?: +#.*)?$", page.read_text(), flags=re.MULTILINE)
    return [shlex.split(line) for line in lines if "<" not in line]


OWN_PROBLEM = ROOT / "docs" / "start" / "problem.md"
OFFERED = [(page, arguments) for page in FIRST if page != OWN_PROBLEM for arguments in commands(page, "run")]


@pytest.mark.parametrize(("page", "arguments"), OFFERED, ids=lambda x: name(x) if isinstance(x, Path) else "")
def test_the_options_of_a_command_exist(page, arguments, tmp_path):
    singles = [argument for argument in arguments if argument != "-m" and "glob(" not in argument]
    done = call(run.main, *singles, "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("page", "arguments"), OFFERED, ids=lambda x: name(x) if isinstance(x, Path) else "")
def test_a_command_runs(page, arguments, tmp_path):
    """To its end, and not only to its config."""
    done = call(run.main, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_page_on_ones_own_problem_can_be_followed(tmp_path):
    text = OWN_PROBLEM.read_text()
    python, yaml = (re.findall(rf"^```{x}\n(.*?)^```", text, re.M | re.S)[0] for x in ("python", "yaml"))
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_problem.py").write_text(python)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(yaml)
    (_, sweep, estimators), (comparison,), (rows,) = (
        commands(OWN_PROBLEM, module) for module in ("run", "check", "table")
    )
    # The first run is tested in tests/cli/test_run.py.
    for main, arguments in ((check, comparison), (run.main, sweep), (table, rows)):
        done = call(main, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 3
    done = call(run.main, *estimators, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"Both end at a dev loss of (\d\.\d+)\.", text)
    assert re.findall(r"^outer step 10/10  dev loss (\d\.\d{4})", done.stdout, re.M) == 2 * said


def prose(markdown: str) -> str:
    """The sentences of a page, without code, tables, headings and formulas."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = [x for x in text.splitlines() if not x.startswith(("    ", "|", "#", "!")) or x.lstrip().startswith("- ")]
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n".join(lines))
    text = re.sub(r"`[^`]*`", "code", text)
    return re.sub(r"\n\s*(?:[-*] |\n)", ". ", text)


def reading_ease(text: str) -> float:
    """206.8 − 1.015 words per sentence − 84.6 syllables per word; a syllable is a run of vowels, without a final e.

    Source: Flesch, "A new readability yardstick", Journal of Applied Psychology (1948).
    """
    sentences = [words for part in re.split(r"[.:;?!]\s", text) if (words := re.findall(r"[A-Za-z]{2,}|[aAI]\b", part))]
    words = [word.lower() for sentence in sentences for word in sentence]
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", re.sub(r"(?<![aeiouyl])e$", "", word)))) for word in words)
    return 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * syllables / len(words)


def test_the_formula_is_that_of_flesch():
    """Nine words of ten syllables in two sentences."""
    text = "The tape is on the table. It is code. "
    assert reading_ease(text) == pytest.approx(206.835 - 1.015 * 9 / 2 - 84.6 * 10 / 9)


@pytest.mark.parametrize("page", FIRST, ids=name)
def test_the_prose_is_easy_to_read(page):
    assert reading_ease(prose(page.read_text())) > EASY
