"""A session with the MCP server of ``deepmem``, over the store that ``deepmem demo --path deepmem-demo`` made.

    python examples/agent/mcp_client.py

It starts ``deepmem mcp`` as an assistant does, with the client of the official package, calls each tool, and prints what goes to
and fro.
"""

import asyncio
import json
import sys
from pathlib import Path

import mcp
from mcp.client.stdio import stdio_client

QUESTION = "Can I abort a load that I kicked off in the background?"
SERVER = mcp.StdioServerParameters(
    command=str(Path(sys.executable).parent / "deepmem"),
    args=["mcp", "-s", "deeplake:deepmem-demo/dataset", "-e", "minilm", "--log", "deepmem-demo/feedback.db", "--max-text", "100"],
)


async def main():
    async with mcp.Client(stdio_client(SERVER)) as client:
        print("The tools are:", ", ".join(tool.name for tool in (await client.list_tools()).tools))

        async def call(name, **arguments):
            result = await client.call_tool(name, arguments)
            print(f"\n→ {name} {json.dumps(arguments)}")
            print(f"← {'error: ' if result.is_error else ''}{result.content[0].text}")
            return result.structured_content

        found = await call("search", query=QUESTION, k=2)
        await call("search", query=QUESTION, where={"lang": "de"})
        await call("why", query=QUESTION, top=1)
        await call("feedback", query_id=found["query_id"], cited=[found["documents"][0]["id"]])
        await call("feedback", query_id=found["query_id"], cited=["another-document"])
        await call("search", query=QUESTION, filter={"lang": "de"})


if __name__ == "__main__":
    asyncio.run(main())
