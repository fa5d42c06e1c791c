"""A Python client of the service, over HTTP only.

with SecureTune("http://127.0.0.1:8000", api_key) as service:
    dataset = service.upload_dataset("rows.jsonl")
    job = service.create_job({"base_model": "testbed", "dataset": dataset.id})
    for job in service.watch(job.id):
        print(job.status, job.progress)
    service.download_adapter(job.id, "adapter")
"""

from securetune.client.errors import ApiError
from securetune.client.service import SecureTune

__all__ = ["ApiError", "SecureTune"]
