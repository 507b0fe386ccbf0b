"""The question of a stage: the options and the inputs on which the stage's result depends.

A stage records its question when it begins. Later calls compare their question with the record by
meaning: an option of which an earlier version knew nothing had its default, and an option without
effect does not count.
"""

import dataclasses
import fnmatch
import json
from collections.abc import Collection, Mapping
from typing import Any

from ktfast.config import differences

SHOWN_DIFFERENCES = 5


@dataclasses.dataclass(frozen=True)
class Input:
    """Something that a stage reads.

    Attributes
    ----------
    fingerprint : str
        Changes when the content changes. Empty: the stage that makes the input is not finished, or
        the user's file does not exist.
    text : str
        What the input is, for messages: "the images in photos/".
    stage : str
        The stage of the run that makes the input; empty for a file of the user.
    earlier : tuple of str
        Fingerprints that earlier versions of ktfast recorded for the same content.
    optional : bool
        Whether a record may lack this input, because earlier versions of ktfast did not record it.
    detail : str
        In what the input differs from its record, for messages.
    """

    fingerprint: str
    text: str
    stage: str = ""
    earlier: tuple[str, ...] = ()
    optional: bool = False
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of a stage.

    Attributes
    ----------
    section : str
        Section of the configuration to which the settings belong; used in messages.
    settings : dict
        Every option that changes the result, by name. A name with a dot is an option of another
        section.
    inputs : dict of str to Input
        Everything that the stage reads.
    defaults : dict
        Default of every option that may stand in `settings`.
    varying : frozenset of str
        Settings and inputs that may change without a redo of the stage, because the stage stores
        each part of its result with the question of that part. The inputs that stand here may
        be added or left out. The content of inputs that match a pattern with a star may change too.
    """

    section: str
    settings: dict[str, Any]
    inputs: dict[str, Input]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    varying: frozenset[str] = frozenset()

    def record(self) -> dict[str, Any]:
        """Give the JSON value that `begun.json` holds."""
        value = {
            "settings": self.settings,
            "inputs": self.fingerprints(),
            "named": {name: found.text for name, found in self.inputs.items()},
            "from": {name: found.stage for name, found in self.inputs.items() if found.stage},
        }
        as_read_back: dict[str, Any] = as_json(value)
        return as_read_back

    def fingerprints(self) -> dict[str, str]:
        """Give the fingerprint of each input by its name."""
        return {name: found.fingerprint for name, found in self.inputs.items()}

    def changes(self, recorded: Mapping[str, Any]) -> list[str]:
        """Say in what this question differs from a recorded question.

        Parameters
        ----------
        recorded : mapping
            What `record` gave, in this version of ktfast or in an earlier one.

        Returns
        -------
        changes : list of str
            One clause per difference, without hashes.
        """
        settings = differences(
            _mapping(recorded.get("settings")),
            as_json(self.settings),
            defaults=as_json(self.defaults),
        )
        found = [
            f"{self._option(name)} was {spelled(old)}, is now {spelled(new)}"
            for name, old, new in settings
        ]
        before, named = _mapping(recorded.get("inputs")), _mapping(recorded.get("named"))
        for name in sorted(before.keys() | self.inputs.keys()):
            found += self._input_changes(name, before.get(name), str(named.get(name, "")))
        return found

    def only_varies(self, recorded: Mapping[str, Any]) -> bool:
        """Say whether this question differs from a recorded question in `varying` at most."""
        before = _mapping(recorded.get("inputs"))
        free = {name for name in self.varying if (name in before) != (name in self.inputs)}
        patterns = [pattern for pattern in self.varying if "*" in pattern]
        free |= {
            name
            for name in (*before, *self.inputs)
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }
        fixed = dataclasses.replace(
            self,
            settings=_without(self.settings, self.varying),
            inputs=_without(self.inputs, free),
        )
        kept = {
            "settings": _without(_mapping(recorded.get("settings")), self.varying),
            "inputs": _without(before, free),
        }
        return not fixed.changes({**recorded, **kept})

    def _input_changes(self, name: str, before: Any, text: str) -> list[str]:
        now = self.inputs.get(name)
        if now is None:
            return [f"it read {text or name}, which is not asked for now"]
        if before is None:
            return [] if now.optional else [f"it did not read {now.text}, which is asked for now"]
        if not now.fingerprint or before in (now.fingerprint, *now.earlier):
            return []
        detail = f" ({now.detail})" if now.detail else ""
        if text and text != now.text:
            return [f"it read {text}, and now {now.text} would be read{detail}"]
        return [f"{now.text} changed since{detail}"]

    def _option(self, name: str) -> str:
        head, _, rest = name.partition(".")
        if head in _PLACES:
            return f"{_PLACES[head]}.{rest}" if rest else _PLACES[head]
        return f"{self.section}.{name}" if self.section else name


# The full names of options that belong to another section than the stage's own.
_PLACES = {
    **{name: name for name in ("seed", "pretext", "features", "cluster", "transfer")},
    "target": "transfer",
    "trunk": "pretext.trunk",
    "task": "pretext.task",
    "models": "voc.models",
    "data_init": "voc.data_init",
}


def refusal(folder: object, stage: str, changes: list[str]) -> str:
    """Say that a stage was begun with another question, and what the user can do.

    Parameters
    ----------
    folder : object
        The stage's folder.
    stage : str
        The name that `--redo` takes.
    changes : list of str
        What `Question.changes` gave.

    Returns
    -------
    message : str
        The message.
    """
    more = "; ..." if len(changes) > SHOWN_DIFFERENCES else ""
    return (
        f"{folder} was begun with other options or data: {'; '.join(changes[:SHOWN_DIFFERENCES])}"
        f"{more}. Use another run folder, or redo the stage {stage} (--redo {stage} on the command "
        "line), which removes what the folder holds"
    )


def spelled(value: Any) -> str:
    """Spell a value for a message; a hash of a file's content is not shown."""
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return "other content"
    return repr(value)


def as_json(value: Any) -> Any:
    """Convert a value as writing it to JSON and reading it back would."""
    return json.loads(json.dumps(value, default=str))


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
