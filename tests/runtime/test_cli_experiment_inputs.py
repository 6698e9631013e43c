"""What the options and the rules of an experiment are refused for, and what is said of settings that its measures lack."""

import pytest
from cli_in_process import refused_here

from murmura.runtime.cli.experiments.inputs import note_missing_ratios, note_missing_reviews, parse_share
from murmura.runtime.errors import SetupError
from murmura.runtime.settings.settings import Settings
from murmura.schemas.experiment import Measure, Rules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--share", "0"), "--share: expected more than 0 and less than all, such as 5% or 0.05, found '0'"),
        (("--share", "half"), "found 'half'"),
        (("--share", "100%"), "found '100%'"),
        (("--unit", "moon"), "--unit: expected key, conversation, request or metadata.NAME, found 'moon'"),
        (
            ("--rate", "1.5"),
            "--rate: expected the current version's rate of the first goal, between 0 and 1, found 1.5",
        ),
        (("--rules", "none.yaml"), "none.yaml: cannot read the file of rules"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_read(arguments, message, tmp_path):
    assert message in refused_here(
        "models", "canary", "desk", 3, *arguments, "--bootstrap", "127.0.0.1:1", cwd=tmp_path
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_unit: 3\n", "rules.yaml:1: min_unit: unknown key; expected one of"),
        ("goals:\n- measure: agrement\n", "rules.yaml:2: goals.measure: "),
        (
            "goals:\n- {measure: ratio, name: orders}\n",
            "rules.yaml:2: goals: a ratio of your own says which way is better",
        ),
        ("alpha: 2\n", "rules.yaml:1: alpha: Input should be less than 1, found '2'"),
        ("guardrails: [{measure: errors}, {measure: errors}]\n", "errors stands there twice"),
        ("[]\n", "rules.yaml:1: a file of rules is a mapping"),
        (
            "goals: [{measure: errors, task: intent}]\n",
            "rules.yaml: errors/intent: errors is of whole requests, leave out",
        ),
        ("goals: [{measure: agreement}]\nalpha: 0.9\n", "rules.yaml: alpha: expected at most 0.5"),
        ("goals: [{measure: agreement}]\nhold_back: 1.0e-17\n", "rules.yaml: hold_back: expected at least 0.001"),
    ],
)
def test_a_mistake_in_the_rules_is_one_line_with_file_and_key(text, message, tmp_path):
    (tmp_path / "rules.yaml").write_text(text)
    given = ("--rules", "rules.yaml", "--bootstrap", "127.0.0.1:1")
    assert message in refused_here("models", "canary", "desk", 3, *given, cwd=tmp_path)


def test_a_line_says_where_agreement_decides_and_nobody_is_asked_at_random(capsys):
    note_missing_reviews(Settings(), Rules())
    assert "reviews.random_share is 0 in these settings" in capsys.readouterr().err
    note_missing_reviews(Settings(reviews={"random_share": 0.01}), Rules())
    withheld = [Measure(measure="withheld")]
    note_missing_reviews(Settings(), Rules(goals=withheld, guardrails=withheld))
    assert capsys.readouterr().err == ""


def test_a_line_says_where_a_ratio_decides_and_no_topic_of_its_events_is_set(capsys):
    orders = Rules(goals=[Measure(measure="ratio", name="orders", better="higher")])
    note_missing_ratios(Settings(), orders)
    assert "and ratio/orders decides nothing" in capsys.readouterr().err
    note_missing_ratios(Settings(experiments={"ratios": "shop.orders"}), orders)
    note_missing_ratios(Settings(), Rules())
    assert capsys.readouterr().err == ""


def test_a_share_is_written_in_per_cent_or_as_a_number():
    assert [parse_share(text) for text in ("5%", "0.05", " 7.5 % ", "99.9%")] == [0.05, 0.05, 0.075, 0.999]
    for text in ("", "-1%", "nan", "1", "1e400", "5%%"):
        with pytest.raises(SetupError, match="--share"):
            parse_share(text)
