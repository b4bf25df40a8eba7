"""What MkDocs does not do by itself.

The pages in docs/ are read in the repository as well, so their links lead to files of the repository, and their pictures are
images. On the site, files that are no pages become links to the repository, a few become pages, and pictures are written into the
page, whose colours they then have.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "benchmarks/README.md": "benchmarks.md"}
"""Files of the repository that are pages of the site."""

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'<p><img alt="([^"]*)" src="(?:\.\./)*pictures/([\w-]+\.svg)"\s*/?></p>')

log = logging.getLogger("mkdocs.plugins.hooks")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files of the repository that are pages of the site."""
    for source, page in PAGES.items():
        text = with_site_links((ROOT / source).read_text(encoding="utf-8"), source, page, config.extra["repository"])
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the repository lead to the repository."""
    uri = page.file.src_uri
    return markdown if uri in PAGES.values() else with_site_links(markdown, f"docs/{uri}", uri, config.extra["repository"])


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write pictures into the page."""

    def inline(image: re.Match[str]) -> str:
        svg = (ROOT / "docs" / "pictures" / image[2]).read_text(encoding="utf-8")
        return f'<figure class="picture" role="img" aria-label="{image[1]}" tabindex="0">{svg}</figure>'

    return PICTURE.sub(inline, html)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Name the search for those who hear the page."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def with_site_links(markdown: str, source: str, page: str, repository: str) -> str:
    """Return the text of ``source``, a file of the repository, with links that are right in ``page``, a page of the site."""

    def link(found: re.Match[str]) -> str:
        path, anchor = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2])), found[3] or ""
        if path in PAGES:
            target = PAGES[path]
        elif path == "README.md":
            target = "index.md"
        elif path.startswith("docs/"):
            target = path.removeprefix("docs/")
        else:
            if not (ROOT / path).exists():
                log.warning("'%s' links to '%s', which is not in the repository.", source, found[2])
            return f"{found[1]}{repository}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}{anchor})"
        return f"{found[1]}{posixpath.relpath(target, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(link, markdown)
