"""Put the speech material of stimuli/ into the wheel, inside the package; pyproject.toml says all the rest."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithMaterial(build_py):
    """Copy stimuli/ to psysim/stimuli/material; an editable installation reads it in the checkout."""

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "psysim" / "stimuli" / "material"
            copytree("stimuli", target, dirs_exist_ok=True, ignore=ignore_patterns("*.py", "__pycache__"))


setup(cmdclass={"build_py": BuildWithMaterial})
