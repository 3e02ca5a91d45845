"""Builds the site: `python docs/build.py [FOLDER]`, by default docs/_build; `make docs` runs it.

It gathers the pages in FOLDER/source, puts what `docs/generate` makes of code and protos where a page asks for it with
`<!-- generated: NAME -->`, and lets Sphinx write FOLDER/html. A warning ends it with status 1.
"""

from __future__ import annotations

import gc
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from generate import cli, errors, messages, sdk, settings
from sphinx.cmd.build import main as sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
FOLDERS = {"decisions": "Decisions", "checklists": "Checklists"}  # linked as folders
FOLDER_LINK = re.compile(rf"\]\(((?:\.\./)*(?:{'|'.join(FOLDERS)}))/\)")
OUTWARD = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)\)")
MERMAID = "```mermaid\n"  # drawn by a script from the network only: the site shows its text, tables say the same
GENERATORS: dict[str, Callable[[], str]] = {
    "cli": cli.page,
    "errors": errors.page,
    "master_settings": settings.master,
    "agent_settings": settings.agent,
    "sdk": sdk.library,
    "simulator": sdk.simulator,
    "plugins": sdk.plugins,
    "values": sdk.values,
    "messages": messages.index,
}


def gather(source: Path) -> None:
    """Write every page of the site below `source`; what is unchanged keeps its time, so that Sphinx skips it."""
    pages = {path.relative_to(DOCS): path.read_text() for path in _own("*.md")}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        pages[Path(name.lower())] = (ROOT / name).read_text().replace("](docs/", "](")
    pages |= {Path("reference/messages") / f"{name}.md": text for name, text in messages.pages().items()}
    for name, title in FOLDERS.items():
        pages[Path(name) / "index.md"] = f"# {title}\n\n```{{toctree}}\n:titlesonly:\n:glob:\n\n*\n```\n"
    for path, text in pages.items():
        whole = MARK.sub(lambda mark: GENERATORS[mark[1]](), text).replace(MERMAID, "```text\n")
        whole = FOLDER_LINK.sub(r"](\1/index.md)", whole)
        whole = OUTWARD.sub(lambda link, page=DOCS / path: _brought(source, page, link), whole)
        _write(source / path, whole)
    for path in (DOCS / "conf.py", *sorted((DOCS / "examples").iterdir())):
        _write(source / path.relative_to(DOCS), path.read_text())
    for path in (*_own("*.svg"), *_own("*.png")):
        (source / path.relative_to(DOCS)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, source / path.relative_to(DOCS))
    known = {source / path for path in pages}
    for path in source.rglob("*.md"):
        if path not in known:
            path.unlink()


def _brought(source: Path, page: Path, link: re.Match[str]) -> str:
    """A link to a source file beside docs, as a download of the site's; a folder has none."""
    target = (page.parent / link[2]).resolve()
    if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT):
        return link[0]
    if not target.is_file():
        return link[1]
    path = source / "beside" / target.relative_to(ROOT)
    _write(path, target.read_text())
    up = "/".join([".."] * (len(page.relative_to(DOCS).parts) - 1)) or "."
    return f"[{link[1]}]({up}/{path.relative_to(source)})"


def _own(pattern: str) -> list[Path]:
    """The files of the sources, without what was built."""
    return [path for path in sorted(DOCS.rglob(pattern)) if "_build" not in path.parts]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def build(folder: Path) -> int:
    """Gather, and let Sphinx work; its exit status."""
    gc.disable()  # millions of nodes that live to the end: looking for garbage is a fifth of the work
    gather(folder / "source")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-d", str(folder / "doctrees")]
    return sphinx([*options, "-b", "html", str(folder / "source"), str(folder / "html")])


if __name__ == "__main__":
    chosen = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else DOCS / "_build"
    status = build(chosen)
    if status == 0:
        print(f"the site is {chosen / 'html/index.html'}")
    sys.exit(status)
