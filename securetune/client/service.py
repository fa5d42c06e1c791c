"""The service's endpoints as methods that return the same reply classes as the server.

Not here: retries beyond refused connections, which are up to the caller; the command line (securetune.cli).
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from core.schemas.data import ColumnMap
from core.schemas.estimate import Estimate
from core.schemas.job import CheckRequest, JobSpec
from core.schemas.policy import Policy
from core.schemas.preview import Preview, PreviewRequest
from core.schemas.prompts import Layout
from core.schemas.repair import RepairRequest
from core.schemas.replies import (
    ArtifactReply,
    BenchmarkReply,
    DatasetReply,
    EventReply,
    JobReply,
    JobSummary,
    JudgeReply,
    ModelCheckReply,
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
"""The server replies to an upload after it has checked every row."""


class SecureTune:
    """A client for one service and one API key.

    Every method raises `ApiError`. Proxies in the environment are ignored.
    """

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

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload_dataset(
        self, path: str | Path, columns: ColumnMap | None = None, name: str | None = None
    ) -> DatasetReply:
        """Upload a dataset file as a stream. Uploading the same file again returns the same dataset.

        Raises:
            ApiError: code `invalid_dataset`, with the invalid rows in `details`.
        """
        fields = {"columns": columns.model_dump_json() if columns else None, "name": name}
        return self._upload(DatasetReply, "/datasets", Path(path), fields)

    def dataset(self, dataset_id: str) -> DatasetReply:
        """Return one dataset."""
        return self._call("GET", f"/datasets/{dataset_id}", DatasetReply)

    def datasets(self) -> Iterator[DatasetReply]:
        """Iterate over all datasets, newest first."""
        return self._pages(Page[DatasetReply], "/datasets")

    def preview(self, dataset_id: str, request: PreviewRequest) -> Preview:
        """Return rows of a dataset in the tokens of a base model, as a job trains on them."""
        return _read(Preview, self._send(self._preview(dataset_id, request, "application/json")))

    def preview_page(self, dataset_id: str, request: PreviewRequest) -> bytes:
        """Return the preview as an HTML page."""
        return self._send(self._preview(dataset_id, request, "text/html")).content

    def upload_prompt_set(self, path: str | Path, layout: Layout, name: str | None = None) -> PromptSetReply:
        """Upload harmful prompts or safe look-alikes. The same file with the same layout returns the same set.

        Raises:
            ApiError: code `invalid_prompt_set`, with the invalid rows in `details`.
        """
        return self._upload(PromptSetReply, "/prompt-sets", Path(path), {"layout": layout, "name": name})

    def prompt_set(self, set_id: str) -> PromptSetReply:
        """Return one prompt set, by the id of an uploaded set or the name of a listed one."""
        return self._call("GET", f"/prompt-sets/{set_id}", PromptSetReply)

    def prompt_sets(self) -> Iterator[PromptSetReply]:
        """Iterate over all prompt sets: listed ones by name, then uploaded ones, newest first."""
        return self._pages(Page[PromptSetReply], "/prompt-sets")

    def screen(self, dataset_id: str, request: ScreenRequest | dict[str, object] | None = None) -> JobReply:
        """Order a screening, a job that trains nothing. Watch it, then call `screening`."""
        return self._call("POST", f"/datasets/{dataset_id}/screen", JobReply, request or {})

    def screening(self, job_id: str) -> ScreeningResult:
        """Return the findings of a finished job in its data."""
        return self._call("GET", f"/jobs/{job_id}/screening", ScreeningResult)

    def policy(self) -> PolicyReply:
        """Return the policy of the key's project."""
        return self._call("GET", "/policy", PolicyReply)

    def set_policy(self, policy: Policy | dict[str, object]) -> PolicyReply:
        """Replace the policy of the key's project. The key needs the right `policy`.

        Raises:
            ApiError: code `missing_right`, or `invalid_parameter` for rules that contradict each other.
        """
        return self._call("PUT", "/policy", PolicyReply, policy)

    def override_gate(self, job_id: str, reason: str) -> JobReply:
        """Release an adapter that the gate withholds. The key needs the right `override`; the reason is kept forever.

        Raises:
            ApiError: code `missing_right` or `nothing_to_override`.
        """
        return self._call("POST", f"/jobs/{job_id}/gate/override", JobReply, {"reason": reason})

    def repair(self, job_id: str, request: RepairRequest | dict[str, object] | None = None) -> JobReply:
        """Order a job that repairs the quarantined weights of another one.

        Raises:
            ApiError: code `nothing_to_repair`.
        """
        return self._call("POST", f"/jobs/{job_id}/repair", JobReply, request or RepairRequest())

    def create_job(self, spec: JobSpec | dict[str, object]) -> JobReply:
        """Order a job. The reply contains the order with all defaults filled in."""
        return self._call("POST", "/jobs", JobReply, spec)

    def estimate(self, spec: JobSpec | dict[str, object]) -> Estimate:
        """Estimate the size, the duration and the memory of a job without creating it.

        Raises:
            ApiError: any error of `create_job` for this order; `estimate_busy` if others are being computed.
        """
        json = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else spec
        return _read(Estimate, self._send(self._http.build_request("POST", "/jobs/estimate", json=json, timeout=_SLOW)))

    def job(self, job_id: str) -> JobReply:
        """Return one job with the figures measured so far."""
        return self._call("GET", f"/jobs/{job_id}", JobReply)

    def jobs(self) -> Iterator[JobSummary]:
        """Iterate over all jobs, newest first."""
        return self._pages(Page[JobSummary], "/jobs")

    def events(self, job_id: str, after: int = 0) -> Iterator[EventReply]:
        """Iterate over a job's events after the event id `after`, oldest first."""
        return self._pages(Page[EventReply], f"/jobs/{job_id}/events", after)

    def watch(self, job_id: str, *, interval: float = 1.0, patience: float = 60.0) -> Iterator[JobReply]:
        """Yield the job now and after every change until it has ended, polling every `interval` seconds.

        A service that is unreachable for less than `patience` seconds, such as during a restart, does not end the loop.
        """
        last: JobReply | None = None
        last_answer = time.monotonic()
        while True:
            try:
                job = self.job(job_id)
            except ApiError as error:
                if not error.is_temporary or time.monotonic() - last_answer > patience:
                    raise
            else:
                last_answer = time.monotonic()
                if last is None or _changes(job) != _changes(last):
                    yield job
                last = job
                if job.status in FINAL:
                    return
            time.sleep(interval)

    def cancel(self, job_id: str) -> JobReply:
        """Cancel a job. A running job ends within seconds; watch it to see when."""
        return self._call("POST", f"/jobs/{job_id}/cancel", JobReply)

    def artifacts(self, job_id: str) -> tuple[ArtifactReply, ...]:
        """Return the files of a finished job."""
        return self._call("GET", f"/jobs/{job_id}/artifacts", Page[ArtifactReply]).data

    def download_adapter(self, job_id: str, folder: str | Path) -> Path:
        """Download the adapter into `folder` and return the folder that `peft` loads.

        An interrupted download resumes when this is called again.

        Raises:
            ApiError: code `adapter_quarantined` or `gate_undecided`, with `reasons`; `job_not_finished`,
                `digest_mismatch`, `unsafe_archive` or `no_adapter`.
        """
        return self._download(f"/jobs/{job_id}/adapter", folder, wanted="adapter_config.json", code="no_adapter")

    def download_model(self, job_id: str, folder: str | Path) -> Path:
        """Download the whole model of a job with the method `full`; return the folder that `transformers` loads.

        Raises:
            ApiError: code `job_not_finished`, `digest_mismatch`, `unsafe_archive` or `no_model`.
        """
        return self._download(f"/jobs/{job_id}/model", folder, wanted="config.json", code="no_model")

    def report(self, job_id: str) -> Report:
        """Return the security report of a finished job."""
        return self._call("GET", f"/jobs/{job_id}/report", Report)

    def report_file(self, job_id: str, form: ReportForm) -> bytes:
        """Return the report as a file.

        Forms: `html`, a model `card`, `signed` for `securetune verify`, or `json` byte for byte as it was signed.
        """
        return self._send(self._http.build_request("GET", f"/jobs/{job_id}/report?format={form}")).content

    def signing_keys(self) -> TrustedKeys:
        """Return the public keys that reports are signed with."""
        return self._call("GET", "/signing-keys", TrustedKeys)

    def models(self) -> tuple[ModelReply, ...]:
        """Return the base models that jobs may name."""
        return self._call("GET", "/models", Page[ModelReply]).data

    def check_model(self, name: str, request: CheckRequest | dict[str, object] | None = None) -> JobReply:
        """Order a check of a base model, a job that trains nothing. Watch it, then call `model_check`."""
        return self._call("POST", f"/models/{name}/check", JobReply, request or {})

    def model_check(self, name: str) -> ModelCheckReply:
        """Return the newest check of a base model.

        Raises:
            ApiError: code `model_not_checked`; it was not checked, or has changed since.
        """
        return self._call("GET", f"/models/{name}/check", ModelCheckReply)

    def judges(self) -> tuple[JudgeReply, ...]:
        """Return the judge models that jobs may name."""
        return self._call("GET", "/judges", Page[JudgeReply]).data

    def benchmarks(self) -> tuple[BenchmarkReply, ...]:
        """Return the benchmarks that jobs may name."""
        return self._call("GET", "/benchmarks", Page[BenchmarkReply]).data

    def _call(
        self, method: str, path: str, reply: type[_Reply], body: BaseModel | dict[str, object] | None = None
    ) -> _Reply:
        json = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
        return _read(reply, self._send(self._http.build_request(method, path, json=json)))

    def _preview(self, dataset_id: str, request: PreviewRequest, media_type: str) -> httpx2.Request:
        params: dict[str, str | int] = request.model_dump(mode="json")
        return self._http.build_request(
            "GET", f"/datasets/{dataset_id}/preview", params=params, headers={"accept": media_type}, timeout=_SLOW
        )

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
            current = _read(page, self._send(self._http.build_request("GET", path, params=params)))
            yield from current.data
            if not current.has_more or not current.data:
                return
            after = current.data[-1].id

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        with self._reachable():
            response = self._http.send(request)
        if not response.is_success:
            raise from_response(response)
        return response

    def _download(self, address: str, folder: str | Path, *, wanted: str, code: str) -> Path:
        """Download and unpack an archive; return the folder that contains the file `wanted`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with self._reachable():
            archive = fetch(self._http, address, folder)
        names = unpack(archive, folder)
        archive.unlink()
        for name in names:
            if name.name == wanted:
                return (folder / name).parent
        raise ApiError(f"The archive does not contain {wanted}.", code=code)

    @contextmanager
    def _reachable(self) -> Generator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise ApiError(
                f"{self._url} cannot be reached: {str(error) or type(error).__name__}.", code="unreachable"
            ) from error


def _read(reply: type[_Reply], response: httpx2.Response) -> _Reply:
    """Parse a reply. Unknown fields are ignored, so that this client works with a newer service."""
    try:
        return reply.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise ApiError(
            f"{response.url} did not return a valid {reply.__name__}: {error.errors()[0]['msg']}.",
            code="invalid_reply",
            status=response.status_code,
        ) from error


def _changes(job: JobReply) -> tuple[object, ...]:
    return (job.status, job.progress, job.cancel_requested_at, job.attempt, len(job.figures))
