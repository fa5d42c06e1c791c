"""Runs everything on one machine: PostgreSQL and Valkey from wheels, the API and a worker, under one supervisor."""

from securetune.local.address import Address
from securetune.local.running import running

__all__ = ["Address", "running"]
