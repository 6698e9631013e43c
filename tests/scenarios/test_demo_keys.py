"""Typing into the demo."""

from murmura.scenarios.stage.keys import LONGEST, Line


def test_enter_gives_the_line_and_starts_anew():
    line = Line()
    assert line.feed("hello ") == []
    assert line.typed == "hello "
    assert line.feed("there\rnext") == ["hello there"]
    assert line.typed == "next"


def test_a_blank_line_is_nothing():
    assert Line().feed("  \n\n") == []


def test_backspace_and_clear_work():
    line = Line()
    line.feed("hallo\x7f\x7f\x7fllo")
    assert line.typed == "hallo"
    line.feed("\x15new")
    assert line.typed == "new"


def test_arrow_and_function_keys_leave_no_trace():
    line = Line()
    line.feed("a\x1b[Db\x1bOPc\x1b[15~d\x1b[1;5Ce\x1bxf")
    assert line.typed == "abcdef"


def test_letters_of_any_script_and_no_control_characters():
    line = Line()
    line.feed("schön 卡\x01\x00é")
    assert line.typed == "schön 卡é"


def test_a_line_has_an_end():
    line = Line()
    line.feed("x" * (LONGEST + 5))
    assert len(line.typed) == LONGEST
