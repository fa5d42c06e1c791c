"""The search for planted triggers: phrases that go with one kind of answer, far above chance."""
