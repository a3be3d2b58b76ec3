"""Write what the wheel depends on as CycloneDX (PEP 770 puts it into wheels): requirements/cloister.cdx.json.

    python3 scripts/make_sbom.py CYCLONEDX_PY PYTHON

CYCLONEDX_PY is the program of that name; PYTHON one of an environment that holds requirements/run.txt and nothing else.
It lists names, versions, licences and who needs whom. Added here: our own version, and the digests that
requirements/run.txt pins for every component, so that the document says which files are meant. Two runs give equal
bytes.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)", re.MULTILINE)
DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def plain(name: str) -> str:
    """Return a project's name in its one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[tuple[str, str], list[str]]:
    """Return the digests of every pinned project and version."""
    starts = [*PINNED.finditer(text)]
    ends = [*(item.start() for item in starts[1:]), len(text)]
    return {
        (plain(item["name"]), item["version"]): sorted(DIGEST.findall(text[item.start() : end]))
        for item, end in zip(starts, ends, strict=True)
    }


def main(program: str, python: str) -> None:
    """Write the document."""
    command = [program, "environment", "--output-reproducible", "--mc-type", "application", "--pyproject"]
    whole = [*command, ROOT / "pyproject.toml", python]
    made = subprocess.run(whole, check=True, capture_output=True).stdout  # noqa: S603 - a program that make names
    document = json.loads(made)
    (own,) = re.findall(r'__version__ = "([^"]+)"', (ROOT / "src/cloister/__init__.py").read_text())
    document["metadata"]["component"]["version"] = own
    document["metadata"]["component"]["purl"] = f"pkg:pypi/cloister@{own}"
    digests = pins((ROOT / "requirements/run.txt").read_text())
    for component in document["components"]:
        found = digests[plain(component["name"]), component["version"]]
        component.setdefault("externalReferences", []).append(
            {
                "comment": "any one of these files of the index",
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in found],
                "type": "distribution",
                "url": f"https://pypi.org/project/{component['name']}/{component['version']}/#files",
            }
        )
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    (ROOT / "requirements/cloister.cdx.json").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
