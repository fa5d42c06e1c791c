"""Language models as objects: load a base model, find its modules, attach and save an adapter, ask it for answers."""
