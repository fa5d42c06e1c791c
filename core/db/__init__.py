"""The only room that says SQLAlchemy, besides migrations: one file of queries per noun."""
