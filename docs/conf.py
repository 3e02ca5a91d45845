"""How Sphinx builds the site. Warnings are errors: `docs/build.py` says so, and gathers the sources first.

What does not live here: text (the pages), and what is written from code (`docs/generate`).
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib.metadata import version as version_of
from typing import Any

from sphinx.application import Sphinx

project = "edgerm"
release = version = version_of("edgerm")
copyright = "the authors of edgerm, Apache-2.0"  # noqa: A001 - Sphinx names it

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "generate"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

html_theme = "furo"
html_title = f"edgerm {release}"
html_show_sphinx = False
html_copy_source = False
html_last_updated_fmt = None

smartquotes = False  # they would make one dash of the two in --master
default_role = "code"  # docstrings are written for people, with `names` in backticks
toc_object_entries = False  # each would be copied into the tree of every page
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

COMMENT = re.compile(r"^\s+(\w+)(?:: [^#]*| = [^#]*)?  # (.*)$")
INDENTED = re.compile(r":\n\n(?=    )")


def _docstring(_app: Sphinx, what: str, name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Blocks after a colon are code; a field without a docstring has the comment on its line."""
    if what in ("attribute", "property") and not any(lines):
        lines[:] = [_comment(name)]
        return
    lines[:] = INDENTED.sub("::\n\n", "\n".join(lines)).split("\n")


def _comment(name: str) -> str:
    """The comment beside a field, found by the name of its class."""
    owner_name, _, field = name.rpartition(".")
    module_name, _, class_name = owner_name.rpartition(".")
    owner = getattr(__import__(module_name, fromlist=[class_name]), class_name, None)
    if not inspect.isclass(owner):
        return ""
    words = next((comments[field] for comments in map(_comments, owner.__mro__[:-1]) if field in comments), "")
    return words[:1].upper() + words[1:]


@cache
def _comments(kind: type) -> dict[str, str]:
    """The comments beside the fields of a class."""
    try:
        lines = inspect.getsource(kind).splitlines()
    except (OSError, TypeError):
        return {}
    found = [match for line in lines if (match := COMMENT.match(line))]
    return {match[1]: match[2] for match in reversed(found) if not match[2].startswith(("noqa", "type:"))}


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("autodoc-process-docstring", _docstring)
