"""The wheel holds the package and its sample, and nothing else; what a user writes runs with it.

The wheel is unpacked before the environment's own packages, and away from the checkout: a user's
file is clean for mypy, and the example of the README runs in a folder with a folder `kinshelf`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WANTED = (
    "kinshelf/__init__.py",
    "kinshelf/cli.py",
    "kinshelf/py.typed",
    "kinshelf/db/catalog/tables.py",
    "kinshelf/store/shelf.py",
    "kinshelf/probe/__init__.py",
    "kinshelf/commands/add.py",
    "kinshelf/probe/pages/templates/base.html",
    "kinshelf/probe/pages/templates/style.css",
    "kinshelf/serve/templates/layout.html",
    "kinshelf/serve/static/htmx.min.js",
    "kinshelf/samples/catalogue/products.csv",
    "kinshelf/samples/tiny-clip/model.safetensors",
)
PACKAGES = (
    "__init__.py", "cli.py", "face.py", "py.typed",
    "db/", "store/", "probe/", "commands/", "cluster/", "samples/", "serve/",
)  # fmt: skip

names = zipfile.ZipFile(sys.argv[1]).namelist()
missing = [name for name in WANTED if name not in names]
inside = tuple(f"kinshelf/{package}" for package in PACKAGES)
strange = [n for n in names if not n.startswith(inside) and ".dist-info/" not in n]
if missing or strange:
    sys.exit(f"wheel: missing {missing}, not wanted {strange}")
ROOT = Path(__file__).resolve().parents[1]
with tempfile.TemporaryDirectory() as folder:
    site, work = Path(folder, "site"), Path(folder, "work")
    (work / "kinshelf").mkdir(parents=True)
    (work / "samples").symlink_to(ROOT / "samples")
    zipfile.ZipFile(sys.argv[1]).extractall(site)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    (work / "example.py").write_text(example, encoding="utf-8")
    (work / "user.py").write_bytes((ROOT / ".ci" / "user.py").read_bytes())
    home = f"import kinshelf; assert kinshelf.__file__.startswith({str(site)!r})"
    for line in (
        ["-c", home],
        ["-m", "kinshelf.cli", "init", "--encoder", "samples/tiny-clip"],
        ["-m", "kinshelf.cli", "add", "samples/catalogue/products.csv", "--quiet"],
        ["-m", "kinshelf.cli", "train", "--quiet"],
        ["example.py"],
        ["-m", "mypy", "--strict", "user.py"],
    ):
        paths = {"PYTHONPATH": str(site), "MYPYPATH": str(site)}
        done = subprocess.run(  # noqa: S603 - our own lines
            [sys.executable, *line], cwd=work, env=os.environ | paths,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"wheel: {' '.join(line)}: {done.stdout}{done.stderr}")
print(f"wheel: {len(names)} files, all of the package")
