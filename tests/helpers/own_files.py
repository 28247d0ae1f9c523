"""Helpers of several test files, made for those of own_systems."""

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from latf_openmm.systems import library_folder

parmed = pytest.importorskip("parmed")


BOX = 2.3


FIELD = ["amber14/protein.ff14SB.xml", "amber14/tip3p.xml"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alanine dipeptide in water, in every format; and without water."""
    folder = tmp_path_factory.mktemp("own")
    pdb = app.PDBFile(str(library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))
    app.PDBFile.writeFile(pdb.topology, pdb.positions, (folder / "dry.pdb").open("w"), keepIds=True)
    field = app.ForceField(*FIELD)
    model = app.Modeller(pdb.topology, pdb.positions)
    model.addSolvent(field, boxSize=openmm.Vec3(BOX, BOX, BOX) * unit.nanometer)
    system = field.createSystem(
        model.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=None,
        rigidWater=False,
    )
    (folder / "wet.xml").write_text(openmm.XmlSerializer.serialize(system))
    app.PDBFile.writeFile(model.topology, model.positions, (folder / "wet.pdb").open("w"), keepIds=True)
    app.PDBxFile.writeFile(model.topology, model.positions, (folder / "wet.cif").open("w"), keepIds=True)
    np.save(folder / "positions.npy", np.array(model.positions.value_in_unit(unit.nanometer)))
    structure = parmed.openmm.load_topology(model.topology, system, model.positions)
    structure.box = [10 * BOX] * 3 + [90] * 3
    for name in ("wet.prmtop", "wet.rst7", "wet.top", "wet.gro", "wet.psf", "wet.crd"):
        structure.save(str(folder / name))
    parameters = parmed.charmm.CharmmParameterSet.from_structure(structure)
    parameters.write(par=str(folder / "wet.par"), top=str(folder / "wet.rtf"))
    (folder / "make.py").write_text(
        "import openmm\nfrom openmm import app\nfrom pathlib import Path\n\n\n"
        "def make():\n    here = Path(__file__).parent\n"
        "    pdb = app.PDBFile(str(here / 'wet.pdb'))\n"
        "    system = openmm.XmlSerializer.deserialize((here / 'wet.xml').read_text())\n"
        "    return system, pdb.topology, pdb.positions\n\n\n"
        "def wrong():\n    return 3\n\n\ndef fails():\n    raise RuntimeError('no')\n\n\nnumber = 3\n"
    )
    return folder
