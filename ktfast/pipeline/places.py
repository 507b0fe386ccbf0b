"""Refuse a run folder, or a folder of shared results, that would mix with the user's photographs.

A run writes files into its folder, and `--redo` removes folders of stages in it. Photographs and
the files of a run therefore lie in different places.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ktfast.config import Config
from ktfast.errors import ConfigError, shown
from ktfast.pipeline.stage_names import PARTS, STAGES


def check_places(folder: Path, config: Config, shared: Path | None = None) -> None:
    """Refuse a run folder that is, or lies in, a folder of photographs, or the reverse.

    Photographs may lie below the run folder, but not in the folder of a stage.

    Parameters
    ----------
    folder : Path
        The run folder, which need not exist.
    config : Config
        Every option.
    shared : Path, optional
        Folder of results that several runs share. It may lie below the run folder, but not in the
        folder of a stage.

    Raises
    ------
    ConfigError
        The places mix. The message names the option and both folders.
    """
    run = Path(os.path.realpath(folder))
    if shared is not None:
        _check_shared(shared, folder, config)
    for option, given in _folders(config):
        photographs = Path(os.path.realpath(given))
        if run == photographs:
            raise ConfigError(
                f"the run folder {shown(folder)} is also {option}: a run writes and removes files "
                "in its folder; give another folder for the run, such as "
                f"{shown(_beside(photographs))}"
            )
        if not option.startswith("voc.") and photographs in run.parents:
            raise ConfigError(
                f"the run folder {shown(folder)} lies in {option} ({shown(given)}), so its files "
                "would count as files of the image folder; give a folder outside, such as "
                f"{shown(_beside(photographs))}"
            )
        for stage in (*STAGES, *PARTS):
            if run / stage in (photographs, *photographs.parents):
                raise ConfigError(
                    f"{option} ({shown(given)}) lies in {shown(folder / stage)}, which the stage "
                    f"{stage} writes and removes; give another folder for the run, or move the "
                    "images"
                )


def _check_shared(shared: Path, folder: Path, config: Config) -> None:
    """Refuse a folder of shared results that mixes with the run or with photographs."""
    place, run = (Path(os.path.realpath(each)) for each in (shared, folder))
    stages = {run / stage for stage in (*STAGES, *PARTS)}
    if run == place or not stages.isdisjoint((place, *place.parents)):
        raise ConfigError(
            f"the folder of shared results {shown(shared)} mixes with the run folder "
            f"{shown(folder)}; give another folder as shared"
        )
    for option, given in _folders(config):
        photographs = Path(os.path.realpath(given))
        if not option.startswith("voc.") and photographs in (place, *place.parents):
            raise ConfigError(
                f"the folder of shared results {shown(shared)} lies in {option} ({shown(given)}), "
                "so its files would count as files of the image folder; give a folder outside"
            )


def _folders(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the name and the value of each option that names a folder of photographs."""
    for role in type(config.data).model_fields:
        if isinstance(given := getattr(config.data, role), Path):
            yield f"data.{role}", given
    for name, images in config.evaluate.sets.items():
        yield f"evaluate.sets.{name}.train", images.train
        yield f"evaluate.sets.{name}.test", images.test
    for protocol in config.voc.protocols():
        yield f"voc.{protocol}.folder", getattr(config.voc, protocol).folder


def _beside(photographs: Path) -> Path:
    return photographs.with_name(f"{photographs.name}-run")
