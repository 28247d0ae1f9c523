"""Convert the notebooks to .ipynb with jupytext and execute them with nbclient.

    python examples/notebooks/build.py --output demo/notebooks
    python examples/notebooks/build.py --output demo/notebooks --only c_new_temperatures

Needs `pip install "latf-openmm[notebooks]"`. Fails where a cell fails, or where it prints what a reader should not see.
"""

import argparse
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
GARBAGE = re.compile(r"\x1b\[|\r|[A-Za-z]*Warning: ")
"""Escape codes, lines written over each other, warnings of Python."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the executed notebooks")
    parser.add_argument("--only", action="append", help="name of a notebook; may be repeated")
    parser.add_argument("--processes", type=int, default=2, help="notebooks that are executed at a time")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    sources = [path for path in sorted(HERE.glob("[a-e]_*.py")) if not args.only or path.stem in args.only]
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        wrong = [text for texts in pool.map(execute, sources, repeat(args.output)) for text in texts]
    if wrong:
        sys.exit("\n".join(wrong))


def execute(source: Path, output: Path) -> list[str]:
    """Write the executed notebook; return what it prints that a reader should not see."""
    begin = time.perf_counter()
    notebook = jupytext.read(source)
    try:
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(output)}}).execute()
    finally:
        nbformat.write(notebook, output / f"{source.stem}.ipynb")
    print(f"{source.stem}: {time.perf_counter() - begin:.0f} s", flush=True)
    return [f"{source.name}: {text}" for text in printed(notebook) if GARBAGE.search(text)]


def printed(notebook: Any) -> list[str]:
    """Text that the cells have printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output["output_type"] == "stream"]


if __name__ == "__main__":
    main()
