"""The old name of the Python client. It is kept for one version, so that an old import says what to change.

Not here: the client (securetune.client).
"""

raise ImportError("The client is imported from securetune now: write `from securetune import SecureTune`.")
