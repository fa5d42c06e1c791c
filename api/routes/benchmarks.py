"""The benchmarks that jobs may name. Not here: the list itself (core.catalog), its files (core.data.benchmarks)."""

from fastapi import APIRouter

from api.deps import PartsDep
from core.schemas.prompts import HubFileSource
from core.schemas.quality import BenchmarkEntry
from core.schemas.replies import BenchmarkReply, Page

router = APIRouter(prefix="/benchmarks", tags=["benchmarks"])


@router.get("", summary="List benchmarks", response_description="By name")
def list_benchmarks(parts: PartsDep) -> Page[BenchmarkReply]:
    """Benchmarks by name. A job uses those that `quality.tasks` names, or those of its domain."""
    return Page(data=tuple(_reply(entry) for _, entry in sorted(parts.catalog.benchmarks.items())), has_more=False)


def _reply(entry: BenchmarkEntry) -> BenchmarkReply:
    hub = entry.source if isinstance(entry.source, HubFileSource) else None
    return BenchmarkReply(
        name=entry.name,
        description=entry.description,
        domain=entry.domain,
        source=entry.source.kind,
        hub_id=hub.id if hub else None,
        revision=hub.revision if hub else None,
        file=hub.file if hub else None,
    )
