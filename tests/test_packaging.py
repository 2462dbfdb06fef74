"""What a user installs: the wheel is complete, works outside the repository, and is quick to import."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE = ROOT / "src" / "diffsift"
LINKED = (
    *("backbones", "bank", "common", "datasets", "evaluation", "extraction", "objectives", "search", "spaces"),
    *("testing", "tracking"),
)
"""Root folders that are subpackages."""


def run(*command: str | Path, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed, seeing nothing of this process's import path."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DIFFSIFT_WORKSPACE")
    }
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the wheel; what it depends on comes from the environment of this test run."""

    home: Path

    @property
    def bin(self) -> Path:
        return self.home / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.bin / "python"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with their links, so that no earlier build's leftovers get into what is built."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("src", "diffsift", *LINKED):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignored)
    return copy


def built_wheel(source: Path, target: Path) -> Path:
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target]
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=target, timeout=300)
    (built,) = target.glob("diffsift-*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    installed = Installed(home)
    options = ["--python", installed.python, "install", "--no-deps", "--no-index", "--quiet"]
    run(sys.executable, "-m", "pip", *options, wheel, cwd=home)
    # A folder named in a .pth file comes after the wheel's own on the import path, and .pth files within it (the
    # finder of an editable install is started by one) are not read.
    query = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = Path(run(installed.python, "-c", query, cwd=home).stdout.strip())
    dependencies = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}
    (own / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(dependencies)))
    return installed


def modules() -> list[Path]:
    """Every file of the package, as it is imported: below the links."""
    files = [file for folder in (PACKAGE, *(PACKAGE / name for name in LINKED)) for file in folder.rglob("*")]
    return sorted({file for file in files if file.is_file() and "__pycache__" not in file.parts})


def test_every_folder_with_code_is_a_package_behind_its_link() -> None:
    assert {path.parent.name for path in ROOT.glob("[!.]*/__init__.py")} - {"tests", "diffsift"} == set(LINKED)
    for name in LINKED:
        assert (ROOT / "diffsift" / name).readlink() == Path("..") / name
    assert PACKAGE.readlink() == Path("..") / "diffsift"
    assert [file for file in modules() if file.suffix == ".py" and not (file.parent / "__init__.py").is_file()] == []


def test_nothing_but_diffsift_is_importable(tmp_path: Path) -> None:
    """The root's folders have common names: an editable install must not put them on the import path."""
    found = f"[name for name in {LINKED} if importlib.util.find_spec(name)]"
    assert run(sys.executable, "-c", f"import importlib.util; print({found})", cwd=tmp_path).stdout.strip() == "[]"


def test_a_clone_that_was_never_installed_answers(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    for name in ("diffsift", *LINKED):
        (tmp_path / "clone" / name).symlink_to(ROOT / name)
    assert "demo" in run(sys.executable, "-m", "diffsift", "--help", cwd=tmp_path / "clone").stdout


def test_every_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
    versions = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *extras["test"], *extras["dev"]]:
        requirement = Requirement(text)
        if requirement.name != "diffsift":
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_every_import_is_a_declared_requirement() -> None:
    """What is only there because another requirement pulls it in may be gone with that one's next release."""
    imported = set()
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text())) if file.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    providers = packages_distributions()
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    foreign = imported - sys.stdlib_module_names - {"diffsift"}
    foreign -= {"pytest"}  # imported by diffsift.testing alone, which is for those who have it
    undeclared = {name for name in foreign if not declared & {canonicalize_name(d) for d in providers.get(name, [])}}
    assert undeclared == set()


def test_wheel_holds_all_modules_and_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"diffsift/{file.relative_to(PACKAGE).as_posix()}" for file in modules()}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "diffsift/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_archive_holds_no_links_and_gives_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = tmp_path.glob("diffsift-*.tar.gz")
    with tarfile.open(archive) as opened:
        assert [member.name for member in opened if member.issym() or member.islnk()] == []
        opened.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.glob("diffsift-*") if path.is_dir())
    again = built_wheel(unpacked, tmp_path)
    names, other = (
        {name for name in zipfile.ZipFile(file).namelist() if ".dist-info/" not in name} for file in (wheel, again)
    )
    assert names == other


def test_installed_package_is_the_wheels(installed: Installed, tmp_path: Path) -> None:
    source = "import diffsift, diffsift.spaces.selection as s; print(diffsift.__file__); print(s.__file__)"
    for line in run(installed.python, "-c", source, cwd=tmp_path).stdout.splitlines():
        assert Path(line).is_relative_to(installed.home)


def test_installed_command_answers(installed: Installed, tmp_path: Path) -> None:
    assert "demo" in run(installed.bin / "diffsift", "--help", cwd=tmp_path).stdout


@pytest.mark.timeout(900)
def test_installed_demo_runs_outside_the_repository(installed: Installed, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    options = ["--trials", "5", "--workspace", tmp_path / "kept"]
    run(installed.bin / "diffsift", "demo", *options, cwd=here, timeout=800)
    written = list(tmp_path.rglob("selection-demo-0.json"))
    assert written
    assert json.loads(written[0].read_text())


@pytest.mark.parametrize("module", ["diffsift", "diffsift.cli.app"])
def test_import_is_lazy(module: str, tmp_path: Path) -> None:
    heavy = ["torch", "diffusers", "transformers", "mlflow", "optuna", "matplotlib", "sklearn", "scipy", "sqlalchemy"]
    source = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    assert run(sys.executable, "-c", source, cwd=tmp_path).stdout.split() == []


def test_every_public_name_is_there() -> None:
    import diffsift

    assert set(diffsift.__all__) <= set(dir(diffsift))
    for name in diffsift.__all__:
        assert getattr(diffsift, name) is not None


def test_unknown_name_offers_the_closest() -> None:
    import diffsift

    with pytest.raises(AttributeError, match="did you mean 'select'"):
        diffsift.selct  # noqa: B018
