"""The command line: help, flags, and sentences for mistakes; nothing is run."""

import subprocess
import sys

import pytest

from ktfast.cli.doctor import examine
from ktfast.cli.main import _COMMANDS, main
from ktfast.cli.options import overrides, parse
from ktfast.config import options
from ktfast.errors import ConfigError
from ktfast.pipeline.runner import STAGES


def test_a_stage_takes_its_own_options_without_their_section():
    parsed = parse(["cluster", "--run", "r", "--n_clusters", "5", "--data.quality=90"])
    assert overrides(parsed) == {"cluster.n_clusters": "5", "data.quality": "90"}
    assert (parsed.command, parsed.stages, parsed.redo) == ("stages", ["cluster"], [])
    assert parse(["run", "--run", "r", "--redo", "cluster"]).stages == list(STAGES)


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--n_clusterz", "--cluster.n_clusters"), ("--cluster.tool", "--cluster.tol")],
)
def test_a_flag_with_a_typo_is_guessed(flag, meant):
    with pytest.raises(ConfigError, match=f"unknown argument {flag}; did you mean {meant}"):
        parse(["run", "--run", "r", flag, "5"])


def test_the_help_of_a_stage_shows_every_option(capsys):
    with pytest.raises(SystemExit):
        parse(["transfer", "--help"])
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in options())
    assert "tiny_cpu" in shown


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


def test_the_doctor_says_how_to_install_what_is_missing():
    for finding in examine():
        assert finding.on or finding.detail
        if not finding.on and "pip install" in finding.detail:
            assert "ktfast[" in finding.detail or finding.name == "tensorboard"
