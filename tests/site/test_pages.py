"""The pages of the site, and the links in README: all of them lead somewhere."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from scripts.site import mirror, nav

ROOT = mirror.ROOT
REPOSITORY = "https://example.org/hypergrad"
DOCS = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in ROOT.glob("docs/**/*.md")}
GENERATED = dict.fromkeys(
    ["api/index.md", "configs/index.md", *(p for p in mirror.mirrored() if p.endswith(".md"))], ""
)


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, which names a function of Python."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
NAV = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]


def test_each_page_is_in_the_nav():
    left_out = DOCS.keys() - set(nav.named(nav.filled(NAV, DOCS | GENERATED)))
    assert not left_out, f"list {sorted(left_out)} in docs/concepts.md, or name them in the nav of mkdocs.yml"


def test_a_nav_is_filled():
    pages = {"index.md": "", "a/z.md": "", "a/b.md": "", "list.md": "# L\n\n## One\n\n- [x](x.md): a\n- [y](y.md#z)\n"}
    given = [{"Home": "index.md"}, {"A": ["a/z.md", "a/*"]}, {"None": "none/*"}, {"L": "list.md#"}]
    assert nav.filled(given, pages) == [
        {"Home": "index.md"},
        {"A": ["a/z.md", "a/b.md"]},
        {"L": ["list.md", {"One": ["x.md", "y.md"]}]},
    ]


def test_a_page_of_the_nav_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match=r"names a\.md, but there is no such page"):
        nav.filled([{"A": ["a.md"]}], {"b.md": ""})


def test_links_lead_to_the_site_and_else_to_the_repository():
    site = {"index.md", "cost.md", "start/a.md", "experiments/ridge/README.md", "experiments/ridge/figure.png"}

    def relinked(text: str, path: str) -> str:
        return mirror.relinked(text, path, site, REPOSITORY)

    assert relinked("[a](cost.md#x) [b](../README.md)", "docs/memory.md") == "[a](cost.md#x) [b](index.md)"
    assert relinked("![c](../../experiments/ridge/figure.png)", "docs/start/a.md") == (
        "![c](../experiments/ridge/figure.png)"
    )
    assert relinked("[d](../../docs/cost.md)", "experiments/ridge/README.md") == "[d](../../cost.md)"
    assert relinked("[e](../hypergrad/run.py) [f](../tests)", "docs/cost.md") == (
        f"[e]({REPOSITORY}/blob/main/hypergrad/run.py) [f]({REPOSITORY}/tree/main/tests)"
    )
    assert relinked("[g](https://a.b/c.md) [h](#x) f[0](y)", "docs/cost.md") == "[g](https://a.b/c.md) [h](#x) f[0](y)"


def test_a_link_that_is_named_by_its_file_gets_the_title_of_the_page():
    content = {"cost.md": "# What a gradient costs\n\n# Not this"}.get
    assert mirror.titled("[docs/cost.md](cost.md#x), [`cost.md`](cost.md)", "CHANGELOG.md", content) == (
        "[What a gradient costs](cost.md#x), [What a gradient costs](cost.md)"
    )
    assert mirror.titled("[cost](../cost.md) [a.md](https://b.c)", "docs/start/a.md", content) == (
        "[cost](../cost.md) [a.md](https://b.c)"
    )


def test_the_reference_links_to_the_pages_that_docstrings_mention():
    page = SimpleNamespace(file=SimpleNamespace(src_uri="api/tape.md"))
    cost = SimpleNamespace(content_string="# Cost", url_relative_to=lambda file: "../../cost/")
    files = SimpleNamespace(get_file_from_path={"cost.md": cost}.get)

    def linked(html: str) -> str:
        return mirror.on_page_content(html, page, None, files)

    assert linked("<p>see docs/cost.md, docs/no.md</p>") == '<p>see <a href="../../cost/">Cost</a>, docs/no.md</p>'
    assert linked("<code>docs/cost.md</code>") == "<code>docs/cost.md</code>"
    page.file.src_uri = "memory.md"
    assert linked("see docs/cost.md") == "see docs/cost.md"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=lambda path: path.stem)
def test_links_of_a_page_lead_to_files_and_headings(path):
    """`mkdocs build --strict` sees to this too, for all pages but README."""
    text = re.sub(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = Path(path.parent, name) if name else path
        assert target.exists(), f"{path} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert anchor in map(slug, headings), f"{path} links to {link}, where there is no such heading"
