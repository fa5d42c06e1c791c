"""Routes, one module per noun. The body of a route is one call into core.orders or core.db, and its reply."""
