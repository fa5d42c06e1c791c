"""The only package that uses SQLAlchemy, besides migrations: one module of queries per table."""
