"""The six data sets of LongICLBench: labels, rounds, cues, and where their data is.

Source: Li et al. (2024), arXiv 2404.02060, table 1; the scripts of the release. The relation names
are those that the released scorers count; the labels of the other sets come with their data.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from unspool.evaluation.spec import Release

Name: TypeAlias = Literal["goemotion", "banking77", "tacred", "fewnerd", "dialogre", "discovery"]

CODE = "github:TIGER-AI-Lab/LongICLBench"
COMMIT = "9c5da3df908dbd01ae6f259d9669241c1a92fe59"


class Dataset(NamedTuple):
    """Facts of one data set."""

    task: str
    labels: int
    rounds: tuple[int, ...] = (1, 2, 3, 4, 5)
    test_rounds: int = 0
    """Rounds of the round-robin over the test split; 0: another rule."""
    max_new_tokens: int = 100
    licence: str = ""


DATASETS: dict[str, Dataset] = {
    "goemotion": Dataset("emotion", 28, test_rounds=25, licence="Apache-2.0"),
    "banking77": Dataset("intent", 77, test_rounds=7, licence="CC-BY-4.0"),
    "tacred": Dataset("relation", 41, licence="LDC"),
    "fewnerd": Dataset("entities", 66, licence="CC-BY-SA-4.0"),
    "dialogre": Dataset("relations", 36, licence="for research"),
    "discovery": Dataset("connective", 174, test_rounds=4, licence="Apache-2.0"),
}
MOST_TESTS = 500
"""Test items of a run; relation labels for dialogre."""
TACRED_PER_RELATION = 20
FEWNERD_SHOTS = {1: 57, 2: 114, 3: 170, 4: 224, 5: 281}
DIALOGRE_ROWS = {1: 34, 2: 67, 3: 99, 4: 131, 5: 163}

_TOKENS = ("2k", "5k", "10k", "15k", "20k", "25k", "32k")
SHOTS_BY_TOKENS: dict[str, dict[str, int]] = {
    name: dict(zip(_TOKENS, shots, strict=True))
    for name, shots in (
        ("goemotion", (73, 190, 380, 560, 740, 920, 1180)),
        ("banking77", (77, 175, 346, 515, 685, 856, 1101)),
        ("tacred", (25, 67, 133, 204, 270, 362, 421)),
        ("fewnerd", (26, 64, 130, 188, 249, 317, 413)),
        ("discovery", (27, 71, 142, 215, 289, 362, 468)),
    )
}
"""Demonstrations of the release's mode with a budget of tokens in place of rounds."""

_TACRED = (
    "org:founded_by per:employee_of org:alternate_names per:cities_of_residence per:children "
    "per:title per:siblings per:religion per:age org:website per:stateorprovinces_of_residence "
    "org:member_of org:top_members/employees per:countries_of_residence "
    "org:city_of_headquarters org:members org:country_of_headquarters per:spouse "
    "org:stateorprovince_of_headquarters org:number_of_employees/members org:parents "
    "org:subsidiaries per:origin org:political/religious_affiliation per:other_family "
    "per:stateorprovince_of_birth org:dissolved per:date_of_death org:shareholders "
    "per:alternate_names per:parents per:schools_attended per:cause_of_death per:city_of_death "
    "per:stateorprovince_of_death org:founded per:country_of_birth per:date_of_birth "
    "per:city_of_birth per:charges per:country_of_death"
)
TACRED_RELATIONS = frozenset(_TACRED.split())
_DIALOGRE = (
    "per:alternate_names per:alumni per:place_of_residence per:employee_or_member_of "
    "per:girl/boyfriend per:title per:positive_impression gpe:residents_of_place "
    "org:employees_or_members per:children per:parents per:siblings per:spouse per:friends "
    "per:negative_impression per:client per:pet per:place_of_work per:boss per:subordinate "
    "per:acquaintance per:roommate per:dates per:other_family per:age per:visited_place "
    "gpe:visitors_of_place per:origin per:neighbor per:works per:schools_attended org:students "
    "per:major per:date_of_birth"
)
DIALOGRE_RELATIONS = tuple(_DIALOGRE.split())

_HUB = {
    "goemotion": ("go_emotions", {"text": "str", "labels": "list[int or str]"}),
    "banking77": ("banking77", {"text": "str", "label": "int or str"}),
    "discovery": (
        "discovery",
        {"sentence1": "str", "sentence2": "str", "label": "int or str"},
    ),
}
_PREPARED = {
    "tacred": (
        "train_tacred.json",
        "test_tacred.json",
        {
            "sentence": "str",
            "relation": "str",
            "subject_entity": "str",
            "object_entity": "str",
        },
    ),
    "fewnerd": (
        "fewnerd_train_10turns.json",
        "fewnerd_test_1800.json",
        {"sentence": "str", "entities": "dict of entity to type"},
    ),
    "dialogre": (
        "train_dialogueRE_processed.json",
        "test_dialogueRE.json",
        {"dialogue": "str", "relation or relations": "str, or list of pairs"},
    ),
}


def release(name: Name | str, split: Literal["train", "test"]) -> Release:
    """Where a split of a data set is: the first file, or another of the same content."""
    if name in _PREPARED:
        train, test, schema = _PREPARED[name]
        file = train if split == "train" else test
        return Release(
            dataset=CODE,
            files=(f"processed_data/{file}", file),
            revision=COMMIT,
            schema=schema,
            licence=DATASETS[name].licence,
            note=(
                "Some copies of the repository lack the training files of tacred and dialogre, "
                "which are large; TACRED itself is licensed by the LDC."
            ),
        )
    hub, fields = _HUB[name]
    return Release(
        dataset=hub,
        files=tuple(f"{name}/{split}{end}" for end in (".jsonl", ".json", ".parquet"))
        + tuple(f"{split}{end}" for end in (".jsonl", ".json", ".parquet")),
        revision="",
        schema=fields,
        licence=DATASETS[name].licence,
        note=(
            f"On the hub it is a loading script, which is not run: export both splits to "
            f"{name}/train.jsonl and {name}/test.jsonl and give the folder. Labels that are "
            "numbers take a file labels.json beside them, a list of names in their order."
        ),
    )
