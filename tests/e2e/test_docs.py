"""What the reference pages say is so, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from assets import MadeAsset

ROOT = Path(__file__).resolve().parents[2]


def test_every_object_of_an_asset_is_in_the_storage_layout(asset_folder: MadeAsset) -> None:
    page = (ROOT / "docs" / "reference" / "storage-layout.md").read_text(encoding="utf-8")
    documented = [re.escape(key) for key in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)]
    patterns = [re.compile(re.sub(r"<[^>]+>", "[^/]+", key)) for key in documented]
    files = [file.relative_to(asset_folder.root).as_posix() for file in asset_folder.root.rglob("*") if file.is_file()]

    assert len(files) > 20
    assert [file for file in files if not any(pattern.fullmatch(file) for pattern in patterns)] == []


def test_links_between_the_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "config").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    broken = [f"{page.relative_to(ROOT)}: {link}" for page, link in links if not (page.parent / link).exists()]

    assert len(links) > 10
    assert broken == []
