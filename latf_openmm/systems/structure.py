"""A structure file (PDB or mmCIF) with force-field files of OpenMM."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from openmm import app
from pydantic import AfterValidator, Field, ValidationInfo

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.settings import InputFile, beside_the_configuration
from latf_openmm.systems.molecule import (
    ForceFieldOptions,
    Molecule,
    MoleculeSettings,
    box_of_files,
    create_system,
    nanometres,
    structure,
)
from latf_openmm.systems.trusted_xml import check_force_fields, own_force_fields


def force_field_file(name: str) -> Path | None:
    """Return the force-field file that OpenMM, or a package that adds to it, has of that name."""
    folders = [Path(folder) for folder in app.forcefield._getDataDirectories()]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _file_or_name(name: str, info: ValidationInfo) -> str:
    """Names of OpenMM stay; other files are relative to the configuration, as all."""
    return name if force_field_file(name) else str(beside_the_configuration(Path(name), info))


class StructureSettings(MoleculeSettings):
    """A PDB or mmCIF file that is complete (hydrogens, solvent), and names of OpenMM force-field files."""

    title: ClassVar[str] = "your PDB or mmCIF file and a force field"
    system_file: ClassVar[str] = "structure"

    kind: Literal["structure"] = "structure"
    structure: InputFile = Field(description="PDB or mmCIF file, with hydrogens")
    force_field: list[Annotated[str, AfterValidator(_file_or_name)]] = Field(
        min_length=1,
        description="files of OpenMM, for example amber14-all.xml and amber14/tip3p.xml, or of your own",
    )
    trust: bool = Field(False, description="whether scripts in your own force-field files may run")
    options: ForceFieldOptions = Field(ForceFieldOptions(), description="how the System is made")

    def code(self) -> tuple[Path, ...]:
        """Return the force-field files that did not come with OpenMM, where they are trusted."""
        return tuple(own_force_fields(self.force_field)) if self.trust else ()

    def read(self) -> Molecule:
        """Read the structure, apply the force field."""
        pdb = structure("structure", self.structure)
        if not self.trust:
            check_force_fields(self.force_field)
        try:
            field = app.ForceField(*(str(force_field_file(name) or name) for name in self.force_field))
        except Exception as error:
            raise ConfigError(
                f"system.force_field: {self.force_field} cannot be read ({first_line(error)})"
            ) from error
        box = box_of_files(pdb.topology.getPeriodicBoxVectors(), "structure", self.structure)
        system = create_system(
            lambda **options: field.createSystem(pdb.topology, **options),
            pdb.topology,
            self.options,
            box,
            "force_field",
            str(self.structure),
        )
        return Molecule(pdb.topology, system, nanometres(pdb.positions), box)
