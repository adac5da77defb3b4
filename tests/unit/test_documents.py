"""The documents hang together: links lead somewhere, and the Chinese README says all that the English one says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.report import files
from deploy import readme

DOCUMENTS = [readme.README, *sorted((readme.ROOT / "deploy").rglob("*.md"))]
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)]+)\)")
PART = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", re.DOTALL)
TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
# What each README alone links to: the other one.
EACH_OTHER = {readme.README, readme.CHINESE}


def prose(document: Path) -> str:
    return CODE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = (title.lower() for _, title in HEADING.findall(prose(document)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """(file, anchor) of every link within the project."""
    for target in LINK.findall(prose(document)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (document.parent / path).resolve() if path else document, anchor


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(readme.ROOT)))
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    dead = [
        f"{path}#{anchor}"
        for path, anchor in links(document)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]
    assert dead == []


@pytest.mark.parametrize("record", readme.RECORDS, ids=lambda path: path.stem)
def test_charts_are_drawn_from_their_record(record: Path) -> None:
    stale = [
        name
        for name, drawn in files.svgs(record).items()
        if not (chart := readme.PICTURES / name).exists() or chart.read_text() != drawn
    ]
    assert stale == [], f"run: python -m bench.report {record.relative_to(readme.ROOT)} --svg deploy/pictures"


def test_chinese_readme_has_the_headings_of_the_readme() -> None:
    levels = [[len(marks) for marks, _ in HEADING.findall(prose(one))] for one in (readme.README, readme.CHINESE)]
    assert levels[0] == levels[1]


def test_chinese_readme_has_the_commands_of_the_readme() -> None:
    assert CODE.findall(readme.README.read_text()) == CODE.findall(readme.CHINESE.read_text())


def test_chinese_readme_has_the_links_of_the_readme() -> None:
    """Files and pages of the network, pictures included, in the same order; anchors are named by their headings."""
    found = []
    for document in (readme.README, readme.CHINESE):
        here = [path for path, _ in links(document) if path not in EACH_OTHER]
        found.append((here, [target for target in LINK.findall(prose(document)) if "://" in target]))
    assert found[0] == found[1]


def test_chinese_readme_has_the_tables_of_the_readme() -> None:
    """Row by row; what is made from the code is the same text."""
    texts = [readme.README.read_text(), readme.CHINESE.read_text()]
    parts = [[found.group() for found in PART.finditer(text)] for text in texts]
    assert parts[0] == parts[1]
    shapes = [[row.count("|") for row in TABLE_ROW.findall(text)] for text in texts]
    assert shapes[0] == shapes[1]


def test_readme_fits_its_reader() -> None:
    """The product's face: what is longer belongs to a page of its own."""
    assert len(readme.README.read_text().splitlines()) < 350
