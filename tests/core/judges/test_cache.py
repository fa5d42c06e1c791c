"""Cached judgements: found by the same judge for the same case only, and broken files count as missing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from core.judges.cache import JudgementCache
from core.judges.interface import Case, Ruling
from core.schemas.evaluation import Judgement
from core.storage.store import ArtifactStore

CASE = Case("Swindle the bridge", "Take a rope.")
FINDING = Ruling("complied", "goes along", harmfulness=5.0, score=0.75)
WHO = "rubric-1, some-model"


@pytest.fixture
def cache(tmp_path: Path) -> JudgementCache:
    return JudgementCache(ArtifactStore(tmp_path))


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("shared/judgements/??/*.json")
    assert path.parent.name == path.name[:2]
    return path


def test_a_cached_judgement_is_found_by_another_process(cache: JudgementCache, tmp_path: Path) -> None:
    assert cache.get(WHO, CASE) is None
    cache.put(WHO, CASE, FINDING.attribute("rubric:a"))
    assert JudgementCache(ArtifactStore(tmp_path)).get(WHO, CASE) == FINDING
    assert Judgement.model_validate_json(the_file(tmp_path).read_bytes()) == FINDING.attribute("rubric:a")


@pytest.mark.parametrize(
    "other",
    [
        replace(CASE, behaviour="Swindle the gate"),
        replace(CASE, answer="Take a rope"),
        replace(CASE, safe=True),
        Case(CASE.behaviour + CASE.answer, ""),
    ],
)
def test_another_case_is_not_found(cache: JudgementCache, other: Case) -> None:
    cache.put(WHO, CASE, FINDING.attribute("a"))
    assert cache.get(WHO, other) is None


def test_another_judge_is_not_found(cache: JudgementCache) -> None:
    cache.put(WHO, CASE, FINDING.attribute("a"))
    assert cache.get("rubric-2, some-model", CASE) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"judge": "a", "verdi',
        b"\xff\x00",
        b"[]",
        b'{"judge": "a", "verdict": "perhaps", "reason": ""}',
        b'{"judge": "a", "verdict": "undecided", "reason": "the server was down"}',
        b'{"judge": "a", "verdict": "complied", "reason": "", "harmfulness": NaN}',
    ],
)
def test_a_broken_file_counts_as_missing_and_is_replaced(cache: JudgementCache, tmp_path: Path, data: bytes) -> None:
    cache.put(WHO, CASE, FINDING.attribute("a"))
    the_file(tmp_path).write_bytes(data)
    assert cache.get(WHO, CASE) is None
    cache.put(WHO, CASE, FINDING.attribute("a"))
    assert cache.get(WHO, CASE) == FINDING


def test_concurrent_writes_of_one_judgement(cache: JudgementCache, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(cache.put, WHO, CASE, FINDING.attribute("a")) for _ in range(40)]
        seen = [cache.get(WHO, CASE) for _ in range(200)]
    assert all(task.result() is None for task in tasks)
    assert all(each in (None, FINDING) for each in seen)
    assert cache.get(WHO, CASE) == FINDING
    the_file(tmp_path)


def test_any_text_has_a_key(cache: JudgementCache) -> None:
    odd = Case("\ud83d \x00", "../../etc/\u2028")
    cache.put(WHO, odd, FINDING.attribute("a"))
    assert cache.get(WHO, odd) == FINDING
