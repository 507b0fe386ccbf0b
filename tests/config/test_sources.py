"""`features.source` names one teacher or several, each perhaps with a layer."""

import pytest

from ktfast.config import load_config
from ktfast.config.sources import read_source
from ktfast.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("pretext", [("pretext", "", "")]),
        ("pretext@conv3", [("pretext", "", "conv3")]),
        ("hog", [("hog", "", "")]),
        ("torchvision:resnet18", [("torchvision", "resnet18", "")]),
        ("torchvision:resnet18@layer3.0", [("torchvision", "resnet18", "layer3.0")]),
        ("timm:vit_tiny.augreg@blocks.3", [("timm", "vit_tiny.augreg", "blocks.3")]),
        ("hf:facebook/dinov2-small", [("hf", "facebook/dinov2-small", "")]),
        ("my.module:f", [("function", "my.module:f", "")]),
        ("hog  +  a:f", [("hog", "", ""), ("function", "a:f", "")]),
        ("sift", [("", "", "")]),
        ("hog@x", [("", "", "x")]),
        ("pretext@", [("", "", "")]),
        ("timm:@x", [("", "", "x")]),
        ("timm:a@", [("", "a", "")]),
        ("hog+a:f", [("", "hog+a:f", "")]),
    ],
)
def test_names_of_teachers(source, expected):
    assert [(part.kind, part.name, part.layer) for part in read_source(source)] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "hog + hog"}, "names hog twice"),
        ({"source": "hog", "part_pca": 8}, "hog does not use part_pca"),
        ({"normalization": "imagenet"}, "give features.weights"),
        ({"source": "hf:a/b", "weights": "w"}, "hf:a/b does not use weights"),
        ({"source": "hog + a:f", "precision": "float32"}, "does not use precision"),
        ({"source": "pretext + timm:a", "weights": "w"}, r"one file.*2 networks.*pretext, timm:a"),
        ({"source": "pretext@conv3", "layer": "conv4"}, "does not use layer"),
    ],
)
def test_options_that_do_not_fit_the_teachers_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, {f"features.{name}": value for name, value in options.items()})


def test_teachers_share_options():
    given = {"features.source": "pretext@conv3 +  pretext@conv5", "features.weights": "w"}
    features = load_config(None, given).features
    assert features.source == "pretext@conv3 + pretext@conv5"
    assert not features.learns
    layered = {"features.source": "torchvision:resnet18@layer3", "features.pool": 2}
    assert load_config(None, layered).features.pool == 2
