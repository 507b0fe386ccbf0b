"""The command line: help, flags, and sentences for mistakes; nothing is run."""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

import ktfast
from ktfast.cli import doctor
from ktfast.cli.doctor import examine
from ktfast.cli.main import _COMMANDS, main
from ktfast.cli.options import overrides, parse
from ktfast.cli.replaced_options import replaced
from ktfast.cli.stage_help import section_of
from ktfast.config import load_config, options
from ktfast.errors import ConfigError
from ktfast.pipeline.run_folder import to_toml
from ktfast.pipeline.stage_names import STAGES
from ktfast.remote import argument_path


def test_a_stage_takes_its_own_options_without_their_section():
    parsed = parse(["cluster", "--run", "r", "--n_clusters", "5", "--data.quality=90"])
    assert overrides(parsed) == {"cluster.n_clusters": "5", "data.quality": "90"}
    assert (parsed.command, parsed.stages, parsed.redo) == ("stages", ["cluster"], [])
    assert parse(["run", "--run", "r", "--redo", "cluster"]).stages == list(STAGES)


@pytest.mark.parametrize(
    ("command", "flag", "meant"),
    [
        ("run", "--n_clusterz", ["cluster.n_clusters"]),
        ("run", "--cluster.tool", ["cluster.tol"]),
        ("run", "--clusters", ["cluster.n_clusters"]),
        ("cluster", "--clusters", ["cluster.n_clusters"]),
        ("run", "--n-clusters", ["cluster.n_clusters"]),
        ("run", "-k", ["cluster.n_clusters"]),
        ("run", "--cluster.k", ["cluster.n_clusters"]),
        ("run", "--cluster.n_cluster", ["cluster.n_clusters"]),
        ("transfer", "--epochs", ["transfer.training.epochs"]),
        ("pretext", "--lr", ["pretext.training.learning_rate"]),
        ("run", "--images", ["data.pretext"]),
        ("run", "--gpu", ["device"]),
        ("run", "--rum", ["run"]),
        ("run", "--completely_else", []),
    ],
)
def test_the_flag_that_was_meant_is_guessed(command, flag, meant):
    with pytest.raises(ConfigError) as caught:
        parse([command, "--run", "r", flag, "5"])
    hint = "".join(f"; did you mean --{name}?" for name in meant)
    assert str(caught.value) == f"unknown argument {flag}{hint}"


def test_an_entry_of_a_table_is_explained():
    message = r"unknown argument --evaluate\.sets\.two\.train: give the whole table, as in --ev"
    with pytest.raises(ConfigError, match=message + r".* '\{two = \{train = \.\.\.\}\}'$"):
        parse(["evaluate", "--run", "r", "--evaluate.sets.two.train", "5"])


def test_only_a_table_has_entries():
    with pytest.raises(ConfigError, match=r"features\.layr; did you mean --features\.layer\?"):
        parse(["cluster", "--run", "r", "--features.layr", "conv5"])
    with pytest.raises(ConfigError, match=r"trunk\.width; did you mean --pretext\.width\?"):
        parse(["pretext", "--run", "r", "--trunk.width", "2"])


def test_equally_likely_flags_are_all_named():
    with pytest.raises(ConfigError) as caught:
        parse(["run", "--run", "r", "--epochs", "5"])
    assert str(caught.value) == (
        "unknown argument --epochs; did you mean --pretext.training.epochs, "
        "--transfer.training.epochs or --voc.classification.training.epochs?"
    )


def test_flags_and_names_of_other_commands_are_guessed_too():
    with pytest.raises(ConfigError, match=r"unknown argument --inits; did you mean --init\?"):
        parse(["kmeans", "x.npy", "-k", "3", "-o", "y.npy", "--inits", "5"])
    with pytest.raises(ConfigError, match=r"no command 'clust'; did you mean cluster\? The comm"):
        parse(["clust"])


def shown_by(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("stage", ["run", *STAGES])
def test_the_help_of_a_stage_is_one_screen_of_its_own_options(stage, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = shown_by(capsys, stage, "--help")
    lines = shown.splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 80
    assert not re.search(r"\d\n +(\d|e-)", shown)  # no line ends in the middle of a number
    own = section_of(stage)
    for name, (kind, _, _) in options().items():
        leaf = name.removeprefix(f"{own}.")
        if leaf == name:
            continue
        assert re.search(rf"\b{re.escape(leaf.rpartition('.')[2])}\b", shown), name
        for choice in get_args(kind) if get_origin(kind) is Literal else ():
            assert str(choice) in shown, (name, choice)
    assert "tiny_cpu" in shown
    assert "--help-all" in shown


def test_the_full_help_of_a_stage_describes_every_option(capsys):
    shown = shown_by(capsys, "transfer", "--help-all")
    assert all(f"--{name}" in shown for name in options())
    for _, _, text in options().values():
        assert " ".join(text.split()[:3]) in " ".join(shown.split())


def test_the_help_loads_neither_torch_nor_pydantic():
    code = (
        "import sys\nfrom ktfast.cli.main import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_missing_package_is_named_with_its_remedy(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(_COMMANDS, "report", lambda _: __import__("missing_"))
    assert main(["report", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == (
        "ktfast: missing_ is not installed, and this command needs it: "
        'pip install "ktfast[train]"\n'
    )


def test_a_public_name_names_the_missing_package_with_its_remedy(monkeypatch):
    monkeypatch.setitem(ktfast._HOMES, "load", "missing_.module")
    monkeypatch.delitem(vars(ktfast), "load", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        _ = ktfast.load
    assert str(caught.value) == (
        'missing_ is not installed, and ktfast.load needs it: pip install "ktfast[train]"'
    )
    assert caught.value.name == "missing_"


def test_the_doctor_says_what_each_process_of_torchrun_gets(monkeypatch):
    assert list(doctor._processes(8)) == []
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    (starved,) = doctor._processes(8)
    assert not starved.on
    assert "process 1 of 2 has 1 of 8 cores, because OMP_NUM_THREADS=1" in starved.detail
    assert starved.detail.endswith("start torchrun with OMP_NUM_THREADS=4")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    (fed,) = doctor._processes(8)
    assert fed.on
    assert fed.detail == "process 1 of 2 has 4 of 8 cores (OMP_NUM_THREADS=4)"


def test_the_doctor_says_how_to_install_what_is_missing():
    for finding in examine():
        assert finding.on or finding.detail
        if not finding.on and "pip install" in finding.detail:
            assert "ktfast[" in finding.detail or finding.name == "tensorboard"


def test_a_configuration_that_replaces_the_runs_own_options_is_reported(tmp_path):
    own = tmp_path / "config.toml"
    options = {"cluster.n_clusters": 20, "cluster.max_iter": 9, "data.pretext": "photos"}
    own.write_text(to_toml(load_config("tiny_cpu", options)))
    config = load_config("tiny_cpu", {"cluster.max_iter": 8})
    changes = replaced(own, config, {"cluster.max_iter"})
    assert re.fullmatch(
        r"cluster\.n_clusters was 20, is now 200; data\.pretext was '.*photos', is not set", changes
    )
    assert replaced(own, load_config("tiny_cpu", options), {}) == ""
    own.write_text("[damaged")
    assert replaced(own, config, {}) == ""


def types_of(parser):
    """The type of every argument of a parser and of its sub-commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                yield from types_of(choice)
        else:
            yield action.type


@pytest.mark.parametrize("command", ["run", "sweep", "bench kmeans", "bench feed", "bench train"])
def test_every_path_is_read_by_one_function(command, monkeypatch):
    parsers = []
    parser = argparse.ArgumentParser
    monkeypatch.setattr(parser, "parse_known_args", lambda self, _: (parsers.append(self), []))
    parse(command.split())
    found = list(types_of(parsers[0]))
    assert argument_path in found
    assert Path not in found


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "--run", ""],
        ["demo", "--run", ""],
        ["compare", "a", "--out", ""],
        ["sweep", "--vary", "seed=0", "--out="],
        ["kmeans", "a.npy", "-k", "2", "-o", ""],
        ["embed", "", "photos", "-o", "a.npz"],
    ],
)
def test_an_empty_path_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(words)
    assert "the path is empty; give a file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "a", "--out=~/x"],
        ["sweep", "--vary", "seed=0", "--out=~/x"],
        ["kmeans", "a.npy", "-k", "2", "--out=~/x"],
        ["export", "a", "--out=~/x"],
        ["demo", "--run=~/x"],
    ],
)
def test_a_tilde_in_a_path_is_the_home_folder(words, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parsed = vars(parse(words))
    assert Path("/home/me/x") in (parsed.get("out"), parsed.get("run"))


def test_the_help_of_a_sweep_fits_one_screen(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["sweep", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 80
    assert "`ktfast run --help`" in " ".join(" ".join(lines).split())
    assert overrides(parse(["sweep", "--vary", "seed=0", "--out", "a", "--threads", "1"]))
