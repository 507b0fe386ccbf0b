"""The configuration: what it accepts, what it refuses and how it says so."""

from pathlib import Path

import pytest

from ktfast.config import (
    ClusterConfig,
    Config,
    TrainingConfig,
    differences,
    load_config,
    options,
    parse_config,
    result_options,
)
from ktfast.config.run import RECIPES, tomllib
from ktfast.errors import ConfigError
from ktfast.pipeline.run_folder import to_toml

SHIPPED = sorted(RECIPES.glob("*.toml"))


def test_defaults_are_the_papers():
    config = Config()
    assert (config.pretext.permutations, config.pretext.crop, config.pretext.tile_size) == (
        701,
        255,
        64,
    )
    assert (config.pretext.gray_probability, config.pretext.max_occluders) == (0.7, 2)
    assert config.cluster.n_clusters == 2000
    assert config.pretext.training.batch_size == 256


@pytest.mark.parametrize("recipe", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_found_by_its_name(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(recipe.stem) == load_config(recipe)
    assert load_config(recipe.stem) != Config()


def test_a_file_goes_before_a_shipped_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_cpu").write_text("seed = 5\n")
    assert load_config("tiny_cpu") == Config(seed=5)


def test_values_of_python_are_used_unchanged():
    config = load_config(
        None,
        {
            "cluster.n_clusters": 5,
            "pretext.batch_norm": True,
            "pretext.jitter": None,
            "data.pretext": Path("photographs"),
            "evaluate.layers": ["conv1"],
            "transfer.width": 0.5,
            "transfer": {"dropout": 0.25, "training": {"epochs": 3}},
        },
    )
    assert config.cluster.n_clusters == 5
    assert config.pretext.batch_norm is True
    assert config.data.pretext == Path("photographs")
    assert config.evaluate.layers == ("conv1",)
    assert (config.transfer.width, config.transfer.dropout) == (0.5, 0.25)
    assert config.transfer.training.epochs == 3


def test_toml_round_trip(tmp_path):
    config = load_config(None, {"data.pretext": str(tmp_path), "pretext.jitter": "7"})
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "config.toml") == config


def test_relative_folders_are_written_as_absolute_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {"data.pretext": "photos", "cluster.features": "x.npy"})
    written = tomllib.loads(to_toml(config))
    assert written["data"]["pretext"] == str(tmp_path / "photos")
    assert written["cluster"]["features"] == str(tmp_path / "x.npy")


def test_overrides_are_read_as_toml(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("seed = 4\n[pretext.training]\nepochs = 3\n")
    config = load_config(
        path,
        {
            "pretext.training.epochs": "0.5",
            "evaluate.layers": '["conv1", "conv2"]',
            "data.pretext": "some folder/ü",
            "pretext.batch_norm": "true",
        },
    )
    assert config.seed == 4
    assert config.pretext.training.epochs == 0.5
    assert config.evaluate.layers == ("conv1", "conv2")
    assert config.data.pretext == Path("some folder/ü")
    assert config.pretext.batch_norm is True


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("data.pretext", "2018", Path("2018")),
        ("data.pretext", "true", Path("true")),
        ("data.test", "", None),
        ("features.layer", "", ""),
        ("features.source", "nan", "nan"),
        ("evaluate.layers", "conv1, conv2", ("conv1", "conv2")),
        ("evaluate.baselines", "random", ("random",)),
        ("evaluate.baselines", "", ()),
        ("pretext.training.drop_at", "0.3,0.6", (0.3, 0.6)),
        ("pretext.jitter", "", None),
        ("data.hw_decoder_load", "0.8", 0.8),
        ("data.hw_decoder_load", "", None),
        ("transfer.target", "vgg16", "vgg16"),
    ],
)
def test_overrides_are_read_by_the_type_of_their_option(name, text, value):
    section, _, leaf = name.rpartition(".")
    found = load_config(None, {name: text})
    for part in [*section.split("."), leaf]:
        found = getattr(found, part)
    assert found == value


def test_a_group_given_in_part_keeps_its_other_defaults():
    """Those of its place, not those of its kind."""
    config = parse_config({"voc": {"classification": {"training": {"batch_size": 8}}}})
    training = config.voc.classification.training
    assert (training.batch_size, training.learning_rate, training.clip_norm) == (8, 0.001, 10)
    assert load_config(None, {"transfer.training.batch_size": "8"}).transfer.training.epochs == 90


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("voc.detection.short_sides", "480", (480,)),
        ("voc.detection.short_sides", "480,576", (480, 576)),
        ("evaluate.label_fractions", "0.1", (0.1,)),
    ],
)
def test_a_list_of_one_needs_no_brackets(name, text, value):
    config = load_config(None, {name: text})
    for part in name.split("."):
        config = getattr(config, part)
    assert config == value


def test_a_section_that_is_no_table_is_named(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("data = 3\n")
    with pytest.raises(ConfigError, match="data must be a table"):
        load_config(path, {"data.pretext": "a"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pretext": {"widht": 1}}, "unknown option pretext.widht; did you mean pretext.width"),
        ({"epochs": 3}, "unknown option epochs; did you mean pretext.training.epochs"),
        ({"cluster": {"n_clusters": 1}}, "cluster.n_clusters"),
        ({"pretext": {"tile_size": 90}}, "does not fit a cell of 85 px"),
        ({"pretext": {"max_occluders": 3}}, "max_occluders 3"),
        (
            {"data": {"short_side": 200}},
            "pretext.crop 255 px is larger than data.short_side 200",
        ),
        ({"transfer": {"crop": 300}}, "crop 300 px is larger than image_size 256"),
        ({"data": {"hw_decoder_load": 65}}, "data.hw_decoder_load: .* less than or equal to 1"),
        ({"device": "gpu"}, "expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "auto:1"}, "got 'auto:1'"),
        ({"seed": 2**32}, "seed: .* less than 4294967296"),
        ({"seed": True}, "seed: expected a number, got true"),
        ({"evaluate": {"label_counts": [True]}}, "label_counts: expected a number, got true"),
        ({"cluster": {"tol": False}}, r"cluster\.tol: expected a number, got false"),
        ({"pretext": {"training": {"epochs": float("inf")}}}, "epochs: .* finite"),
        ({"transfer": {"target": "resnet"}}, "transfer.target"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        parse_config(values)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no configuration file .*absent.* tiny_cpu"):
        load_config(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = = 3")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load_config(broken)
    for content in (b"seed = 3 # caf\xe9", b"seed = " + b"[" * 100_000, b"\xff\xfe\x00"):
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match=r"broken\.toml cannot be read as TOML .*; "):
            load_config(broken)
    with pytest.raises(ConfigError, match=r"cannot be read as TOML .*it is a folder"):
        load_config(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "c.toml").write_text('seed = 3\ndata.pretext = "é"\n', encoding)
    config = load_config(tmp_path / "c.toml")
    assert (config.seed, config.data.pretext) == (3, Path("é"))


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "c.toml"
    path.write_text('data.pretext = "~/a"\nfeatures.source = "~b"\ndata.test = "c~/~"\n')
    config = load_config(path, {"voc.detection.folder": "~", "data.cluster": Path("~/d")})
    assert config.data.pretext == tmp_path / "a"
    assert config.data.cluster == tmp_path / "d"
    assert config.data.test == Path("c~/~")
    assert config.voc.detection.folder == tmp_path
    assert config.features.source == "~b"


def test_an_empty_path_means_not_set(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[data]\ntrain = ""\n')
    assert load_config(path).data.train is None
    sets = {"other": {"train": "", "test": "photographs"}}
    with pytest.raises(ConfigError, match=r"evaluate\.sets\.other\.train: the path is empty"):
        parse_config({"evaluate": {"sets": sets}})


def test_class_names_differ():
    with pytest.raises(ConfigError, match=r"voc\.classes: .*each name once, got cat several"):
        parse_config({"voc": {"classes": ["cat", "dog", "cat"]}})


def test_roles_default_to_the_role_before():
    config = load_config(None, {"data.pretext": "a", "data.transfer": "b"})
    assert config.data.folders() == {
        "pretext": Path("a"),
        "cluster": Path("a"),
        "transfer": Path("b"),
        "train": Path("b"),
    }


def test_every_option_is_documented():
    undocumented = [name for name, (_, _, text) in options().items() if not text]
    assert not undocumented
    assert tomllib.loads(to_toml(Config()))["pretext"]["training"]["batch_size"] == 256


def test_options_that_do_not_change_results_are_left_out():
    cluster = load_config(None, {"cluster.features": "x.npy", "cluster.memory_budget_gb": "3"})
    assert result_options(cluster.cluster) == result_options(Config().cluster)
    assert set(ClusterConfig.model_fields) - result_options(Config().cluster).keys() == {
        "features",
        "link",
        "memory_budget_gb",
        "pca",  # has no effect with cluster.normalize = "l2"
    }
    training = TrainingConfig(log_every=1, checkpoint_minutes=1, tensorboard=True)
    assert result_options(training) == result_options(TrainingConfig())
    assert result_options(TrainingConfig(epochs=1)) != result_options(TrainingConfig())


def test_the_rule_holds_for_nested_sections_and_options_without_effect():
    options = result_options(Config().pretext)["training"]
    assert "log_every" not in options
    assert "drop_at" in options
    cosine = result_options(load_config(None, {"pretext.training.schedule": "cosine"}).pretext)
    assert "drop_at" not in cosine["training"]


def test_differences_are_named_by_their_path():
    before = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert list(differences(before, before)) == []
    assert list(differences(before, {"a": {"b": 3, "c": [1]}, "e": 0})) == [
        ("a.b", 1, 3),
        ("d", 2, None),
        ("e", None, 0),
    ]


def test_defaults_decide_what_a_missing_value_means():
    defaults = {"a": 1, "b": {"c": 2}, "gone": 0}
    same = {"a": 1, "b": {"c": 2}}
    # An earlier version did not know a and b.c; "gone" has no effect now; nobody recorded "new".
    assert list(differences({"b": {}, "gone": 5}, {**same, "new": 3}, defaults=defaults)) == []
    assert list(differences({"b": {}}, {"a": 2, "b": {"c": 3}}, defaults=defaults)) == [
        ("a", 1, 2),
        ("b.c", 2, 3),
    ]
    # A later version recorded an option that this version does not know.
    assert list(differences({"later": 1}, {}, defaults=defaults)) == [("later", 1, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features.source": "hog", "features.layer": "conv3"}, "hog does not use layer"),
        ({"features.source": "a:b", "features.pool": 3}, "a:b does not use pool"),
        ({"features.source": "a:b", "features.pooling": "mean"}, "does not use pooling"),
        ({"features.source": "hog", "features.weights": "w"}, "hog does not use weights"),
        ({"features.source": "a:b", "features.precision": "float32"}, "does not use precision"),
        ({"features.source": "torchvision:resnet18", "features.layer": "x"}, "not use layer"),
        ({"transfer.target": "vgg16", "transfer.variant": "torchvision"}, "target is vgg16"),
        ({"data.feed": "torch", "data.hw_decoder_load": 0.5}, "the feed is torch"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, options)
    weights = {"features.source": "torchvision:resnet18", "features.weights": "w"}
    assert load_config(None, weights).features.weights == Path("w")


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"features.source": "hog"}, "features.layer, features.pool"),
        (
            {"transfer.target": "torchvision:resnet18"},
            "transfer.batch_norm, transfer.width",
        ),
        ({"pretext.task": "rotation"}, "pretext.permutations, pretext.puzzles_per_image"),
    ],
)
def test_an_override_frees_from_the_options_of_a_recipe(given, left_out, caplog):
    with caplog.at_level("INFO", "ktfast"):
        config = load_config("tiny_cpu", given)
    section, name = next(iter(given)).split(".")
    assert getattr(getattr(config, section), name) == next(iter(given.values()))
    assert f"left out: {left_out}" in caplog.text
    caplog.clear()
    load_config("tiny_cpu", {"seed": 1})
    assert caplog.text == ""


def test_what_one_source_says_twice_is_refused(tmp_path):
    """An override beside an override, and an option of a file beside an option of the file."""
    with pytest.raises(ConfigError, match="does not use layer"):
        load_config("tiny_cpu", {"features.source": "hog", "features.layer": "conv4_3"})
    file = tmp_path / "options.toml"
    file.write_text('[features]\nsource = "hog"\nlayer = "conv4_3"\n')
    with pytest.raises(ConfigError, match="does not use layer"):
        load_config(file, {"seed": 1})
