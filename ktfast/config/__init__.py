"""The configuration of a run: frozen, validated, read from TOML and overridden by name.

Every option carries its description (the command line's help is made from it) and, where the
method's paper fixes a value, that value as its default.
"""

from ktfast.config.pipeline import (
    ROLES,
    ClusterConfig,
    DataConfig,
    EvaluateConfig,
    FeaturesConfig,
    PretextConfig,
    TransferConfig,
)
from ktfast.config.run import Config, load_config, options, parse_config
from ktfast.config.section import Section, TrainingConfig, differences, result_options
from ktfast.config.voc import VocConfig, VocDetectionConfig, VocSection

__all__ = [
    "ROLES",
    "ClusterConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "FeaturesConfig",
    "PretextConfig",
    "Section",
    "TrainingConfig",
    "TransferConfig",
    "VocConfig",
    "VocDetectionConfig",
    "VocSection",
    "differences",
    "load_config",
    "options",
    "parse_config",
    "result_options",
]
