"""`murmura chat` at a terminal and in a pipe, with an agent on a real Kafka."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dialogue_bank import Bank
from tiny_talker import write_talker

MURMURA = Path(sys.executable).with_name("murmura")


class Terminal:
    """`murmura chat` at a terminal."""

    def __init__(self, bank: Bank, *options: str) -> None:
        ours, theirs = pty.openpty()
        command = [MURMURA, "chat", "--bootstrap", bank.desk.bootstrap, *options]
        environment = os.environ | {"MURMURA_PREFIX": bank.desk.prefix, "TERM": "dumb"}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.file, self.shown = ours, ""

    async def until(self, words: str) -> None:
        """Read on until `words` are shown after what was waited for last."""
        async with asyncio.timeout(60):
            while words not in self.shown:
                self.shown += (await asyncio.to_thread(os.read, self.file, 4096)).decode()
        self.shown = self.shown.partition(words)[2]

    def type(self, line: str) -> None:
        os.write(self.file, line.encode())

    async def code(self) -> int:
        return await asyncio.to_thread(self.process.wait, 30)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("farewell", ["/quit", "Ctrl-D", "Ctrl-C", "closing the terminal"])
async def test_a_person_talks_at_a_terminal(bank: Bank, farewell: str):
    async with bank.serving():
        with Terminal(bank, "--conversation", "c-7") as terminal:
            for number in (1, 2):
                await terminal.until("you> ")
                terminal.type("thanks\n")
                await terminal.until("desk> ")
                await terminal.until(" ms)")
                assert (await bank.replies(number))[-1].number == number
            await terminal.until("you> ")
            match farewell:
                case "Ctrl-C":
                    terminal.process.send_signal(signal.SIGINT)
                case "closing the terminal":
                    os.close(terminal.file)
                case _:
                    terminal.type("/quit\n" if farewell == "/quit" else "\x04")
            assert await terminal.code() in ({0, 1} if farewell == "closing the terminal" else {0})


async def test_a_turn_that_nobody_answers_does_not_end_a_talk_at_a_terminal(bank: Bank):
    with Terminal(bank, "--patience", "2") as terminal:
        await terminal.until("you> ")
        terminal.type("thanks\n")
        await terminal.until("no reply within 2 s")
        await terminal.until("you> ")
        async with bank.serving():
            await bank.replies(1)
            terminal.type("thanks\n")
            await terminal.until("desk> ")
            await terminal.until("you> ")
            terminal.type("/quit\n")
            assert await terminal.code() == 0


async def test_a_chat_in_a_pipe_that_nobody_answers_says_so_in_one_line(bank: Bank):
    command = [MURMURA, "chat", "--bootstrap", bank.desk.bootstrap, "--patience", "0.5", "--json"]
    for prefix, says in ((bank.desk.prefix, "no reply within 0.5 s"), ("nobody", "nobody.dialogue.turns are not on")):
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            input="hello\n",
            text=True,
            capture_output=True,
            env=os.environ | {"MURMURA_PREFIX": prefix},
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert says in done.stderr


@pytest.mark.slow
async def test_kill_9_in_the_middle_of_conversations_that_a_model_words(kafka, tmp_path, monkeypatch):
    """The short form of `benchmarks/conversations.py --generate`."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import conversations

    outcome = await conversations.run(
        kafka,
        tmp_path,
        write_talker(tmp_path / "tiny"),
        conversations=40,
        turns=10,
        kills=2,
        per_s=100.0,
        generate=True,
    )
    assert outcome.sound, str(outcome)
    assert outcome.turns == 400
    assert len(outcome.kinds) >= 4


@pytest.mark.slow
async def test_a_process_that_was_frozen_for_longer_than_its_session_leaves_no_stale_state(
    kafka, talkative_model, tmp_path, monkeypatch
):
    """All turns wait from the start, so that many are under way in the one that is frozen."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import conversations

    outcome = await conversations.run(
        kafka, tmp_path, talkative_model, conversations=40, turns=60, kills=0, freezes=2, per_s=10_000.0
    )
    assert outcome.sound, str(outcome)
    assert (outcome.unanswered, outcome.stale_states) == (0, 0)
