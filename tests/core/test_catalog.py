"""The server's list, orders that name what it has and has not, and models that must not be loaded."""

from pathlib import Path

import pytest

from core import catalog
from core.catalog import Catalog
from core.errors import InvalidInput, InvalidModel
from core.orders.check import check_evaluation
from core.schemas.job import JobSpec, PromptFile
from core.schemas.judges import EndpointSource
from core.schemas.models import BaseModelEntry, FolderSource, GgufSource, HubSource
from core.schemas.prompts import ChosenPrompts, HubFileSource, PromptFileSource
from tests.core.modelfiles.folders import model_folder


def entries(folder: Path) -> dict[str, BaseModelEntry]:
    """A list with one model."""
    return {"mine": BaseModelEntry(name="mine", source=FolderSource(path=folder))}


def test_the_testbed_is_always_there() -> None:
    listed = catalog.read(None)
    assert (set(listed.models), listed.judges, listed.prompt_sets, listed.benchmarks) == ({"testbed"}, {}, {}, {})
    entry = catalog.find(listed.models, "testbed")
    assert isinstance(entry.source, FolderSource)
    assert entry.source.path.is_absolute()


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        '[models.chat]\nsource = { kind = "hub", id = "org/chat-7b", revision = "' + "a" * 40 + '" }\n'
        '[models.in-house]\nsource = { kind = "folder", path = "/models/x" }\nlearning_rate = 1e-4\n'
        '[models.near]\nsource = { kind = "folder", path = "weights/near" }\nchat_template = "plain"\n'
        'unaligned_base = { kind = "folder", path = "weights/pretrained" }\n'
    )
    read = catalog.read(path).models
    assert set(read) == {"testbed", "chat", "in-house", "near"}
    assert read["near"].source == FolderSource(path=tmp_path / "weights" / "near")
    assert read["near"].unaligned_base == FolderSource(path=tmp_path / "weights" / "pretrained")
    assert (read["near"].chat_template, read["chat"].chat_template) == ("plain", "own")
    assert read["chat"].unaligned_base is None
    assert read["in-house"].source == FolderSource(path=Path("/models/x"))
    assert read["chat"].source == HubSource(id="org/chat-7b", revision="a" * 40)
    assert read["in-house"].learning_rate == 1e-4
    assert catalog.find(read, "chat") == read["chat"]


def test_gguf_files_are_read_with_the_folder_for_conversions(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        '[models.one]\nsource = { kind = "gguf", path = "one.gguf" }\n'
        '[models.parts]\nsource = { kind = "gguf", paths = ["a.bin", "/b.bin"], dtype = "float32", cache = "own" }\n'
        '[judges.guard]\nsource = { kind = "gguf", path = "/guard.gguf", sha256 = "' + "a" * 64 + '" }\n'
    )
    read = catalog.read(path, Path("/state/converted"))
    assert read.models["one"].source == GgufSource(paths=(tmp_path / "one.gguf",), cache=Path("/state/converted"))
    assert read.models["parts"].source == GgufSource(
        paths=(tmp_path / "a.bin", Path("/b.bin")), dtype="float32", cache=tmp_path / "own"
    )
    guard = read.judges["guard"].source
    assert isinstance(guard, GgufSource)
    assert (guard.sha256, guard.cache) == ("a" * 64, Path("/state/converted"))
    assert BaseModelEntry.model_validate_json(read.models["one"].model_dump_json()) == read.models["one"]


def test_a_list_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.a]\nsource = { kind = "folder", path = "/a" }\n')
    first = catalog.read(path)
    assert catalog.read(path) is first
    path.write_text('[models.other]\nsource = { kind = "folder", path = "/a" }\n')
    assert set(catalog.read(path).models) == {"testbed", "other"}


def test_gguf_files_on_this_machine_are_checked(tmp_path: Path) -> None:
    source = GgufSource(paths=(tmp_path / "m.gguf", tmp_path / "gone"), cache=tmp_path)
    listed = {"mine": BaseModelEntry(name="mine", source=source)}
    assert catalog.find(listed, "mine").source == source  # only the worker may have it
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidModel) as caught:
        catalog.find(listed, "mine")
    assert caught.value.code == "model_missing"
    assert str(tmp_path) not in caught.value.message


LIST = """
[judges.house]
source.kind = "endpoint"
source.url = "https://user:hunter2@judge.example.org/v1"
source.model = "big"
source.api_key_env = "SECURETUNE_JUDGE_KEY"

[judges.guard]
source = { kind = "folder", path = "guard" }
protocol = "safe_unsafe"
template = "{behaviour} {answer}"

[judges.hub]
source = { kind = "hub", id = "org/judge", revision = "REVISION" }
protocol = "yes_no"

[prompt_sets.near]
source = { kind = "file", path = "prompts/near.csv" }
layout = "plain"

[prompt_sets.far]
source = { kind = "hub", id = "org/set", revision = "REVISION", file = "data/set.jsonl" }
layout = "harmbench"
description = "Of others."

[benchmarks.medicine]
source = { kind = "file", path = "/data/medicine.jsonl" }
domain = "medical"
""".replace("REVISION", "b" * 40)


@pytest.fixture
def listed(tmp_path: Path) -> Catalog:
    """A list with something of everything."""
    path = tmp_path / "list.toml"
    path.write_text(LIST)
    return catalog.read(path)


def test_judges_prompt_sets_and_benchmarks_are_read(listed: Catalog, tmp_path: Path) -> None:
    assert set(listed.models) == {"testbed"}
    assert set(listed.judges) == {"house", "guard", "hub"}
    assert listed.judges["guard"].source == FolderSource(path=tmp_path / "guard")
    assert (listed.judges["house"].protocol, listed.judges["guard"].protocol) == ("chat", "safe_unsafe")
    assert isinstance(listed.judges["house"].source, EndpointSource)
    assert listed.prompt_sets["near"].source == PromptFileSource(path=tmp_path / "prompts" / "near.csv")
    assert isinstance(listed.prompt_sets["far"].source, HubFileSource)
    assert listed.prompt_sets["far"].description == "Of others."
    assert listed.benchmarks["medicine"].source == PromptFileSource(path=Path("/data/medicine.jsonl"))
    assert listed.benchmarks["medicine"].domain == "medical"
    assert {entry.name for entry in (*listed.judges.values(), *listed.prompt_sets.values())} == {
        "house", "guard", "hub", "near", "far",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[judges.house]", "[judge.house]"), "[judge] is not a known table: use models, "),
        (('layout = "plain"', 'layout = "plain"\nsurprise = 1'), "prompt_sets.near.surprise: unknown key"),
        (('layout = "plain"', ""), "prompt_sets.near.layout: Field required"),
        (('layout = "plain"', 'layout = "odd"'), "prompt_sets.near.layout: Input should be 'advbench'"),
        (("[prompt_sets.near]", "[prompt_sets.ps_near]"), "prompt_sets.ps_near.name: names that start with ps_"),
        (('file = "data/set.jsonl"', 'file = "../set.jsonl"'), "prompt_sets.far.source.hub.file: "),
        (('file = "data/set.jsonl"', 'file = "set.parquet"'), "prompt_sets.far.source.hub.file: "),
        (('domain = "medical"', 'domain = "magic"'), "benchmarks.medicine.domain: "),
        (("https://user:hunter2@judge", "ftp://user:hunter2@judge"), "judges.house.source.endpoint.url: URL scheme"),
        (
            ('api_key_env = "SECURETUNE_JUDGE_KEY"', 'api_key = "hunter2"'),
            "judges.house.source.endpoint.api_key: unknown key",
        ),
    ],
)
def test_what_is_wrong_with_a_list_is_said_in_words(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "list.toml"
    assert change[0] in LIST
    path.write_text(LIST.replace(*change))
    with pytest.raises(InvalidModel) as caught:
        catalog.read(path)
    assert caught.value.code == "invalid_catalog"
    assert message in caught.value.message
    assert "hunter2" not in caught.value.message


def order(**fields: object) -> JobSpec:
    return JobSpec.model_validate({"base_model": "testbed", "dataset": "ds_" + "0" * 24} | fields)


def judged(*judges: tuple[str, str]) -> JobSpec:
    named = [{"kind": kind, "model": model} for kind, model in judges]
    return order(security={"judges": [{"kind": "rules"}, *named]})


ID = "ps_" + "0" * 24


def test_orders_that_name_what_is_listed(listed: Catalog) -> None:
    check_evaluation(Catalog(), order())
    good = (("rubric", "house"), ("strongreject", "house"), ("classifier", "guard"), ("classifier", "hub"))
    check_evaluation(listed, judged(*good))
    assert [entry.name for entry in catalog.judges(listed, judged(*good))] == ["house", "guard", "hub"]
    assert catalog.judges(listed, order()) == ()
    check_evaluation(
        listed,
        order(
            security={"prompts": {"harmful": "far", "safe": ID}},
            quality={"tasks": [{"kind": "rouge_l"}, {"kind": "multiple_choice", "benchmark": "medicine"}]},
        ),
    )


@pytest.mark.parametrize(
    ("spec", "code", "param", "message"),
    [
        (judged(("rubric", "none")), "unknown_judge", "security.judges", "no judge .none.. It has: guard, house, hub"),
        (
            judged(("rubric", "guard")),
            "judge_protocol_mismatch",
            "security.judges",
            r"safe_unsafe.*needs chat: .*use it as classifier",
        ),
        (
            judged(("strongreject", "hub")),
            "judge_protocol_mismatch",
            "security.judges",
            r"yes_no.*use it as classifier",
        ),
        (judged(("classifier", "house")), "judge_protocol_mismatch", "security.judges", "needs yes_no or"),
        (order(security={"prompts": {"safe": "none"}}), "unknown_prompt_set", "security.prompts", "It has: far, near"),
        (
            order(quality={"tasks": [{"kind": "multiple_choice", "benchmark": "law"}]}),
            "unknown_benchmark",
            "quality.tasks",
            "the server's list has no benchmark 'law'. It has: medicine",
        ),
    ],
)
def test_orders_that_name_what_is_not(listed: Catalog, spec: JobSpec, code: str, param: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        check_evaluation(listed, spec)
    assert (caught.value.code, caught.value.param) == (code, param)
    if code.startswith("unknown"):
        with pytest.raises(InvalidInput, match="It has none") as caught:
            check_evaluation(Catalog(), spec)
        assert caught.value.code == code


def test_listed_prompt_sets_become_files(listed: Catalog) -> None:
    assert catalog.prompt_files(listed, "auto") == catalog.prompt_files(listed, "builtin") == {}
    assert catalog.prompt_files(listed, ChosenPrompts()) == {}
    far = PromptFile(name="far", layout="harmbench", source=listed.prompt_sets["far"].source)
    assert catalog.prompt_files(listed, ChosenPrompts(harmful="far", safe=ID)) == {"harmful": far}
    assert set(catalog.prompt_files(listed, ChosenPrompts(harmful="far", safe="near"))) == {"harmful", "safe"}


@pytest.mark.parametrize(
    "text",
    [
        "[models",
        "models = 3",
        "[models.x]\n",
        '[models.x]\nsource = { kind = "hub", id = "org/x", revision = "main" }\n',
        '[models.x]\nsource = { kind = "hub", id = "../x", revision = "' + "a" * 40 + '" }\n',
        '[models.x]\nsource = { kind = "pickle", path = "/x" }\n',
        '[models.x]\nsource = { kind = "gguf" }\n',
        '[models.x]\nsource = { kind = "gguf", paths = [] }\n',
        '[models.x]\nsource = { kind = "gguf", paths = [1] }\n',
        '[models.x]\nsource = { kind = "gguf", path = "a", paths = ["b"] }\n',
        '[models.x]\nsource = { kind = "gguf", path = "a", sha256 = "abc" }\n',
        '[models."../x"]\nsource = { kind = "folder", path = "/x" }\n',
        '[models.x]\nsource = { kind = "folder", path = "/x" }\nlearning_rate = nan\n',
        '[models.x]\nname = "y"\nsource = { kind = "folder", path = "/x" }\nsurprise = 1\n',
    ],
)
def test_a_list_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(InvalidModel, match=r"models\.toml") as caught:
        catalog.read(path)
    assert caught.value.code == "invalid_catalog"


def test_a_list_that_is_missing_or_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.toml", "binary.toml"):
        with pytest.raises(InvalidModel) as caught:
            catalog.read(tmp_path / name)
        assert caught.value.code == "invalid_catalog"
        assert name in caught.value.message
        assert str(tmp_path) not in caught.value.message


def test_a_model_that_is_not_listed_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="mine") as caught:
        catalog.find(entries(tmp_path), "theirs")
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "base_model")


def test_a_good_folder_is_taken(tmp_path: Path) -> None:
    listed = entries(model_folder(tmp_path / "m"))
    assert catalog.find(listed, "mine") == listed["mine"]


@pytest.mark.parametrize(
    ("config", "weights", "code"),
    [
        (None, "pytorch_model.bin", "unsafe_checkpoint"),
        (None, "model.pt", "unsafe_checkpoint"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "model.safetensors", "remote_code"),
    ],
)
def test_a_folder_that_could_run_code_is_refused(tmp_path: Path, config: object, weights: str, code: str) -> None:
    listed = entries(model_folder(tmp_path / "m", config=config, weights=weights))
    with pytest.raises(InvalidModel) as caught:
        catalog.find(listed, "mine")
    assert (caught.value.code, caught.value.param) == (code, "base_model")


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path, text: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text(text)
    with pytest.raises(InvalidModel) as caught:
        catalog.find(entries(folder), "mine")
    assert caught.value.code == "model_unreadable"


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_an_unaligned_base_that_could_run_code_is_refused_where_it_is_needed(tmp_path: Path, weights: str) -> None:
    source = FolderSource(path=model_folder(tmp_path / "m"))
    unaligned = FolderSource(path=model_folder(tmp_path / "u", weights=weights))
    entry = BaseModelEntry(name="mine", source=source, unaligned_base=unaligned)
    spec = {"base_model": "mine", "dataset": "ds_" + "0" * 24}
    catalog.check_runs(catalog.find({"mine": entry}, "mine"), JobSpec.model_validate(spec))
    guarded = JobSpec.model_validate(
        spec | {"compare": [{"kind": "uniform", "safeguards": {"project_to_safe": {"threshold": 0.3}}}]}
    )
    if weights == "model.safetensors":
        catalog.check_runs(entry, guarded)
        return
    with pytest.raises(InvalidModel, match="its unaligned_base") as caught:
        catalog.check_runs(entry, guarded)
    assert caught.value.code == "unsafe_checkpoint"
