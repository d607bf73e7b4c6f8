"""Regular expressions over strings."""

from __future__ import annotations

import re

from comfyui.simulator.nodes.spec import Registry, choice, flag, integer, optional, string
from comfyui.simulator.nodes.text import STRING, TEXT

registry = Registry("comfy_extras.nodes_string")
node = registry.node

PATTERN = string("regex_pattern", multiline=True)


CASELESS = flag("case_insensitive", default=True)


MULTILINE = flag("multiline", default=False)


def _flags(case_insensitive: bool, multiline: bool, dotall: bool) -> re.RegexFlag:
    flags = re.RegexFlag(0)
    for is_set, bit in ((case_insensitive, re.IGNORECASE), (multiline, re.MULTILINE), (dotall, re.DOTALL)):
        flags |= bit if is_set else re.RegexFlag(0)
    return flags


@node(
    "RegexMatch",
    TEXT,
    PATTERN,
    CASELESS,
    MULTILINE,
    flag("dotall", default=False),
    outputs="BOOLEAN",
    names=("matches",),
    title="Regex Match",
    **STRING,
)
def regex_match(
    string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool
) -> tuple[bool]:
    """A pattern that is none matches nothing."""
    try:
        return (re.search(regex_pattern, string, _flags(case_insensitive, multiline, dotall)) is not None,)
    except re.error:
        return (False,)


@node(
    "RegexExtract",
    TEXT,
    PATTERN,
    choice("mode", ("First Match", "All Matches", "First Group", "All Groups")),
    CASELESS,
    MULTILINE,
    flag("dotall", default=False),
    integer("group_index", 1, min=0, max=100),
    outputs="STRING",
    title="Regex Extract",
    **STRING,
)
def regex_extract(
    string: str,
    regex_pattern: str,
    mode: str,
    case_insensitive: bool,
    multiline: bool,
    dotall: bool,
    group_index: int,
) -> tuple[str]:
    """Matches one a line; an empty string if there is none or the pattern is none."""
    try:
        found = list(re.finditer(regex_pattern, string, _flags(case_insensitive, multiline, dotall)))
    except re.error:
        return ("",)
    group = group_index if "Group" in mode else 0
    texts = [match[group] or "" for match in found if (match.re.groups or 0) >= group]
    return ("\n".join(texts if mode.startswith("All") else texts[:1]),)


@node(
    "RegexReplace",
    TEXT,
    PATTERN,
    string("replace", multiline=True),
    optional(CASELESS),
    optional(MULTILINE),
    optional(
        flag(
            "dotall",
            tooltip="When enabled, the dot (.) character will match any character including newline characters. "
            "When disabled, dots won't match newlines.",
            default=False,
        )
    ),
    optional(
        integer(
            "count",
            0,
            tooltip="Maximum number of replacements to make. Set to 0 to replace all occurrences (default). "
            "Set to 1 to replace only the first match, 2 for the first two matches, etc.",
            min=0,
            max=100,
        )
    ),
    outputs="STRING",
    title="Regex Replace",
    description="Find and replace text using regex patterns.",
    **STRING,
)
def regex_replace(
    string: str,
    regex_pattern: str,
    replace: str,
    case_insensitive: bool = True,
    multiline: bool = False,
    dotall: bool = False,
    count: int = 0,
) -> tuple[str]:
    flags = _flags(case_insensitive, multiline, dotall)
    return (re.sub(regex_pattern, replace, string, count=count, flags=flags),)
