"""What a release is made of says one version, and what its files name is there."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

import latf_openmm

ROOT = Path(__file__).parents[2]


def test_the_citation_and_the_changelog_have_the_version_and_its_date() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == latf_openmm.__version__
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1] == (latf_openmm.__version__, cited["date-released"])


def test_the_project_reads_its_version_in_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text
    assert '[tool.hatch.version]\npath = "latf_openmm/__init__.py"' in text


def test_the_environment_of_conda_asks_for_the_versions_of_the_project() -> None:
    bounds = dict(
        re.findall(r'^  "([a-z0-9-]+)(>=[^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    )
    others = {"pytorch": "torch", "pymbar-core": "pymbar", "matplotlib-base": "matplotlib"}
    asked = [
        d.split() for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if " " in d
    ]
    assert asked[0] == ["python", ">=3.10,<3.15"]
    assert len(asked) > 5
    for name, bound in asked[1:]:
        assert bounds[others.get(name, name)] == bound


def test_the_workflow_keeps_no_token_and_checks_the_tag() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    check = next(
        step["run"] for step in jobs["build"]["steps"] if step.get("name") == "The tag names the version"
    )
    for tag, code in ((f"v{latf_openmm.__version__}", 0), ("v9.9.9", 1)):
        environment = {"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}
        assert (
            subprocess.run(["bash", "-c", check], cwd=ROOT, env=environment, check=False).returncode == code
        )


def test_the_installed_command_is_named_in_the_project() -> None:
    assert 'latf-openmm = "latf_openmm.cli:main"' in (ROOT / "pyproject.toml").read_text()
    command = [sys.executable, "-m", "latf_openmm.cli", "--version"]
    assert subprocess.check_output(command, text=True).strip() == latf_openmm.__version__
