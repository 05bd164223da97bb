"""Pages that are made from what lies elsewhere in the repository, and links between them and the written ones."""

from __future__ import annotations

import posixpath
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

warnings.filterwarnings("ignore", category=DeprecationWarning)  # of libraries, which MkDocs would repeat

import commands  # noqa: E402
import reference  # noqa: E402

LINK = re.compile(r"(\[[^\]]*\])\((?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def copied_pages() -> dict[str, str]:
    """Pages of the repository that are copied into the site: where they lie, and where they go."""
    pages = {name: f"project/{name.lower()}" for name in PROJECT}
    for folder in sorted((REPOSITORY / "bundles").iterdir()):
        for file in sorted((folder / "docs").glob("*.md")):
            suffix = "" if file.stem == "README" else f"_{file.stem}"
            pages[file.relative_to(REPOSITORY).as_posix()] = f"bundles/{folder.name}{suffix}.md"
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and put the files of folders that the navigation names in their place."""
    made = {**commands.pages(), **reference.pages()}
    made |= {target: _copied(REPOSITORY / source, target) for source, target in copied_pages().items()}
    for target, text in made.items():
        files.append(File.generated(config, target, content=text))
    config.nav = _spread(config.nav, sorted(file.src_uri for file in files.documentation_pages()))
    return files


def _copied(source: Path, target: str) -> str:
    text = source.read_text(encoding="utf-8")
    if source.name == "README.md":  # of a bundle, in the model zoo's form: parts of equal rank, the name in no heading
        terms = (source.parent / "data_license.txt").read_text(encoding="utf-8")
        text = f"# {Path(target).stem}\n\n{_lowered(text)}\n\n## Terms of the weights\n\n```text\n{terms}```\n"
    return text


def _lowered(text: str) -> str:
    """Headings one rank lower, but not the comments of blocks."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else re.sub(r"^#", "##", part, flags=re.MULTILINE) for part in parts)


def _spread(nav: Any, pages: list[str]) -> Any:
    """The navigation with each folder, named with a slash behind it, as the pages in it that stand nowhere else."""
    named = set(re.findall(r"[\w/.-]+\.md", str(nav)))

    def entries(folder: str) -> list[str]:
        return [page for page in pages if posixpath.dirname(page) == folder.rstrip("/") and page not in named]

    def spread(items: list[Any]) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if isinstance(item, str):
                found += entries(item) if item.endswith("/") else [item]
                continue
            for title, inner in item.items():
                folder = isinstance(inner, str) and inner.endswith("/")
                found.append({title: spread(inner) if isinstance(inner, list) else entries(inner) if folder else inner})
        return found

    return spread(nav)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where in the site their targets are; of those to files that are no pages the text stays."""
    places = copied_pages()
    here = {target: source for source, target in places.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def lead(link: re.Match[str]) -> str:
        words, file, anchor = link.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), file))
        place = places.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(place) is not None:
            return f"{words}({posixpath.relpath(place, posixpath.dirname(page.file.src_uri))}{anchor or ''})"
        return words.strip("[]") if (REPOSITORY / target).exists() else link[0]

    return LINK.sub(lead, markdown)
