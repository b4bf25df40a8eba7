"""A support desk with one page: search, thumbs, and a retraining every night. Both frameworks answer behind it.

    python examples/support_desk/app.py                # http://127.0.0.1:8000
    python examples/support_desk/app.py retrain        # what a nightly job runs

Everything that the page needs is in the page. Nothing but this machine can reach it.
"""

import argparse
import html
import urllib.parse
from pathlib import Path

import uvicorn
from desk import Desk
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Support desk</title><style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
input[name=question] {{ width: 60%; font: inherit }} button, select {{ font: inherit }}
li {{ margin: .6rem 0 }} form {{ display: inline }}
</style><h1>Support desk</h1>
<form action="/"><input name="question" aria-label="Question" value="{question}" required>
<select name="framework" aria-label="Framework">{frameworks}</select> <button>Search</button></form>
{results}<p>{model}</p></html>"""
DOCUMENT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><h1>{name}</h1><pre>{text}</pre></html>"""


def application(desk):
    """Return the web application of a desk. FastAPI runs its functions in threads, so that users do not wait for each other."""
    app = FastAPI()

    def link(path, **parameters):
        return html.escape(f"/{path}?{urllib.parse.urlencode(parameters)}")

    def result(query_id, name, rank, back):
        about = {"query_id": query_id, "document": name}
        thumbs = ""
        for up, sign, said in ((1, "👍", "This helps"), (0, "👎", "This does not help")):
            action = link("thumb", **about, up=up, back=back)
            thumbs += f' <form method="post" action="{action}"><button aria-label="{said}">{sign}</button></form>'
        opening = html.escape(desk.documents[name][:120])
        return f'<li><a href="{link("open", **about, rank=rank)}">{html.escape(name)}</a>{thumbs}<br>{opening}</li>'

    @app.get("/", response_class=HTMLResponse)
    def page(question: str = "", framework: str = "langchain"):
        results = ""
        if question.strip():
            query_id, shown = desk.search(question, framework)
            back = urllib.parse.urlencode({"question": question, "framework": framework})
            results = "".join(result(query_id, name, rank, back) for rank, name in enumerate(shown, start=1))
        options = "".join(
            f'<option value="{name}"{" selected" if name == framework else ""}>{title}</option>'
            for name, title in (("langchain", "LangChain"), ("llama_index", "LlamaIndex"))
        )
        model = desk.memory.folder.in_use_name()
        said = f"Ranked by the model {model}." if model else "No model yet: people's clicks and thumbs will make one."
        return PAGE.format(question=html.escape(question), frameworks=options, results=f"<ol>{results}</ol>", model=said)

    @app.get("/open", response_class=HTMLResponse)
    def open_document(query_id: str, document: str, rank: int):
        if document not in desk.documents:
            raise HTTPException(404, "There is no such document.")
        desk.log.click(query_id, document, position=rank)
        return DOCUMENT.format(name=html.escape(document), text=html.escape(desk.documents[document]))

    @app.post("/thumb")
    def thumb(query_id: str, document: str, up: bool, back: str = ""):
        desk.log.thumb(query_id, document, up=up)
        return RedirectResponse(f"/?{back}", status_code=303)

    return app


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="serve", choices=["serve", "retrain"])
    parser.add_argument("--folder", type=Path, default=Path("deepmem-support-desk"), help="the folder of the log and the models")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    desk = Desk(arguments.folder)
    if arguments.command == "retrain":
        print(desk.retrain())
    else:
        uvicorn.run(application(desk), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
