"""Runs the whole service on one machine: PostgreSQL and Valkey from wheels, the API and a worker."""

from securetune.local.address import Address
from securetune.local.running import running

__all__ = ["Address", "running"]
