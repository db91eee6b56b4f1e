"""Calls that could run what others wrote: every Python, shell, make and page source is walked, and none is there but
where a reader was written for it. Each rule is shown to bite, and to let its harmless neighbour pass."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES, OTHERS = ("clcr", "baselines", "benchmarks", "examples"), ("tests",)

# What may never be named in the packages, called or handed on.
NEVER = (
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "pickle._Unpickler",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
    ),
    *("joblib", "shelve", "marshal", "pandas.read_pickle", "pandas.read_hdf", "pandas.eval", "torch.jit.load"),
    *("torch.hub", "torch.package", "eval", "exec", "compile", "__import__", "yaml.load", "yaml.load_all"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all", "yaml.safe_load"),
    *("yaml.safe_load_all", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader", "yaml.SafeLoader"),
    *("os.system", "os.popen", "os.execl", "os.execv", "os.execvp", "os.execve", "os.spawnl", "os.spawnv", "pty"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp", "shutil.unpack_archive"),
    *(
        "ssl._create_unverified_context",
        "xml.etree",
        "xml.dom",
        "xml.sax",
        "xml.parsers",
        "lxml",
        "requests",
        "h5py.File",
    ),
    *("tarfile.open", "tarfile.TarFile", "webbrowser", "code.interact", "runpy", "telnetlib", "ftplib"),
)
# Of these the tests call none either; they name some of them, to show that they are refused.
FOR_TESTS = ("xml", "h5py", "tarfile", "compile", "yaml.safe", "yaml.Safe", "runpy")
NEVER_IN_TESTS = tuple(rule for rule in NEVER if not rule.startswith(FOR_TESTS))
# Calls that must say something, by the end of their name: {name: (keyword, its value or None for any)}.
MUST_SAY: dict[str, tuple[str, object]] = {
    "numpy.load": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "numpy.lib.format.read_array": ("allow_pickle", False),
    "numpy.lib.format.write_array": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "urllib.request.urlopen": ("timeout", None),
    "socket.create_connection": ("timeout", None),
    ".from_pretrained": ("trust_remote_code", False),
}
BY_PLACE = {"socket.create_connection": 1, "urllib.request.urlopen": 2}  # where it may stand without its name
LOADS = ("numpy.load", "torch.load")  # what must say so in tests, too
NEVER_SAY = (
    ("shell", True),
    ("verify", False),
    ("trust_remote_code", True),
    ("allow_pickle", True),
    ("weights_only", False),
)
METHODS = (".extractall", ".extract")  # of archives, whatever they are called
PROCESSES = (
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
)
# Who may, and what: the readers that are written for it, and tests that show what a plain reader would do.
ALLOWED: dict[str, tuple[str, ...]] = {
    "benchmarks/safe_pickle.py": ("pickle._Unpickler",),
    "benchmarks/plain_yaml.py": ("yaml.SafeLoader",),
    "benchmarks/unpack.py": ("tarfile.open", "tarfile.TarFile"),
    "benchmarks/csd.py": ("h5py.File",),
    "tests/benchmarks/test_bad_files.py": ("pickle.load",),
    "tests/fuzz/test_fuzz.py": ("os.system", "exec"),
}


BUILTINS = ("eval", "exec", "compile", "__import__", "getattr")
LATE = ("h5py",)  # modules that are imported late, into a variable of their name


@dataclass
class File:
    """A source with what its names stand for."""

    path: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, path: str) -> File:
        found = cls(path, ast.parse(text), {"np": "numpy", "pd": "pandas"})
        for node in ast.walk(found.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found.names[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def dotted(self, node: ast.AST) -> str:
        """What an expression names, with imports looked up: "os.system"; ".extract" of something unknown."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id if node.id in (*BUILTINS, *LATE) else f"a local {node.id}")
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        return ""


def covers(rule: str, name: str) -> bool:
    """Whether a name is the rule's, or lies below it."""
    return name == rule or name.startswith(f"{rule}.")


def faults(text: str, path: str = "benchmarks/x.py") -> list[str]:
    """What a Python source holds that it must not, as "line: what"."""
    file = File.of(text, path)
    in_tests = path.startswith("tests/")
    found = [
        *(_named(file) if not in_tests else _called(file)),
        *_said(file),
        *_processes(file),
        *_archives(file, in_tests),
    ]
    allowed = ALLOWED.get(path, ())
    return sorted({f"{line}: {what}" for line, what in found if what not in allowed})


def _named(file: File) -> Iterator[tuple[int, str]]:
    """Every mention of what may never be named, imports too."""
    for node in ast.walk(file.tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            names = [file.dotted(node)]
        elif isinstance(node, ast.Call) and file.dotted(node.func) in ("getattr", "importlib.import_module"):
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            owner = file.dotted(node.args[0]) if file.dotted(node.func) == "getattr" else ""
            names = [f"{owner}.{text}" if owner else text for text in texts]
        yield from ((getattr(node, "lineno", 0), rule) for rule in NEVER for name in names if covers(rule, name))


def _called(file: File) -> Iterator[tuple[int, str]]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call):
            name = file.dotted(node.func)
            yield from ((node.lineno, rule) for rule in NEVER_IN_TESTS if covers(rule, name))


def _said(file: File) -> Iterator[tuple[int, str]]:
    """Calls that do not say what they must, or say what they must not."""
    in_tests = file.path.startswith("tests/")
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        name, said = file.dotted(node.func), {word.arg: word.value for word in node.keywords if word.arg}
        for rule, (word, value) in MUST_SAY.items():
            applies = name.endswith(rule) if rule.startswith(".") else name == rule
            right = word in said and (value is None or _is(said[word], value))
            right = right or len(node.args) > BY_PLACE.get(rule, len(node.args))
            if applies and not right and (rule in LOADS or not in_tests):
                yield node.lineno, f"{rule} without {word}{'' if value is None else f'={value}'}"
        for word, value in NEVER_SAY:
            writes = in_tests and name in ("numpy.save", "numpy.savez")  # what a stranger might send
            if word in said and not _is(said[word], not value) and not writes:
                yield node.lineno, f"{word}={value}"
        if name == "ctypes.CDLL" and not (node.args and _is(node.args[0], None)):
            yield node.lineno, "ctypes.CDLL of a file"


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _processes(file: File) -> Iterator[tuple[int, str]]:
    """Commands that are texts, which a shell or a splitter would take apart."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and file.dotted(node.func) in PROCESSES:
            command = node.args[0] if node.args else next((w.value for w in node.keywords if w.arg == "args"), None)
            text = isinstance(command, ast.JoinedStr | ast.BinOp) or (
                isinstance(command, ast.Constant) and isinstance(command.value, str)
            )
            joined = isinstance(command, ast.Call) and isinstance(command.func, ast.Attribute)
            if text or (joined and command.func.attr in ("join", "format")):  # type: ignore[union-attr]
                yield node.lineno, "a command that is a text"


def _archives(file: File, in_tests: bool) -> Iterator[tuple[int, str]]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and f".{node.func.attr}" in METHODS:
            pandas = node.func.attr == "extract" and file.dotted(node.func.value).endswith(".str")
            if not pandas and not in_tests:
                yield node.lineno, f".{node.func.attr} of an archive"


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources(*PACKAGES, *OTHERS), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_source_could_run_what_others_wrote(path: Path) -> None:
    assert not faults(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("path", ALLOWED)
def test_whoever_may_does(path: str) -> None:
    """An exception that nobody needs any more is taken back."""
    text = (ROOT / path).read_text(encoding="utf-8")
    held = faults(text, path)
    assert not held
    file = File.of(text, path)
    named = {what for _, what in (_called(file) if path.startswith("tests/") else _named(file))}
    assert named & set(ALLOWED[path])


BITES = {
    "pickle": "import pickle\npickle.loads(b'')",
    "pickle by another name": "from pickle import load as read\nread(f)",
    "pickle handed on": "import pickle\nreaders = {'pkl': pickle.load}",
    "pickle by its name": "import pickle\ngetattr(pickle, 'loads')(b'')",
    "pickle imported late": "import importlib\nimportlib.import_module('dill')",
    "an unpickler": "import pickle\nclass Reader(pickle.Unpickler): pass",
    "dill": "import dill",
    "joblib": "from joblib import load",
    "shelve": "import shelve\nshelve.open('x')",
    "marshal": "import marshal",
    "pandas pickle": "import pandas as pd\npd.read_pickle('x')",
    "pandas hdf": "import pandas\npandas.read_hdf('x')",
    "numpy load": "import numpy as np\nnp.load('x')",
    "numpy load of pickles": "import numpy as np\nnp.load('x', allow_pickle=True)",
    "numpy load as it comes": "import numpy as np\nnp.load('x', allow_pickle=flag)",
    "torch load": "import torch\ntorch.load('x')",
    "torch load of anything": "import torch\ntorch.load('x', weights_only=False)",
    "torch hub": "import torch\ntorch.hub.load('x', 'y')",
    "yaml": "import yaml\nyaml.load(text)",
    "yaml full": "import yaml\nyaml.full_load(text)",
    "yaml with aliases": "import yaml\nyaml.safe_load(text)",
    "yaml loader": "import yaml\nyaml.load(text, Loader=yaml.UnsafeLoader)",
    "eval": "eval(text)",
    "exec": "exec(text)",
    "compile": "compile(text, 'x', 'exec')",
    "import by text": "__import__(text)",
    "shell": "import subprocess\nsubprocess.run(['ls'], shell=True)",
    "shell as it comes": "import subprocess\nsubprocess.run(['ls'], shell=flag)",
    "text command": "import subprocess\nsubprocess.run('ls x')",
    "text command of data": "import subprocess\nsubprocess.Popen(f'ls {name}')",
    "text command joined": "import subprocess\nsubprocess.check_output(' '.join(words))",
    "text command by keyword": "import subprocess\nsubprocess.run(args='ls ' + name)",
    "system": "import os\nos.system('ls')",
    "system by another name": "from os import system\nsystem('ls')",
    "popen": "import os\nos.popen('ls')",
    "getoutput": "import subprocess\nsubprocess.getoutput('ls')",
    "tar": "import tarfile\nwith tarfile.open('x') as f: pass",
    "zip extract": "import zipfile\nzipfile.ZipFile('x').extractall()",
    "member extract": "bundle.extract(member)",
    "unpack_archive": "import shutil\nshutil.unpack_archive('x')",
    "mktemp": "import tempfile\ntempfile.mktemp()",
    "no time limit": "import urllib.request\nurllib.request.urlopen('x')",
    "no certificate": "client.get('x', verify=False)",
    "no time limit of a socket": "import socket\nsocket.create_connection(place)",
    "requests": "import requests",
    "xml": "import xml.etree.ElementTree as tree",
    "lxml": "from lxml import etree",
    "hdf5 outside its reader": "import h5py\nh5py.File('x')",
    "code of a model": "AutoModel.from_pretrained('x', trust_remote_code=True)",
    "code of a model as it comes": "AutoModel.from_pretrained('x')",
    "a library": "import ctypes\nctypes.CDLL(path)",
}
PASSES = {
    "json": "import json\njson.loads(text)",
    "a method of that name": "model.eval()\nre.compile('x')\nself.load(path)\nreader.loads(text)",
    "regular expressions": "import re\nre.compile('x')",
    "numpy load": "import numpy as np\nnp.load('x', allow_pickle=False)",
    "torch load": "import torch\ntorch.load('x', map_location='cpu', weights_only=True)",
    "writing yaml": "import yaml\nyaml.safe_dump({})",
    "list command": "import subprocess\nsubprocess.run(['ls', name], check=False)",
    "command in a variable": "import subprocess\nsubprocess.run(command, shell=False)",
    "literals": "import ast\nast.literal_eval(text)",
    "pandas str": "frame['x'].str.extract('(x)')",
    "a time limit": "import urllib.request\nurllib.request.urlopen('x', timeout=3)",
    "temporary folder": "import tempfile\ntempfile.mkdtemp()",
    "model without its code": "AutoModel.from_pretrained('x', trust_remote_code=False)",
    "a variable of that name": "requests = []\nrequests.append(1)",
    "a time limit by its place": "import socket\nsocket.create_connection(place, 1.0)",
    "a name that begins alike": "import yaml_tools\nyaml_tools.load(text)\nos_system('x')\nevaluate(x)",
    "the process itself": "import ctypes\nctypes.CDLL(None)",
    "importing by a table": "import importlib\nimportlib.import_module('benchmarks.tasks.ave')",
}


@pytest.mark.parametrize("name", BITES)
def test_a_rule_bites(name: str) -> None:
    assert faults(BITES[name])


@pytest.mark.parametrize("name", PASSES)
def test_a_rule_lets_pass_what_is_harmless(name: str) -> None:
    assert not faults(PASSES[name])


def test_an_exception_is_for_one_file_and_one_thing() -> None:
    text = "import pickle\nclass Reader(pickle._Unpickler): pass"
    assert not faults(text, "benchmarks/safe_pickle.py")
    assert faults(text, "benchmarks/csd.py")
    assert faults("import pickle\npickle.load(f)", "benchmarks/safe_pickle.py")
    assert faults("import os\nos.system('x')", "tests/test_x.py")
    assert not faults("import os\nrefused(os.system)", "tests/test_x.py")


# ------------------------------------------------------------------------------------------------------- shell and make

SCRIPTS = [path for path in (*sorted((ROOT / "benchmarks").glob("*.sh")), ROOT / ".ci" / "run") if path.is_file()]
SHELL_NEVER = {
    r"(?<![\w-])eval\s": "eval",
    r"`": "backticks",
    r"(curl|wget)[^|;]*\|\s*(sudo )?(ba|z)?sh\b": "a download into a shell",
    r"\b(ba|z)?sh\s+-c\s+[^'\s]": "a command that is a text",
    r"(?<![\w-])source\s+[\"']?\$": "a source from a variable",
    r"\bchmod\s+(-R\s+)?0?777\b": "everyone may write",
    r"/tmp/\w": "a name in /tmp that others can guess",
    r"\brm\s+-\w*r\w*\s+[\"']?\$\{?\w+\}?[\"']?/": "rm -r below a variable that may be empty",
}


def shell_faults(text: str) -> list[str]:
    """What a shell script holds that it must not: calls by pattern, and variables outside of quotes."""
    lines = [re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines()]
    found = [what for line in lines for pattern, what in SHELL_NEVER.items() if re.search(pattern, line)]
    return found + [f"unquoted {name}" for line in lines for name in unquoted(line)]


def unquoted(line: str) -> list[str]:
    """Variables and substitutions of a line that the shell would split into words. Assignments are not split, nor is
    ``${NAME:+"..."}`` meant to be one word; inside $( ) quoting begins anew."""
    line = re.sub(r"'[^']*'", "''", line)
    found: list[str] = []
    quoted, stack = False, list[bool]()
    at = 0
    while at < len(line):
        sign = line[at]
        if sign == "\\":
            at += 2
            continue
        if sign == '"':
            quoted = not quoted
        elif line.startswith("$(", at):
            if not quoted and not _is_assigned(line, at):
                found.append("$(")
            stack.append(quoted)
            quoted, at = False, at + 1
        elif sign == ")" and stack:
            quoted = stack.pop()
        elif sign == "$" and not quoted:
            name = re.match(r"\$(\{[A-Za-z_]\w*:?\+|\{?[A-Za-z_@*1-9]\w*)", line[at:])
            if name and not name[1].endswith("+") and not _is_assigned(line, at):
                found.append(name[0])
        at += 1
    return found


def _is_assigned(line: str, at: int) -> bool:
    return bool(re.search(r"(^|[\s;])[A-Za-z_]\w*=[^\s\"]*$", line[:at])) or bool(re.search(r"\bcase\s+$", line[:at]))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_quote_what_they_are_given(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not shell_faults(text)
    assert "set -euo pipefail" in text or len([line for line in text.splitlines() if line and line[0] != "#"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "eval $x",
        'eval "$x"',
        "echo `ls`",
        "curl https://x | sh",
        "wget -O - x | bash",
        "rm $x",
        "ls ${x}",
        "ls $(cat x)",
        'ls "$a" $b',
        'bash -c "$x"',
        "chmod 777 x",
        "echo x > /tmp/x",
        'rm -rf "$x"/y',
        "source $x",
        'ls "$(ls $x)"',
        "for i in $@; do",
        "ls $1",
    ],
)
def test_a_shell_rule_bites(text: str) -> None:
    assert shell_faults(text)


@pytest.mark.parametrize(
    "text",
    [
        'ls "$x"',
        "x=$1",
        'x=$(ls "$1")',
        'ls "$(dirname "$0")/x" "$@"',
        "echo '$x'",
        '${W:+--workers "$W"}',
        ': "${X:?say it}"',
        "# ls $x",
        'if [ -n "${X:-}" ]; then',
        "echo \\$x",
        'evaluate "$x"',
        "exit $?",
        'rm -rf "$x"',
        "bash run.sh",
    ],
)
def test_a_shell_rule_lets_pass_what_is_quoted(text: str) -> None:
    assert not shell_faults(text)


def test_the_makefile_evaluates_and_downloads_nothing() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not [what for pattern, what in SHELL_NEVER.items() if re.search(pattern, text) and what != "backticks"]
    assert "$(eval" not in text
    assert "$(shell" not in text


# ------------------------------------------------------------------------------------------------------------- the page

SITE = ROOT / "benchmarks" / "report" / "site"
PAGE_NEVER = {
    "markup from a text": r"\.(inner|outer)HTML|insertAdjacentHTML|createContextualFragment|srcdoc|DOMParser",
    "writing the document": r"document\.write",
    "code from a text": r"(?<![\w.])eval\s*\(|new\s+Function|(?<!\w)Function\s*\(|import\s*\(",
    "code from a text, later": r"set(Timeout|Interval)\s*\(\s*[\"'`]",
    "an address that is code": r"javascript:",
    "a handler as an attribute": r"setAttribute\(\s*[\"'`]on|\son\w+\s*=\s*[\"']",
    "a request": r"(?<![\w.])fetch\s*\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|new\s+Worker",
    "what stays in the browser": r"document\.cookie",
    "another window": r"window\.open|postMessage",
}
POLICY = (
    "default-src 'none'",
    "script-src $script_hash",
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
)


def page_faults(text: str) -> list[str]:
    """What a source of the page holds that it must not; comments do not count."""
    bare = re.sub(r"(^|\s)//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    return [what for what, pattern in PAGE_NEVER.items() if re.search(pattern, bare)]


@pytest.mark.parametrize("path", sorted((*SITE.glob("*.js"), SITE / "page.html")), ids=lambda p: p.name)
def test_the_page_makes_no_markup_and_no_code_of_texts(path: Path) -> None:
    assert not page_faults(path.read_text(encoding="utf-8"))


def test_the_page_forbids_it_once_more() -> None:
    text = (SITE / "page.html").read_text(encoding="utf-8")
    assert all(rule in text for rule in POLICY)
    assert "unsafe" not in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)


@pytest.mark.parametrize(
    "text",
    [
        "node.innerHTML = text",
        "node.outerHTML=x",
        "document.write(x)",
        "eval(x)",
        "new Function(x)",
        "setTimeout('x()', 1)",
        "a.href = 'javascript:' + x",
        "node.setAttribute('onclick', x)",
        '<b onclick="x">',
        "fetch(x)",
        "new XMLHttpRequest()",
        "import(x)",
        "node.insertAdjacentHTML('a', x)",
        "document.cookie",
        "window.open(x)",
    ],
)
def test_a_page_rule_bites(text: str) -> None:
    assert page_faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "node.textContent = text",
        "node.append(text)",
        "medieval(x)",
        "setTimeout(() => x(), 1)",
        "// never eval(x)",
        "model.eval(x)",
        "prefetch(x)",
        "node.setAttribute(name, x)",
        "node.addEventListener('click', x)",
        "/* document.write */",
    ],
)
def test_a_page_rule_lets_pass_what_is_text(text: str) -> None:
    assert not page_faults(text)


READERS: dict[str, Callable[[str], list[str]]] = {
    ".py": faults,
    ".sh": shell_faults,
    ".js": page_faults,
    ".html": page_faults,
}


def test_every_kind_of_source_has_its_rules() -> None:
    """A new language in the tree needs rules of its own before it comes in."""
    known = {*READERS, ".yaml", ".toml", ".md", ".css", ".txt", ".cfg", ""}
    kinds = {path.suffix for folder in PACKAGES for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert kinds - {".pyc", ".typed"} <= known, kinds - known
