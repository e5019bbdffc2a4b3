"""The wheel holds the package and its sample, and nothing else."""

from __future__ import annotations

import sys
import zipfile

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
print(f"wheel: {len(names)} files, all of the package")
