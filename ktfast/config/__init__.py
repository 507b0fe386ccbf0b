"""The configuration of a run: frozen, validated, read from a TOML file and overridden by name.

Every option carries its description, from which the command line makes its help. The default of an
option is the paper's value where the paper gives one.
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
from ktfast.config.section import (
    Section,
    TrainingConfig,
    differences,
    result_options,
    spell_path,
)
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
