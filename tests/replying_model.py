"""A gated model with a task that generates, whose replies end with their first step."""

import threading
from types import SimpleNamespace

from gated_model import GatedModel

from murmura.runtime.batching.queues import reply_lanes
from murmura.runtime.model.generated import Generated

REPLY = Generated("yes", (), 0.0, "end", False, False, ("fake", 0))


class ReplyingModel(GatedModel):
    """Every text that it answers waits for a reply. `step_gate`: steps run while it is open."""

    def __init__(self, **options):
        super().__init__(**options)
        self.step_gate = threading.Event()
        self.step_gate.set()
        self.step_error = None
        self.rows = []
        """The rows of each lane."""
        task = SimpleNamespace(name="reply")
        self.decoders = {"reply": SimpleNamespace(task=task, model=self, forbid=lambda *of: None)}

    def encode(self, texts):
        row = SimpleNamespace(truncated=False, cut=False)
        return [
            SimpleNamespace(text=each.text, tokens=each.tokens, truncated=False, rows=[row])
            for each in super().encode(texts)
        ]

    def remember(self, logits, wanted):
        return {row: {"reply": None} for row in range(len(wanted))}


class Replies:
    """Takes the place of the generator of a lane."""

    joined, live = (), 1

    def __class_getitem__(cls, key):
        return cls

    def __init__(self, decoder, max_rows):
        self.model, self.keys = decoder.model, []
        self.model.rows.append(max_rows)

    @property
    def idle(self):
        return not self.keys

    def add(self, key, memory, forbidden):
        self.keys.append(key)

    def cancel(self, key):
        self.keys.remove(key)

    def step(self, apart=False):
        assert self.model.step_gate.wait(60)
        if self.model.step_error is not None:
            raise self.model.step_error
        ended, self.keys = self.keys, []
        return [(key, REPLY) for key in ended]


def use_replies(monkeypatch):
    """Let the lanes of all batchers take their replies from `ReplyingModel`."""
    monkeypatch.setattr(reply_lanes, "ReplyGenerator", Replies)
