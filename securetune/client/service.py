"""The service's endpoints as methods; replies are the classes that the server itself answers with.

Not here: retries (the transport tries a refused connection again, all else is the caller's), a command line (cli).
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from core.schemas.data import ColumnMap
from core.schemas.job import JobSpec
from core.schemas.policy import Policy
from core.schemas.prompts import Layout
from core.schemas.replies import (
    ArtifactReply,
    BenchmarkReply,
    DatasetReply,
    EventReply,
    JobReply,
    JobSummary,
    JudgeReply,
    ModelReply,
    Page,
    PolicyReply,
    PromptSetReply,
)
from core.schemas.results import Report
from core.schemas.screening import ScreeningResult, ScreenRequest
from core.schemas.signing import TrustedKeys
from core.schemas.state import FINAL
from securetune.client.downloads import fetch, unpack
from securetune.client.errors import ApiError, from_response

_Reply = TypeVar("_Reply", bound=BaseModel)
_Item = TypeVar("_Item", DatasetReply, PromptSetReply, JobSummary, EventReply)
ReportForm = Literal["json", "html", "card", "signed"]
_PAGE = 100
_CONNECT_ATTEMPTS = 2
_SLOW = httpx2.Timeout(30, read=900)
"""An upload is answered when every row has been checked."""


class SecureTune:
    """One service and one key. Every method raises `ApiError`. Proxies named in the environment are not used."""

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 30) -> None:
        self._url = base_url.rstrip("/")
        self._http = httpx2.Client(
            base_url=self._url,
            headers={"authorization": f"Bearer {api_key}", "accept": "application/json"},
            timeout=timeout,
            transport=httpx2.HTTPTransport(retries=_CONNECT_ATTEMPTS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload_dataset(
        self, path: str | Path, columns: ColumnMap | None = None, name: str | None = None
    ) -> DatasetReply:
        """Upload a file, read as it is sent. The same file again is the same dataset.

        Raises:
            ApiError: code `invalid_dataset`, with the refused rows in `details`.
        """
        fields = {"columns": columns.model_dump_json() if columns else None, "name": name}
        return self._upload(DatasetReply, "/datasets", Path(path), fields)

    def dataset(self, dataset_id: str) -> DatasetReply:
        """One dataset."""
        return self._get(DatasetReply, f"/datasets/{dataset_id}")

    def datasets(self) -> Iterator[DatasetReply]:
        """Every dataset, newest first."""
        return self._pages(Page[DatasetReply], "/datasets")

    def upload_prompt_set(self, path: str | Path, layout: Layout, name: str | None = None) -> PromptSetReply:
        """Upload prompts to attack with, or safe look-alikes. The same file in the same layout is the same set.

        Raises:
            ApiError: code `invalid_prompt_set`, with the refused rows in `details`.
        """
        return self._upload(PromptSetReply, "/prompt-sets", Path(path), {"layout": layout, "name": name})

    def prompt_set(self, set_id: str) -> PromptSetReply:
        """One set of prompts, by the id of an uploaded or the name of a listed one."""
        return self._get(PromptSetReply, f"/prompt-sets/{set_id}")

    def prompt_sets(self) -> Iterator[PromptSetReply]:
        """Every set of prompts: those of the server's list by name, then uploaded ones, newest first."""
        return self._pages(Page[PromptSetReply], "/prompt-sets")

    def screen(self, dataset_id: str, request: ScreenRequest | dict[str, object] | None = None) -> JobReply:
        """Order a screening of a dataset: a job that trains nothing; watch it, then read `screening`."""
        body = request.model_dump(mode="json") if isinstance(request, ScreenRequest) else request
        return self._post(JobReply, f"/datasets/{dataset_id}/screen", body or {})

    def screening(self, job_id: str) -> ScreeningResult:
        """What a finished job found in its data."""
        return self._get(ScreeningResult, f"/jobs/{job_id}/screening")

    def policy(self) -> PolicyReply:
        """The policy of the key's project."""
        return self._get(PolicyReply, "/policy")

    def set_policy(self, policy: Policy | dict[str, object]) -> PolicyReply:
        """Replace it; the key needs the right `policy`.

        Raises:
            ApiError: code `missing_right`, or `invalid_parameter` for rules that contradict each other.
        """
        body = policy.model_dump(mode="json") if isinstance(policy, Policy) else policy
        return _read(PolicyReply, self._send(self._http.build_request("PUT", "/policy", json=body)))

    def override_gate(self, job_id: str, reason: str) -> JobReply:
        """Let out what the gate withholds; the key needs the right `override`, and the reason is kept for ever.

        Raises:
            ApiError: code `missing_right` or `nothing_to_override`.
        """
        return self._post(JobReply, f"/jobs/{job_id}/gate/override", {"reason": reason})

    def create_job(self, spec: JobSpec | dict[str, object]) -> JobReply:
        """Order a job; the reply shows the order with every default filled in."""
        body = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else spec
        return self._post(JobReply, "/jobs", body)

    def job(self, job_id: str) -> JobReply:
        """One job with the figures known so far."""
        return self._get(JobReply, f"/jobs/{job_id}")

    def jobs(self) -> Iterator[JobSummary]:
        """Every job, newest first."""
        return self._pages(Page[JobSummary], "/jobs")

    def events(self, job_id: str, after: int = 0) -> Iterator[EventReply]:
        """What has happened to a job since the event `after`, oldest first, up to now."""
        return self._pages(Page[EventReply], f"/jobs/{job_id}/events", after)

    def watch(self, job_id: str, *, interval: float = 1.0, patience: float = 60.0) -> Iterator[JobReply]:
        """The job, now and whenever it has changed, until it has ended; asks every `interval` seconds.

        A service that is away for less than `patience` seconds, because it is started again, ends nothing.
        """
        seen: JobReply | None = None
        last_answer = time.monotonic()
        while True:
            try:
                job = self.job(job_id)
            except ApiError as error:
                if not error.is_temporary or time.monotonic() - last_answer > patience:
                    raise
            else:
                last_answer = time.monotonic()
                if seen is None or _news(job) != _news(seen):
                    yield job
                seen = job
                if job.status in FINAL:
                    return
            time.sleep(interval)

    def cancel(self, job_id: str) -> JobReply:
        """Cancel a job. One that runs ends within seconds: watch it."""
        return self._post(JobReply, f"/jobs/{job_id}/cancel")

    def artifacts(self, job_id: str) -> tuple[ArtifactReply, ...]:
        """The files that a finished job left."""
        return self._get(Page[ArtifactReply], f"/jobs/{job_id}/artifacts").data

    def download_adapter(self, job_id: str, folder: str | Path) -> Path:
        """Put the adapter's files into `folder` and return the folder that `peft` loads.

        A download that broke off goes on where it stopped when this is called again.

        Raises:
            ApiError: code `adapter_quarantined` or `gate_undecided`, with `reasons`; `job_not_finished`,
                `digest_mismatch`, `unsafe_archive` or `no_adapter`.
        """
        return self._download(f"/jobs/{job_id}/adapter", folder, wanted="adapter_config.json", code="no_adapter")

    def download_model(self, job_id: str, folder: str | Path) -> Path:
        """The same for the whole model, which a job with the method `full` leaves: `transformers` loads the folder.

        Raises:
            ApiError: code `job_not_finished`, `digest_mismatch`, `unsafe_archive` or `no_model`.
        """
        return self._download(f"/jobs/{job_id}/model", folder, wanted="config.json", code="no_model")

    def report(self, job_id: str) -> Report:
        """The security report of a finished job."""
        return self._get(Report, f"/jobs/{job_id}/report")

    def report_file(self, job_id: str, form: ReportForm) -> bytes:
        """The report as a file: `html` for people, `card` as a model card, `signed` for `securetune verify`, or `json`,
        byte for byte as it was signed.
        """
        return self._send(self._http.build_request("GET", f"/jobs/{job_id}/report?format={form}")).content

    def signing_keys(self) -> TrustedKeys:
        """The public keys that reports are signed with."""
        return self._get(TrustedKeys, "/signing-keys")

    def models(self) -> tuple[ModelReply, ...]:
        """The base models that jobs may name."""
        return self._get(Page[ModelReply], "/models").data

    def judges(self) -> tuple[JudgeReply, ...]:
        """The judge models that jobs may name."""
        return self._get(Page[JudgeReply], "/judges").data

    def benchmarks(self) -> tuple[BenchmarkReply, ...]:
        """The benchmarks that jobs may name."""
        return self._get(Page[BenchmarkReply], "/benchmarks").data

    def _get(self, reply: type[_Reply], path: str) -> _Reply:
        return _read(reply, self._send(self._http.build_request("GET", path)))

    def _post(self, reply: type[_Reply], path: str, body: dict[str, object] | None = None) -> _Reply:
        return _read(reply, self._send(self._http.build_request("POST", path, json=body)))

    def _upload(self, reply: type[_Reply], path: str, upload: Path, fields: dict[str, str | None]) -> _Reply:
        with upload.open("rb") as file:
            request = self._http.build_request(
                "POST",
                path,
                files={"file": (upload.name, file)},
                data={field: value for field, value in fields.items() if value is not None},
                timeout=_SLOW,
            )
            return _read(reply, self._send(request))

    def _pages(self, page: type[Page[_Item]], path: str, after: str | int | None = None) -> Iterator[_Item]:
        while True:
            params = {"limit": _PAGE} if after is None else {"limit": _PAGE, "after": after}
            found = _read(page, self._send(self._http.build_request("GET", path, params=params)))
            yield from found.data
            if not found.has_more or not found.data:
                return
            after = found.data[-1].id

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        with self._reachable():
            response = self._http.send(request)
        if not response.is_success:
            raise from_response(response)
        return response

    def _download(self, address: str, folder: str | Path, *, wanted: str, code: str) -> Path:
        """Fetch and unpack an archive; the folder in which the wanted file came to lie."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with self._reachable():
            archive = fetch(self._http, address, folder)
        names = unpack(archive, folder)
        archive.unlink()
        for name in names:
            if name.name == wanted:
                return (folder / name).parent
        raise ApiError(f"The archive holds no {wanted}.", code=code)

    @contextmanager
    def _reachable(self) -> Generator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise ApiError(
                f"{self._url} cannot be reached: {str(error) or type(error).__name__}.", code="unreachable"
            ) from error


def _read(reply: type[_Reply], response: httpx2.Response) -> _Reply:
    """A reply's body; fields that this version does not know are left out, so that a newer service can be read."""
    try:
        return reply.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise ApiError(
            f"{response.url} answered something else than a {reply.__name__}: {error.errors()[0]['msg']}.",
            code="invalid_reply",
            status=response.status_code,
        ) from error


def _news(job: JobReply) -> tuple[object, ...]:
    return (job.status, job.progress, job.cancel_requested_at, job.attempt, len(job.figures))
