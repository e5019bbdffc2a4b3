"""Run docs/tour.ipynb from the first cell to the last: `python docs/run_notebook.py`."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

PATH = Path(__file__).with_name("tour.ipynb")

if __name__ == "__main__":
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    print(f"{PATH.name}: {sum(c.cell_type == 'code' for c in notebook.cells)} cells ran")
