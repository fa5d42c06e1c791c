"""The Dockerfile is well-formed, and everything that it refers to exists. It is not built here.

Imports are tested for real: programs run on a copy of the sources of an image, and can import only packages that pip
would install into the image. Not here: docker-compose.yml (tests/test_compose.py).
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
from urllib.parse import urlsplit

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from api.main import create_app
from core.config import Settings
from tests import containers
from tests.containers import ROOT, Stage, distributions, stages
from worker.child import TRAINING

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STAGES = stages()
ONLY_INSTALLED = """
import sys
sys.path[:0] = [{sources!r}]
sys.path.append({site!r})  # without its .pth files: one of them leads to the repository
class OnlyInstalled:
    def find_spec(self, name, path=None, target=None):
        known = sys.stdlib_module_names | {modules!r}
        if name.partition(".")[0] not in known and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {{name!r}} in the image", name=name)
sys.meta_path.insert(0, OnlyInstalled())
"""


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param]


both_targets = pytest.mark.parametrize("target", ["api", "worker"], indirect=True)


def builder(stage: Stage) -> Stage:
    """The stage from which its virtual environment is copied."""
    return STAGES[next(line.flags["from"] for line in stage.own if "from" in line.flags)]


def pip_install(stage: Stage) -> list[str]:
    """The last pip command of its builder, which installs everything."""
    return [line.words for line in builder(stage).all("RUN") if line.words[0] == "pip"][-1]


def requirements(stage: Stage) -> list[str]:
    """The requirements that it installs, as in pyproject.toml."""
    extras = Requirement(f"securetune{pip_install(stage)[-1].removeprefix('.')}").extras
    optional = [PROJECT["optional-dependencies"][extra] for extra in extras]
    return [*PROJECT["dependencies"], *(text for texts in optional for text in texts)]


def modules(stage: Stage) -> set[str]:
    """Top-level modules of its packages."""
    names = distributions(requirements(stage))
    return {name for name, found in packages_distributions().items() if names & {canonicalize_name(n) for n in found}}


def in_image(stage: Stage, folder: Path, program: str, env: dict[str, str]) -> str:
    """Run a program on the sources and packages of an image alone, and return its output."""
    for source, destination in stage.sources.items():
        origin, place = ROOT / source, folder / destination
        if origin.is_dir():
            shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, place)
    own = {path.name for path in folder.iterdir()}
    site = str(Path(pytest.__file__).parents[1])
    start = ONLY_INSTALLED.format(sources=str(folder), site=site, modules=modules(stage) | own)
    done = subprocess.run(
        [sys.executable, "-S", "-c", start + program],
        cwd=folder, env={"PATH": os.environ["PATH"]} | env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_images_use_the_required_python() -> None:
    assert {"api", "worker"} <= STAGES.keys()
    assert {stage.image for stage in STAGES.values()} == {"python:3.11-slim"}
    assert PROJECT["requires-python"] == ">=3.11"


def test_only_the_worker_has_torch() -> None:
    previews = PROJECT["optional-dependencies"]["preview"]
    assert requirements(STAGES["api"]) == [*PROJECT["dependencies"], *previews]
    assert set(previews) <= set(PROJECT["optional-dependencies"]["worker"])
    assert {"torch", "transformers", "peft"} <= distributions(requirements(STAGES["worker"]))
    assert not {"torch", "peft", "scikit-learn", "matplotlib"} & distributions(requirements(STAGES["api"]))


@both_targets
@pytest.mark.parametrize("constraints", ["constraints/cpu.txt", "constraints/gpu.txt"])
def test_every_version_is_pinned(target: Stage, constraints: str) -> None:
    command = pip_install(target)
    path = containers.interpolate(command[command.index("--constraint") + 1], {"CONSTRAINTS": constraints})
    texts = [(ROOT / path).read_text()]
    texts += [(ROOT / path).with_name(name).read_text() for name in re.findall(r"^-c (\S+)$", texts[0], re.MULTILINE)]
    pinned = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", "\n".join(texts), re.MULTILINE)}
    assert distributions(requirements(target)) <= pinned


@both_targets
def test_every_copied_path_is_in_the_repository(target: Stage) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for source in builder(target).sources | target.sources:
        assert any(path == source or path.startswith(f"{source.rstrip('/')}/") for path in listed), source


def test_the_build_context_has_only_what_is_copied() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    copied = {Path(source).parts[0] for stage in STAGES.values() for source in stage.sources}
    assert {line[1:] for line in lines if line.startswith("!")} == copied


@both_targets
def test_an_image_runs_as_an_ordinary_user_that_owns_its_state(target: Stage) -> None:
    user = target.last("USER").words[0]
    assert user == "10001:10001"
    made = next(line.text for line in target.all("RUN") if "install --directory" in line.text)
    assert "--owner=10001 --group=10001" in made
    assert target.pairs("ENV")["SECURETUNE_STATE"] in made
    assert target.pairs("ENV").get("HF_HOME", "/var/lib/securetune") in made
    assert target.pairs("ENV").keys() & {"DATABASE_URL", "REDIS_URL", "HF_TOKEN"} == set()


@both_targets
def test_the_program_of_an_image_exists_and_has_every_option(target: Stage) -> None:
    name, *arguments = target.last("CMD").words
    (script,) = entry_points(group="console_scripts", name=name)
    assert script.dist is not None
    assert canonicalize_name(script.dist.name) in distributions(requirements(target))
    given = {word for word in arguments if word.startswith("--")}
    subcommand = ["worker"] if name == "celery" else []
    program = [sys.executable, "-m", name, *subcommand, "--help"]
    usage = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert given
    assert given <= set(re.findall(r"--[\w-]+", usage))


def test_the_api_image_can_migrate_create_keys_and_serve(tmp_path: Path, database_url: str, redis_url: str) -> None:
    factory = next(word for word in STAGES["api"].last("CMD").words if ":" in word)
    module, _, name = factory.partition(":")
    program = f"""
from typer.testing import CliRunner
from securetune.cli.main import app
for words in (["migrate"], ["key", "create", "first"], ["key", "list"]):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output, done.exception)
from importlib import import_module
import uvicorn
served = getattr(import_module({module!r}), {name!r})()
print(len(served.openapi()["paths"]), served.state.parts.catalog.models["testbed"].source.path)
"""
    env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECURETUNE_STATE": str(tmp_path / "state")}
    paths, model = in_image(STAGES["api"], tmp_path / "app", program, env).split()
    assert int(paths) > 10
    assert (Path(model) / "model.safetensors").is_file()
    assert Path(model).is_relative_to(tmp_path)


def test_the_worker_image_finds_its_celery_app(tmp_path: Path) -> None:
    words = STAGES["worker"].last("CMD").words
    name = words[words.index("-A") + 1]
    program = f"from celery.app.utils import find_app; print(*find_app({name!r}).tasks)"
    env = {"DATABASE_URL": "postgresql://nobody@/none", "REDIS_URL": "redis://localhost:1", "SECURETUNE_STATE": "/none"}
    assert "securetune.run_job" in in_image(STAGES["worker"], tmp_path, program, env)


def test_the_worker_image_has_everything_that_its_processes_import() -> None:
    worker = STAGES["worker"]
    own = {Path(source).parts[0] for source in worker.sources}
    graph = grimp.build_graph("worker", "core", "testbed", include_external_packages=True, cache_dir=None)
    entries = {"worker.main", TRAINING[-1]}
    reached = {name for entry in entries for name in graph.find_upstream_modules(entry)}
    assert "torch" in reached
    assert {name.partition(".")[0] for name in reached} <= own | modules(worker) | sys.stdlib_module_names


def test_the_api_image_has_everything_that_previews_import() -> None:
    api = STAGES["api"]
    own = {Path(source).parts[0] for source in api.sources}
    graph = grimp.build_graph("core", "testbed", include_external_packages=True, cache_dir=None)
    reached = graph.find_upstream_modules("core.pipeline.tokenizer_process")
    assert "transformers" in reached
    assert {name.partition(".")[0] for name in reached} <= own | modules(api) | sys.stdlib_module_names


def test_the_health_check_of_the_worker_finds_its_training_process() -> None:
    *_, shell = STAGES["worker"].last("HEALTHCHECK").words
    found = re.search(r"'(.+)'", shell)
    assert found is not None
    assert re.search(found[1], "\0".join(TRAINING))
    assert not re.search(found[1], shell)


def test_the_health_check_of_the_api_uses_a_route_without_a_key() -> None:
    api = STAGES["api"]
    found = re.search(r"http://[\w.:/]+", api.last("HEALTHCHECK").text)
    assert found is not None
    address = urlsplit(found[0])
    command = api.last("CMD").words
    assert str(address.port) == command[command.index("--port") + 1] == api.last("EXPOSE").text
    given = {"database_url": "postgresql:///none", "redis_url": "redis://localhost:1"}
    health = create_app(Settings.model_validate(given)).openapi()["paths"][address.path]["get"]
    assert "security" not in health
