"""The README tells the truth about files, commands and code; no document names a missing file."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from kscout.cli import app
from kscout.experiment import load_experiment
from kscout.experiment.active import load_active

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
MAPPED = ("src/kscout", "configs", "benchmarks", "examples")
FOLDERS = (*MAPPED, "docs", "tests", "src", "results")


def map_entries() -> list[str]:
    """The paths in the README's map: indented below the folder that they are in."""
    text = README.split("## Where things are")[1].split("\n## ")[0]
    entries, folder = [], ""
    for line in re.findall(r"^    .*$", text, re.MULTILINE):
        name, _, said = line.strip().partition(" ")
        if name.endswith("/"):
            folder = name
        else:
            assert said.strip(), f"the map says nothing about {name}"
            entries.append(folder + name)
    return entries


def test_the_map_has_every_file_once() -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in MAPPED
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    entries = map_entries()
    assert sorted(entries) == sorted(files)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", text)
    paths = [document.parent / link for link in links]
    for folder in FOLDERS:
        found = re.findall(rf"(?<![\w/.-]){folder}/[\w./-]*\w", text)
        paths += [ROOT / name for name in found]
    for name in re.findall(r"`([a-z_]+/[a-z_]+\.py)`", text):  # short for src/kscout/...
        if name.split("/")[0] not in FOLDERS:
            paths.append(ROOT / "src" / "kscout" / name)
    assert {path.relative_to(ROOT).as_posix() for path in paths if not path.exists()} == set()


def commands() -> list[str]:
    """Every command of the README and the documents, without its comment."""
    lines = [line for path in DOCUMENTS for line in path.read_text("utf-8").splitlines()]
    typed = [line.split("  #")[0].strip() for line in lines if line.startswith("    kscout ")]
    inline = [c for path in DOCUMENTS for c in re.findall(r"`(kscout \S[^`]*)`", path.read_text())]
    return typed + inline


def test_every_command_is_shown() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        for words in (
            [f"{name} {below}" for below in command.commands]
            if isinstance(command, TyperGroup)
            else [name]
        ):
            assert f"\n    kscout {words} " in README


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    given = command.make_context(line, words).params
    if "config" in given:
        load = load_active if " acquire " in line else load_experiment
        load(given["config"], given["overrides"] or [])


def test_python_code_is_the_example() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    example = (ROOT / "examples" / "python_api.py").read_text(encoding="utf-8")
    assert example.endswith(code)


def test_results_can_be_filled_in() -> None:
    assert README.count("<!-- results:begin -->") == README.count("<!-- results:end -->") == 1
