"""From the parser's nested messages to one line of what, one of where, and a hint."""

import pytest

from vgen.cli.explain import explain

NESTED = """Parser key "stages.b.model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'vgen.training.base.VideoModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'vgen.callbacks.EMA':
        {inner}
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {{'class_path': 'vgen.callbacks.EMA'}}
"""


@pytest.mark.parametrize(
    "message, what, where, hint",
    [
        (
            NESTED.format(inner="Validation failed: Option 'decey' is not accepted"),
            "vgen.callbacks.EMA has no argument 'decey'",
            "stages.b.model.decey",
            "did you mean 'decay'?",
        ),
        (
            NESTED.format(inner="Validation failed: Option 'zzzzz' is not accepted"),
            "vgen.callbacks.EMA has no argument 'zzzzz'",
            "stages.b.model.zzzzz",
            "it has decay, warmup, every_n_steps, warmup_from, half_life",
        ),
        (
            NESTED.format(inner='Parser key "decay":\n          Expected a <class \'float\'>. Got value: much'),
            "expected a number, got 'much'",
            "stages.b.model.decay",
            None,
        ),
        (
            NESTED.format(
                inner="Parser key \"m\":\n          Expected a typing.Literal['min', 'max']. Got value: mi"
            ),
            "expected one of min, max; got 'mi'",
            "stages.b.model.m",
            "did you mean 'min'?",
        ),
        ("Unrecognized arguments: --resum", "unknown option --resum", "vgen fit", "did you mean '--resume'?"),
        ("Unrecognized arguments: --zzz=1", "unknown option --zzz", "vgen fit", None),
        (
            "Option 'stages.b.trainer.max_step' is not accepted",
            "unknown key 'max_step'",
            "stages.b.trainer.max_step",
            "did you mean 'max_steps'?",
        ),
        ("Option 'run_dirr' is not accepted", "unknown key 'run_dirr'", "vgen fit", "did you mean 'run_dir'?"),
        ('Parser key "stages.b.seed":\n  Expected a <class \'int\'>. Got value: x', "expected a whole number, got 'x'",
         "stages.b.seed", None),
        ("something new", "something new", "vgen fit", None),
        ("", "", "vgen fit", None),
    ],
)  # fmt: skip
def test_messages(message, what, where, hint):
    error = explain(message, "vgen fit")
    assert (error.what, error.where, error.hint) == (what, where, hint)


def test_long_messages_are_cut():
    error = explain("word " * 500, "vgen fit")
    assert len(error.what) <= 200 and "\n" not in error.what
