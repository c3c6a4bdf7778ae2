"""Pages that lie outside docs/ become pages of the site, and links to all other files links to the repository."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MIRRORED = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "experiments/**/*.md", "experiments/**/*.png")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=(?:#[^)\s]*)?\))")
"""The path in `](path#anchor)`, unless it has a scheme."""
NAMED_BY_FILE = re.compile(r"\[`?[\w./]+\.md`?\](\(([^)\s#:]+\.md)(?:#[^)\s]*)?\))")
"""`[docs/cost.md](path#anchor)`: a link whose text is a file, which is right for those who read the repository."""
MENTIONED = re.compile(r"\bdocs/([\w/]+\.md)\b(?![^<]*</(?:a|code)>)")
"""A page in the text of a docstring or a comment, as the reference has it."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the files to those of the site; mkdocs calls it."""
    from mkdocs.structure.files import File

    for path in mirrored():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The Markdown of a page with its links as they are on the site; mkdocs calls it."""
    path = Path(page.file.abs_src_path or ROOT / "docs" / page.file.src_uri).relative_to(ROOT).as_posix()

    def content(uri: str) -> str | None:
        file = files.get_file_from_path(uri)
        return file.content_string if file else None

    return titled(relinked(markdown, path, set(files.src_uris), config.repo_url), path, content)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """The HTML of a page of the reference with links to the pages that it mentions; mkdocs calls it."""

    def link(mention: re.Match[str]) -> str:
        file = files.get_file_from_path(mention[1])
        return f'<a href="{file.url_relative_to(page.file)}">{title(file.content_string)}</a>' if file else mention[0]

    return MENTIONED.sub(link, html) if page.file.src_uri.startswith(("api/", "configs/")) else html


def mirrored() -> list[str]:
    """The files outside docs/ that the site has."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in MIRRORED for path in ROOT.glob(pattern))


def relinked(markdown: str, path: str, site: set[str], repository: str) -> str:
    """The Markdown of the file `path` of the repository, with its relative links as they are on the site."""
    here = posixpath.dirname(_on_site(path))

    def target(link: re.Match[str]) -> str:
        to = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1]))
        if _on_site(to) in site:
            return posixpath.relpath(_on_site(to), here)
        if (ROOT / to).exists():
            return f"{repository}/{'tree' if (ROOT / to).is_dir() else 'blob'}/main/{to}"
        return link[1]

    return LINK.sub(target, markdown)


def titled(markdown: str, path: str, content: Callable[[str], str | None]) -> str:
    """The Markdown with the title of a page where the text of a link is its file; `content` reads a page."""
    here = posixpath.dirname(_on_site(path))

    def with_title(link: re.Match[str]) -> str:
        text = content(posixpath.normpath(posixpath.join(here, link[2])))
        return link[0] if text is None else f"[{title(text)}]{link[1]}"

    return NAMED_BY_FILE.sub(with_title, markdown)


def title(markdown: str) -> str:
    """The first heading of a page."""
    return re.findall(r"^# (.+)$", markdown, flags=re.MULTILINE)[0]


def _on_site(path: str) -> str:
    """Where a file of the repository stands on the site, if it does."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")
