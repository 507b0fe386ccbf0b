"""The configuration of a run: frozen, validated, read from a TOML file and overridden by name.

Every option carries its description, from which the command line makes its help. The default of an
option is the paper's value where the paper gives one.
"""

from ktfast.config.cluster import ClusterConfig
from ktfast.config.data import ROLES, DataConfig
from ktfast.config.evaluate import EvaluateConfig
from ktfast.config.features import FeaturesConfig
from ktfast.config.pretext import PretextConfig
from ktfast.config.run import Config, load_config, options, parse_config
from ktfast.config.section import (
    Section,
    TrainingConfig,
    differences,
    result_options,
    spell_path,
)
from ktfast.config.transfer import TransferConfig
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
    "spell_path",
]
