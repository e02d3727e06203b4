import pytest

from vgen.report.markup import duration, join, number, tag


def test_everything_is_escaped_once():
    inner = tag("b", "<script>", title='"><img>')
    assert inner == '<b title="&quot;&gt;&lt;img&gt;">&lt;script&gt;</b>'
    assert tag("p", inner, [1, None, "&"]) == f"<p>{inner}1&amp;</p>"
    assert join("<", inner) == f"&lt;{inner}"


def test_attributes():
    assert tag("input", id="a", checked=True, hidden=False, data_x=None) == '<input id="a" checked>'
    assert tag("path", d="M0 0") == '<path d="M0 0"></path>'
    with pytest.raises(TypeError):
        tag("p", object())


@pytest.mark.parametrize(
    "value, text",
    [(66004557, "66,004,557"), (0.84, "0.84"), (3.41234, "3.412"), (2e-4, "0.0002"), (2.5e-6, "2.5e-06"), (None, "–")],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "–"), (4.25, "4.2 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (187200, "2 d 4 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
