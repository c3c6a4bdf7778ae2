"""What the HTML of a page gets for narrow screens."""

import pytest

from scripts.site.narrow import on_page_content


def changed(html: str) -> str:
    return on_page_content(html, None, None, None)


def test_a_picture_opens_in_full_size():
    picture = '<img alt="a curve" src="../img/a.png">'
    assert f'<a href="../img/a.png" title="Open in full size">{picture}</a>' in changed(f"<p>{picture}</p>")


TABLE = "\n".join(["name  dev  test", "one   0.1  0.2", "two   0.3  0.4"])


@pytest.mark.parametrize(
    ("code", "wraps"),
    [
        ("min_λ  f(w*(λ), λ)    with    w*(λ) = argmin_w g(w, λ)\n", True),
        ("python -m hypergrad.run experiment=ridge\n", True),
        ('<span class="kn">import</span> torch\n', False),
        ("┃ l2 │ 1 │ 0.1 ┃\n" * 3, False),
        (TABLE, False),
    ],
)
def test_formulas_and_commands_wrap_and_programs_and_tables_do_not(code, wraps):
    html = f'<div class="highlight"><pre><span></span><code>{code}</code></pre></div>'
    assert changed(html) == (html.replace('"highlight"', '"highlight wraps"') if wraps else html)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", "word"), ("0.437 ± 0.021", "word"), ("a word " * 6, "phrase"), ("a word " * 40, "paragraph")],
)
def test_a_cell_has_a_class_for_the_length_of_its_text(text, kind):
    assert changed(f"<td><b>{text}</b></td>") == f'<td class="{kind}"><b>{text}</b></td>'
