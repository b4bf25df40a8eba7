"""Run the tutorials without a network or a key: a local web server has the documentation, and the questions are recorded."""

import contextlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deepmem_integrations.generation import Answer, Request

QUESTIONS = Path(__file__).with_name("questions.jsonl")

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
_NUMBER = re.compile(r"^(?:Chapter\s+|Part\s+)?[\dA-Z]*[\d.]+\s+")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def documentation_site() -> Iterator[str]:
    """Serve PostgreSQL's HTML documentation, as Debian packages it, on a port of this machine, and yield its address."""
    folders = sorted(Path("/usr/share/doc").glob("postgresql-doc-*/html"))
    if not folders:
        raise SystemExit(
            "PostgreSQL's documentation is not installed: apt-get install postgresql-doc (Debian, Ubuntu). "
            "On other systems, crawl the published documentation: SITE=https://www.postgresql.org/docs/15/ python -m examples.…"
        )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folders[-1]))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class RecordedQuestions:
    """Answer in place of a language model, with the questions in ``questions.jsonl``.

    A large language model wrote these questions, for headings of pages.

    Args:
        pieces: (id, page, text) of all pieces of the corpus. Where pieces overlap, a heading belongs to the last piece that has
            it.

    Attributes:
        known: The ids of the pieces that have recorded questions.
        missing: The recorded headings that no piece has, as (page, heading). Other versions of the documentation have other
            headings.
    """

    name = "recorded:questions.jsonl"

    def __init__(self, pieces: Iterable[tuple[str, str, str]]) -> None:
        places = {(page, _plain(found[1])): name for name, page, text in pieces for found in _HEADING.finditer(text)}
        self._questions: defaultdict[str, list[str]] = defaultdict(list)
        missing = {}
        for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            place = places.get((row["page"], _plain(row["heading"])))
            if place is None:
                missing[row["page"], row["heading"]] = True
            else:
                self._questions[place].append(row["question"])
        self.known = frozenset(self._questions)
        self.missing = list(missing)

    def ask(self, request: Request) -> Answer:
        """Return the recorded questions for the document of the request, at most as many as were asked for."""
        questions = self._questions[request.sources[0].id][: len(request.kinds)]
        kinds = ["question" if question.endswith("?") else "keywords" for question in questions]
        return Answer.of(
            request, {"queries": [{"kind": kind, "text": text} for kind, text in zip(kinds, questions, strict=True)]}
        )

    async def aask(self, request: Request) -> Answer:
        """Return the same as `ask`, which never waits."""
        return self.ask(request)


def _plain(heading: str) -> str:
    """Return a heading without its number and marks: "7.6. `LIMIT` and `OFFSET`" becomes "limit and offset"."""
    return " ".join(re.findall(r"[^\W_]+", _NUMBER.sub("", heading.replace("\xa0", " ")).lower()))
