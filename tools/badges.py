"""Write the address of the course's repository wherever it is needed, or remove it everywhere.

    python tools/badges.py OWNER/NAME          the badges open the notebooks of branch main
    python tools/badges.py OWNER/NAME v0.1.0   ... of a tag; on Colab, the notebooks also clone that tag
    python tools/badges.py ""                  no badges, no address

The address stands in every notebook (badge and set-up cell), in README.md and in pyproject.toml. It must be a
repository that the course's authors own, because Colab runs the code that it finds there.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE_LINE = re.compile(r"\[!\[Open in Colab\].*\n\n")  # in a notebook's first cell
BADGE_COLUMN = re.compile(r"(?m)^(\| *\w+ *\| \[.*\]\(notebooks/(.+)\) \|.*\|).*\|$")  # in README.md's table
README_ADDRESS = re.compile(r"(git clone |git\+)\S+")
PYPROJECT_URLS = re.compile(r"\[project\.urls\]\n.*\n\n")


def badge(repo: str, ref: str, notebook: str) -> str:
    """Return the Markdown of a badge that opens a notebook in Colab, or "" without a repository."""
    if not repo:
        return ""
    return (
        f"[![Open in Colab]({IMAGE})](https://colab.research.google.com/github/{repo}/blob/{ref}/notebooks/{notebook})"
    )


def write_notebook(path: Path, repo: str, ref: str, address: str) -> None:
    """Write badge and set-up cell of a notebook. Its outputs stay as they are."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = notebook["cells"][0]
    setup = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    text = BADGE_LINE.sub("", "".join(title["source"]))
    if repo:
        text = text.replace("\n\n", f"\n\n{badge(repo, ref, path.name)}\n\n", 1)
    code = re.sub(r'address = ".*?"', f'address = "{address}"', "".join(setup["source"]))
    code = re.sub(r"--branch=[^\"]+", f"--branch={ref}", code)
    title["source"] = text.splitlines(keepends=True)
    setup["source"] = code.splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_address(root: Path, repo: str, ref: str = "main") -> None:
    """Write the repository's address into notebooks, README.md and pyproject.toml.

    Args:
        root: the folder of the course.
        repo: "owner/name" on GitHub, or "" to remove the address.
        ref: the branch or tag that badges and set-up cells use.
    """
    address = f"https://github.com/{repo}" if repo else ""
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        write_notebook(path, repo, ref, address)

    readme = root / "README.md"
    text = BADGE_COLUMN.sub(lambda row: f"{row[1]}{badge(repo, ref, row[2])}|", readme.read_text(encoding="utf-8"))
    text = README_ADDRESS.sub(lambda match: match[1] + (address or "ADDRESS"), text)
    readme.write_text(text, encoding="utf-8")

    pyproject = root / "pyproject.toml"
    text = PYPROJECT_URLS.sub("", pyproject.read_text(encoding="utf-8"))
    if repo:
        urls = f'[project.urls]\nRepository = "{address}"\n\n'
        text = text.replace("[project.optional-dependencies]", urls + "[project.optional-dependencies]", 1)
    pyproject.write_text(text, encoding="utf-8")


def main() -> int:
    """Write the address that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", help='owner/name on GitHub; "" removes the address')
    parser.add_argument("ref", nargs="?", default="main", help="branch or tag (default: main)")
    arguments = parser.parse_args()
    if arguments.repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.repo):
        print(f"{arguments.repo!r} is no repository: write owner/name, as in make badges REPO=owner/name REF=v0.1.0")
        return 2
    write_address(ROOT, arguments.repo, arguments.ref)
    return 0


if __name__ == "__main__":
    sys.exit(main())
