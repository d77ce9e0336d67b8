"""Hooks of MkDocs: the home page from README.md, links out of docs/, Sphinx roles and formulas."""

import re
from pathlib import Path

import griffe
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`~?\.?([^`]+)`")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_read_source(page, **_):
    """README.md is the home page; its links are relative to the repository's root."""
    if page.file.src_uri != "index.md":
        return None
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(\]\()docs/", r"\1", _outside(text, ROOT))


def on_page_markdown(markdown, page, **_):
    """Links to files that the site does not have stay as text."""
    if page.file.src_uri == "index.md":
        return None
    return _outside(markdown, Path(page.file.abs_src_path).parent)


def _outside(markdown: str, folder: Path) -> str:
    def name(found: re.Match[str]) -> str:
        text, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found.group()
        path = (folder / target.partition("#")[0]).resolve()
        elsewhere = path.exists() and not path.is_relative_to(ROOT / "docs")
        return text if elsewhere or path.is_dir() else found.group()

    return _LINK.sub(name, markdown)


def on_page_content(html, **_):
    """Formulas become MathML, which browsers show without a script."""
    return _FORMULA.sub(lambda found: _mathml(found.group(2)), html)


def _mathml(text: str) -> str:
    display = text.startswith("\\[")
    latex = text[2:-2].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").strip()
    return convert(latex, display="block" if display else "inline")


class Markdown(griffe.Extension):
    """Sphinx roles, math directives and examples of docstrings as MkDocs reads them."""

    def on_object(self, *, obj, **_):
        """Rewrite the docstring, if there is one; a class says itself what its arguments are."""
        if obj.name == "__init__":
            obj.docstring = None
        elif obj.docstring is not None:
            obj.docstring.value = _markdown_of(obj.docstring.value)


def _markdown_of(text: str) -> str:
    text = re.sub(r":math:`([^`]+)`", r"\\(\1\\)", text)
    text = _ROLE.sub(lambda found: f"`{found.group(1)}`", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)

    def block(found: re.Match[str]) -> str:
        lines = [line.strip() for line in found.group(1).strip().splitlines()]
        return "\n\\[\n\\begin{split}\n" + "\n".join(lines) + "\n\\end{split}\n\\]\n\n"

    return re.sub(r"\.\. math::\n((?:[ \t]+\S.*\n|\n(?=[ \t]+\S))+)", block, text)
