"""Methods of other packages: found without running their code, never in the place of the suite's."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import baselines
from benchmarks import cli, methods
from benchmarks.errors import InputError
from benchmarks.methods import METHODS, installed
from benchmarks.runner import environment, plan
from benchmarks.runner.config import load_class
from benchmarks.runner.source import closure, source_digest

ROOT = Path(__file__).resolve().parents[2]
ROW = 'ROW = {"label": "Theirs", "citation": "Somebody, 2026", "year": 2026}\n'
CODE = f"""{ROW}
from baselines.late_fusion import LateFusion


class Theirs(LateFusion):
    pass
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(name="theirs", target="their_method:Theirs", files={...}, package="their-package")``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(
        name: str = "theirs", target: str = "their_method:Theirs", files: dict[str, str] | None = None,
        package: str = "their-package", url: str = "https://example.org/theirs",
    ) -> Path:  # fmt: skip
        info = tmp_path / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\nProject-URL: Home, {url}\n"
        )
        (info / "entry_points.txt").write_text(f"[clcr.methods]\n{name} = {target}\n")
        for path, text in ({"their_method.py": CODE} if files is None else files).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        importlib.invalidate_caches()
        installed.cache_clear()
        return tmp_path

    yield make
    installed.cache_clear()
    source_digest.cache_clear()
    for module in [name for name in sys.modules if name.startswith("their_")]:
        del sys.modules[module]


def refused(*words: str) -> None:
    with pytest.raises(InputError) as told:
        list(METHODS)
    assert all(word in str(told.value) for word in words), str(told.value)
    assert "\n" not in str(told.value)


def test_a_package_adds_a_row_behind_those_of_the_suite(install: Install) -> None:
    install(files={"their_method.py": CODE.replace("import", "import no_such_module;import", 1)})
    assert list(METHODS) == [*baselines.METHODS, "theirs"]
    row = METHODS["theirs"]
    assert (row.label, row.year, row.origin, row.variants) == ("Theirs", 2026, "their-package 1.2", ("full",))
    assert "their_method" not in sys.modules
    assert "theirs" in plan.method_names()
    assert METHODS["misa"] is baselines.METHODS["misa"]


def test_all_means_the_suite_and_a_package_runs_when_it_is_named(install: Install, tmp_path: Path) -> None:
    before = plan.select(plan.Selection(("crema_d",), data="twin"), tmp_path / "cache")[0]
    install()
    assert plan.select(plan.Selection(("crema_d",), data="twin"), tmp_path / "cache")[0] == before
    named = plan.select(plan.Selection(("crema_d",), ("theirs", "misa"), data="twin"), tmp_path / "cache")[0]
    assert {key.method for key in named} == {"theirs", "misa"}


def test_list_says_where_a_row_comes_from(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install()
    assert cli.main(["list", "methods"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "their-package 1.2" in lines["theirs"]
    assert "this suite" in lines["clcr"]


@pytest.mark.parametrize("name", ["clcr", "misa", "linear", "unimodal", "unimodal_audio", "unimodal_anything"])
def test_no_package_takes_a_name_of_the_suite(install: Install, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    install(name=name)
    refused("their-package 1.2", repr(name), "the suite has a method of this name", "uninstall the package")
    assert METHODS["clcr"] is baselines.METHODS["clcr"]
    assert cli.main(["plan", "--benchmark", "crema_d", "--data", "twin"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_two_packages_with_one_name_are_told(install: Install) -> None:
    install()
    install(package="other-package")
    refused("their-package 1.2", "other-package 1.2", "uninstall one of them")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Theirs"}, ("'Theirs'", "small letters")),
        ({"name": "all"}, ("'all'", "not a method's name")),
        ({"target": "their_method"}, ("module:Class",)),
        ({"target": "clcr.method:CLCR"}, ("clcr.method is a module of the suite",)),
        ({"target": "their_other:Theirs"}, ("their_other has no .py file", "install the package again")),
        ({"target": "their_method.deeper:Theirs"}, ("their_method.deeper has no .py file",)),
        ({"files": {"their_method.py": "x = 1\n"}}, ("their_method.py", "no ROW =", "add it as a literal")),
        ({"files": {"their_method.py": "ROW = make()\n"}}, ("ROW cannot be read", "literal")),
        ({"files": {"their_method.py": "ROW = {\n"}}, ("ROW cannot be read",)),
        ({"files": {"their_method.py": 'ROW = {"label": "x", "year": 1}'}}, ("'citation' is missing",)),
        ({"files": {"their_method.py": ROW.replace("2026}", '"x"}')}}, ("'year'", "write a number")),
        ({"files": {"their_method.py": ROW.replace("label", "lable")}}, ("did you mean 'label'?",)),
        ({"files": {"their_method.py": ROW.replace("Theirs", "a\\nb")}}, ("'label'", "one line")),
        ({"files": {"their_method.py": ROW.replace("}", ', "variants": ["a"]}')}}, ("'variants'", "'full' first")),
    ],
)
def test_a_package_that_cannot_be_taken_is_told_in_one_line(
    install: Install, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    install(**changes)
    refused(*words)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (CODE, ()),
        (f"{ROW}raise RuntimeError('no such thing')\n", ("cannot be loaded (RuntimeError: no such thing)",)),
        (f"{ROW}class Theirs: pass\n", ("not a subclass of clcr.api.Method",)),
        (f"{ROW}\n", ("AttributeError",)),
        (CODE.replace("pass", 'VARIANTS = {"full": {}, "more": {}}'), ("VARIANTS are full, more, its ROW says full",)),
        (CODE.replace("pass", "Config = int"), ("Config is not a dataclass",)),
        (CODE.replace("pass", 'VARIANTS = {"full": {"x": 1}}'), ("cannot be loaded (TypeError",)),
    ],
)
def test_a_class_is_held_to_the_contract_when_it_is_loaded(install: Install, code: str, words: tuple[str, ...]) -> None:
    install(files={"their_method.py": code})
    if not words:
        assert load_class(METHODS["theirs"]).__name__ == "Theirs"
        return
    with pytest.raises(InputError) as told:
        load_class(METHODS["theirs"])
    assert all(word in str(told.value) for word in ("method theirs of package their-package 1.2", *words))


PACKAGE = {
    "their_method/__init__.py": "SCALE = 1\n",
    "their_method/main.py": f"{ROW}from . import parts\nfrom .deep import depth\nimport their_method.late\n"
    "import math\nfrom clcr.layers import Linear\nclass Theirs: pass\n",
    "their_method/parts.py": "from baselines.late_fusion import LateFusion\n",
    "their_method/deep/__init__.py": "from ..unused import thing\n",
    "their_method/late.py": "def f():\n    from their_method import later\n",
    "their_method/later.py": "X = 1\n",
    "their_method/unused.py": "thing = 1\n",
    "their_method/other.py": "Y = 1\n",
}


def test_the_digest_covers_all_that_a_method_imports_of_its_package_and_of_the_suite(install: Install) -> None:
    install(target="their_method.main:Theirs", files=PACKAGE)
    found = closure("their_method.main")
    own = {name for name in found if name.startswith("their_method")}
    expected = ("", ".main", ".parts", ".deep", ".late", ".later", ".unused")
    assert own == {f"their_method{name}" for name in expected}
    assert {"clcr.layers", "baselines.late_fusion", "clcr.hierarchy"} <= found


@pytest.mark.parametrize(
    ("path", "new", "counts"),
    [
        ("their_method/__init__.py", "SCALE = 2\n", True),
        ("their_method/later.py", "X = 2\n", True),
        ("their_method/unused.py", "thing = 2\n", True),
        ("their_method/other.py", "Y = 2\n", False),
        ("their_method/later.py", "# why\nX = 1\n", False),
        ("their_method/main.py", PACKAGE["their_method/main.py"].replace("layers", "attention"), True),
    ],
)
def test_what_changes_the_digest(install: Install, path: str, new: str, counts: bool) -> None:
    from benchmarks.runner import source

    folder = install(target="their_method.main:Theirs", files=PACKAGE)
    before = source_digest("their_method.main")
    (folder / path).write_text(new)
    source_digest.cache_clear()
    source._parse.cache_clear()
    assert (source_digest("their_method.main") != before) == counts


def test_a_record_says_where_the_code_is(install: Install) -> None:
    folder = install()
    row = METHODS["theirs"]
    told = environment.package_state(row)
    assert (told["package"], told["version"], told["url"]) == ("their-package", "1.2", "https://example.org/theirs")
    assert (told["commit"], told["dirty"]) == ("", False)  # no repository holds it
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "their_method.py"], ["commit", "-q", "-m", "One"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    told = environment.package_state(row)
    assert (told["commit"], told["dirty"]) == (commit, False)
    (folder / "their_method.py").write_text(f"{CODE}X = 1\n")
    assert environment.package_state(row)["dirty"]
    noted = '{"url": "https://example.org/git/theirs", "vcs_info": {"vcs": "git", "commit_id": "' + "a" * 40 + '"}}'
    (folder / "their_package-1.2.dist-info" / "direct_url.json").write_text(noted)
    told = environment.package_state(row)
    assert (told["commit"], told["url"], told["dirty"]) == ("a" * 40, "https://example.org/git/theirs", False)


def test_listing_methods_loads_no_torch_and_runs_no_code_of_a_package(install: Install, tmp_path: Path) -> None:
    install(files={"their_method.py": f"{ROW}open({str(tmp_path / 'ran')!r}, 'w')\n"})
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; from benchmarks import cli;"
    code += " cli.main(['list', 'methods']); cli.main(['list', 'variants']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "theirs" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_the_table_is_a_mapping(install: Install) -> None:
    install()
    assert len(METHODS) == len(baselines.METHODS) + 1
    assert "theirs" in METHODS
    assert "nobody" not in METHODS
    assert methods.belongs("unimodal_audio")
    assert not methods.belongs("theirs")
