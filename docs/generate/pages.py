"""Pages that the site generates from code: run by mkdocs-gen-files."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import mkdocs_gen_files  # noqa: E402

from docs.generate import api, commands, config, recipes  # noqa: E402


def changelog() -> str:
    """Return the changelog with links as seen from its page."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")


PAGES = {
    "reference/api.md": api.page,
    "reference/commands.md": commands.page,
    "reference/config.md": config.page,
    "reference/recipes.md": recipes.page,
    "changelog.md": changelog,
}
for path, page in PAGES.items():
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(page())
