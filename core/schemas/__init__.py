"""The vocabulary: frozen pydantic classes, nothing else. Each file is one noun."""
