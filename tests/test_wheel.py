"""The wheel holds the tree's product files, and works where folders of the same names lie about."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "hwgen", "sim", "fpga_targets", "optical", "reports", "cli")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def tree() -> list[str]:
    """Every file of the working tree that git does not ignore, added to git or not."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return sorted(name for name in listing.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree: built in place, it could pick up an earlier build."""
    source = tmp_path_factory.mktemp("source")
    for name in tree():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", target, source, cwd=target)
    (built,) = target.glob("vitruvius-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an empty environment with the wheel; dependencies are lent to it by path.

    A .pth file adds this environment's folders but does not run the .pth files in them, so that
    an editable install here does not reach there.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", where, cwd=folder).strip())
    lent = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site / "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=folder)
    return python.parent


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder whose packages bear our folders' names and must never be imported by us."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in FOLDERS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(
            f"raise RuntimeError('the user\\'s {name} was imported')\n", encoding="utf-8"
        )
    return folder


@pytest.fixture
def environment(installed: Path, tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    path = os.pathsep.join([str(installed), os.environ.get("PATH", "")])
    return {**kept, "PATH": path, "COLUMNS": "120", "TMPDIR": str(tmp_path)}


def test_the_wheel_holds_exactly_the_product_files(wheel: Path) -> None:
    product = {
        f"vitruvius/{name}"
        for name in tree()
        if name.split("/", maxsplit=1)[0] in FOLDERS
        or ("/" not in name and (name.endswith(".py") or name == "py.typed"))
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith("-info")}
    assert len(product) > 50
    assert names - product == set(), "in the wheel, not in the tree"
    assert product - names == set(), "in the tree, not in the wheel: see pyproject.toml"


def test_only_one_name_is_installed(wheel: Path, installed: Path, elsewhere: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert len(tops) == 2
    assert "vitruvius" in tops
    report = "import vitruvius; print(vitruvius.__file__)"
    file = run(installed / "python", "-P", "-c", report, cwd=elsewhere).strip()
    assert Path(file).is_relative_to(installed.parent)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("vitruvius", "--help"), "estimate"),
        (("vitruvius", "models"), "vit_digits"),
        (("vitruvius", "trace", "vit_digits"), "softmax"),
        (("python", "-m", "vitruvius", "doctor"), "verilator"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_command_runs_among_folders_of_the_same_names(
    installed: Path,
    elsewhere: Path,
    environment: dict[str, str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    program, *rest = arguments
    output = run(installed / program, *rest, cwd=elsewhere, env=environment)
    assert expected in output.lower()
