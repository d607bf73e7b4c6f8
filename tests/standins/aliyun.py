"""`aliyun PRODUCT ACTION --Parameter value`: names as in the metadata that the real command is built from.

That is the repository aliyun/aliyun-openapi-meta, looked up for these actions alone, and of each the parameters that
our page may want. A name that does not stand here has not been looked up.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from tests.standins.desk import refuse


class Action(NamedTuple):
    needs: frozenset[str]
    takes: frozenset[str] = frozenset()


def action(needs: str, takes: str = "") -> Action:
    return Action(frozenset(needs.split()), frozenset(takes.split()))


ACTIONS = {
    ("vpc", "CreateVpc"): action("RegionId", "VpcName CidrBlock Description EnableIpv6 ResourceGroupId"),
    ("vpc", "CreateVSwitch"): action("VpcId ZoneId CidrBlock", "RegionId VSwitchName Description"),
    ("ecs", "CreateSecurityGroup"): action(
        "RegionId", "VpcId SecurityGroupName SecurityGroupType Description ResourceGroupId"
    ),
    ("r-kvstore", "CreateInstance"): action(
        "RegionId",
        "ZoneId NetworkType VpcId VSwitchId InstanceType EngineVersion InstanceClass ChargeType Password"
        " InstanceName Capacity Period Port AutoRenew ShardCount SecondaryZoneId",
    ),
    ("r-kvstore", "ModifySecurityIps"): action(
        "InstanceId SecurityIps", "ModifyMode SecurityIpGroupName SecurityIpGroupAttribute"
    ),
    ("nas", "CreateFileSystem"): action(
        "ProtocolType StorageType",
        "RegionId ZoneId FileSystemType ChargeType Capacity VpcId VSwitchId Description EncryptType",
    ),
    ("nas", "CreateMountTarget"): action(
        "FileSystemId NetworkType", "RegionId VpcId VSwitchId AccessGroupName SecurityGroupId"
    ),
    ("ram", "CreateRole"): action("", "RoleName AssumeRolePolicyDocument Description MaxSessionDuration"),
    ("ram", "CreatePolicy"): action("", "PolicyName PolicyDocument Description"),
    ("ram", "AttachPolicyToRole"): action("", "PolicyType PolicyName RoleName"),
}

DOCUMENTS = ("AssumeRolePolicyDocument", "PolicyDocument")


def main(argv: list[str]) -> None:
    match argv:
        case ["configure"]:
            return
        case ["oss", "mb", url, "--region", region]:
            if not url.startswith("oss://") or not region:
                refuse(f"a bucket {url} in {region!r}")
        case [product, name, *words]:
            known = ACTIONS.get((product, name)) or refuse(f"{product} {name} was never looked up")
            options, values = words[::2], words[1::2]
            if len(options) != len(values) or not all(o.startswith("--") for o in options) or "" in values:
                refuse(f"parameters and values: {words}")
            given = {option.removeprefix("--"): value for option, value in zip(options, values, strict=True)}
            check(f"{product} {name}", known, given)
        case _:
            refuse(f"aliyun {argv}")


def check(what: str, known: Action, given: dict[str, str]) -> None:
    if missing := known.needs - given.keys():
        refuse(f"{what} needs {sorted(missing)}")
    if unknown := given.keys() - known.needs - known.takes:
        refuse(f"{what} does not take {sorted(unknown)}")
    for document in (json.loads(given[name]) for name in DOCUMENTS if name in given):
        if document["Version"] != "1" or {"Effect", "Action"} - document["Statement"][0].keys():
            refuse(f"{what}: {document}")
