"""Every notebook runs to its end where a reader would run it, without error or warning, and is stored without outputs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from ruamel.yaml import YAML

from sweeps.spec import load_spec

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICKSTART, SENSITIVITY = (ROOT / "configs" / f"{name}.yaml" for name in ("quickstart", "sensitivity"))

# Most of the time goes into compiling programs that run for a moment, which takes half as long without optimisation.
QUICK = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"}


@pytest.fixture(scope="module")
def working_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks, and small stores where they look for them: the corners of the quickstart, and a design of few points."""
    root = tmp_path_factory.mktemp("working_copy")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    document = YAML(typ="safe").load(QUICKSTART)
    document["sweep"] = {name: [values[0], values[-1]] for name, values in load_spec(QUICKSTART).canonical()["sweep"].items()}
    drawn = YAML(typ="safe").load(SENSITIVITY) | {"points": 4, "solver": {"select": "cold"}}
    for name, content in {"corners": document, "drawn": drawn}.items():
        YAML(typ="safe").dump(content, root / f"{name}.yaml")
        command = [sys.executable, "-m", "sweeps.cli", "run", f"{name}.yaml", "--quiet", "--strict"]
        subprocess.run(command, cwd=root, env=QUICK, check=True)
    return root


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_without_error_or_warning(path: Path, working_copy: Path) -> None:
    folder = working_copy / "notebooks"
    notebook = nbformat.read(folder / path.name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute(env=QUICK)
    outputs = [(cell.source, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert [(source, output.text) for source, output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None and cell.metadata == {} for cell in cells)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
