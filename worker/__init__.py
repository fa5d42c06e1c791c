"""The back door: takes jobs from the queue, runs each in a process of its own, records how it went."""
