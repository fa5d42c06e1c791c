"""The front door: HTTP and nothing else. No torch, no SQLAlchemy, no pipeline."""
