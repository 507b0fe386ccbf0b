"""A run folder that would mix with the user's photographs is refused before anything is written."""

import os

import pytest

from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.errors import ConfigError
from ktfast.pipeline.places import check_places


def paths_below(folder):
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos/cats").mkdir(parents=True)
    (tmp_path / "photos/cats/1.jpg").write_bytes(b"a photograph")
    os.symlink(tmp_path / "photos", tmp_path / "link")
    return tmp_path / "photos"


@pytest.mark.parametrize("role", ["pretext", "test"])
@pytest.mark.parametrize("run", ["photos", "link", "photos/../photos", "photos/run", "link/cats/a"])
@pytest.mark.parametrize("command", ["run", "cluster"])
def test_a_run_folder_among_the_photographs_is_refused(
    photos, tmp_path, run, role, command, capsys
):
    before = paths_below(tmp_path)
    assert main([command, "--run", str(tmp_path / run), f"--data.{role}", str(photos)]) == 2
    message = capsys.readouterr().err
    assert f"the run folder {tmp_path / run} " in message
    assert f"data.{role}" in message
    assert f"such as {photos}-run" in message
    assert paths_below(tmp_path) == before


@pytest.mark.parametrize("place", ["features", "prepare/cats", "baseline_labels"])
def test_photographs_in_a_stage_s_folder_are_refused(tmp_path, place):
    config = load_config(None, {"data.pretext": "photos", "data.test": str(tmp_path / place)})
    with pytest.raises(ConfigError, match=rf"data.test \(.*{place}\) lies in .* writes and remov"):
        check_places(tmp_path, config)


def test_a_folder_of_voc_is_no_run_folder(tmp_path):
    config = load_config(None, {"voc.detection.folder": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"is also voc.detection.folder"):
        check_places(tmp_path, config)


def test_photographs_below_or_beside_the_run_folder_are_fine(photos, tmp_path):
    config = load_config(None, {"data.pretext": str(photos)})
    for run in (tmp_path, tmp_path / "run", tmp_path / "photos-run", tmp_path / "cats"):
        check_places(run, config)


@pytest.mark.parametrize("place", ["run", "run/cluster", "run/prepare/a", "photos", "link/cats"])
def test_shared_results_among_other_files_are_refused(photos, tmp_path, place):
    config = load_config(None, {"data.pretext": str(photos)})
    with pytest.raises(ConfigError, match=r"^the folder of shared results .*give "):
        check_places(tmp_path / "run", config, tmp_path / place)
    check_places(tmp_path / "run", config, tmp_path / "run/shared")


def test_a_file_is_no_folder_of_shared_results(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    command = ["prepare", "--run", str(tmp_path / "run"), "--data.pretext", str(photos)]
    assert main([*command, "--shared", str(tmp_path / "file")]) == 2
    assert "file is a file; give a folder for the shared results" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
