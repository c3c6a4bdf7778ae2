"""One version: of the package, the changelog and the citation."""

import re
from pathlib import Path

import yaml
from setuptools.config.setupcfg import read_configuration

import hypergrad

ROOT = Path(__file__).parent.parent


def test_setup_cfg_has_the_version_of_the_package(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert read_configuration("setup.cfg")["metadata"]["version"] == hypergrad.__version__


def test_the_changelog_begins_with_the_version():
    latest = re.search(r"^## \[(.+?)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert latest
    assert latest.groups() == (hypergrad.__version__, str(citation["date-released"]))
    assert citation["version"] == hypergrad.__version__
