"""Acts and turns that are too long are read in training as they are served."""

from pathlib import Path

from tiny_decoder import end_sooner, reply_task
from tiny_model import tiny_tokenizer, write_tiny_model

from murmura.runtime.model.model import Model
from murmura.training.data.example import Example
from murmura.training.fit.rows.encoding import encode_part
from murmura.training.kinds.generation import Generation


def test_training_drops_the_turns_that_serving_drops(tmp_path: Path) -> None:
    task = reply_task()
    model = Model.load(write_tiny_model(tmp_path / "model", [task], added=end_sooner(task, by=3.0)), device="cpu")
    turns = [
        "user: hello",
        "user: " + "please help me " * 20 + "\nagent: hello\nuser: my card was lost",
        "agent: hello\nuser: " + "please help me " * 20,
    ]
    examples = [Example("inform date", second=each, reply="Your card is here.") for each in turns]
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(model.manifest.limits.max_tokens)
    part = encode_part(examples, Generation(), task.labels, tokenizer)
    served = model.encode([example.given for example in examples])
    assert [ids.tolist() for ids in part.ids] == [each.ids for each in served]
    assert [each.truncated for each in served] == [False, True, True]
    assert len(part.ids[1]) < len(part.ids[2])
