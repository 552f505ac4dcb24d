"""For mkdocs: the pages that stand at the root of the repository are pages of the site, with their links."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

#: page of the site -> file at the root
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_files(files: Files, config) -> Files:
    """Add the pages of the root."""
    root = Path(config.config_file_path).parent
    for page, name in PAGES.items():
        files.append(File.generated(config, page, content=from_docs((root / name).read_text(encoding="utf-8"))))
    return files


def from_docs(text: str) -> str:
    """A page of the root with its links as seen from docs/: ``docs/x.md`` is ``x.md``."""
    text = re.sub(r"(\]\(|src=\")docs/", r"\1", text)
    for page, name in PAGES.items():
        text = re.sub(rf"\]\({re.escape(name)}", f"]({page}", text)
    return text
