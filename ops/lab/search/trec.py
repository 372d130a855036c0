"""The TREC Session Track as a corpus: its people's queries, over the pages that they were shown.

The crawl itself (ClueWeb12) is not free; the logs hold titles and snippets of results shown. So the documents are the
pages shown in any session, and a query's judgements are those of its topic. Pages that were judged but never shown are
left out.
"""

import gzip
from collections import defaultdict
from html import unescape
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from backchannel.ops.lab.search.corpus import Corpus, CorpusError, Document, Faults, SearchQuery

LOG: Final = "sessiontrack2013.xml.gz"
_JUDGEMENTS: Final = "qrels.txt.gz"


def trec_session(folder: Path) -> Corpus:
    """Read the TREC 2013 Session Track: 2,736 pages by title and snippet, 423 queries, graded 0 to 4; relevant from 1.

    Raises:
        CorpusError: the judgements are missing, or the log is not XML.
    """
    if not (folder / _JUDGEMENTS).exists():
        raise CorpusError(f"{folder / _JUDGEMENTS}: no such file, though the rest of this corpus is there")
    faults = Faults()
    with gzip.open(folder / LOG) as packed:
        try:
            # The log is the user's own file, and ElementTree resolves no external entities.
            sessions = ElementTree.parse(packed).getroot()  # noqa: S314
        except (ElementTree.ParseError, OSError) as error:
            raise CorpusError(f"{folder / LOG}: not a session log: {error}") from None
    pages: dict[str, Document] = {}
    asked: dict[str, set[str]] = defaultdict(set)
    for session in sessions.iter("session"):
        topic = session.find("topic")
        number = topic.get("num", "") if topic is not None else ""
        for query in session.iter("query"):
            asked[number].add(unescape(query.text or ""))
        for result in session.iter("result"):
            page = _page(result)
            if not page.doc_id:
                faults.add("result without an id", f"topic {number}")
            elif len(page.body) >= len(pages.get(page.doc_id, _NOTHING).body):
                pages[page.doc_id] = page
    grades = _grades(folder / _JUDGEMENTS, faults)
    queries = []
    for number, texts in asked.items():
        judged = {doc_id: grade for doc_id, grade in grades.get(number, {}).items() if doc_id in pages}
        queries += [SearchQuery(text, judged) for text in sorted(texts)]
    return Corpus("trec_session", pages.values(), queries, faults=faults)


_NOTHING: Final = Document("", "")


def _page(result: ElementTree.Element) -> Document:
    def text(name: str) -> str:
        return " ".join(unescape(result.findtext(name) or "").split())

    return Document(text("clueweb12id"), text("title"), text("snippet"), attributes={"url": text("url")})


def _grades(file: Path, faults: Faults) -> dict[str, dict[str, float]]:
    """Return topic -> document -> grade; spam, judged -2, counts as irrelevant."""
    grades: defaultdict[str, dict[str, float]] = defaultdict(dict)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for place, line in enumerate(lines, start=1):
            parts = line.split()
            if len(parts) == 4 and parts[3].lstrip("-").isdigit():
                grades[parts[0]][parts[2]] = max(float(parts[3]), 0.0)
            else:
                faults.add("line that is not a judgement", f"{file.name} line {place}")
    return grades
