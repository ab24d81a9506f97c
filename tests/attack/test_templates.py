"""Chat templates that build without an end are refused at a bound that the error names."""

from __future__ import annotations

import pytest

from r1kit.chat import template_bounds
from r1kit.chat.template import apply_template
from r1kit.chat.template_bounds import check_bounds

ENDLESS = {
    "a product": "{{ 'x' * 10000000000 }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "loops without text": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(s='x') %}{% for a in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "a width": "{{ '%10000000000d' % 1 }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_builds_gigabytes_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_bounds, "CPU_S", 1)
    check_bounds.cache_clear()
    with pytest.raises(ValueError, match=r"needs more than 1,024 MB of memory, 16,777,216 characters or 1 s"):
        check_bounds(ENDLESS[name])
    check_bounds.cache_clear()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['role'] }}: {{ m.content | trim }}\n{% endfor %}{{ '=' * 40 }}",
        "{{ raise_exception('no') }}",
        "{% generation %}{{ 1 }}{% endgeneration %}",
        "{{ messages[0].content.nothing.at.all }}{{",
    ],
)
def test_other_templates_pass_whatever_they_refuse(template: str) -> None:
    check_bounds(template)


def test_the_bound_is_checked_before_the_tokenizer_renders() -> None:
    class Tokenizer:
        chat_template = ENDLESS["a product"]

        def apply_chat_template(self, *_: object, **__: object) -> str:
            raise AssertionError("it was rendered")

    with pytest.raises(ValueError, match="for two short questions"):
        apply_template(Tokenizer(), [{"role": "user", "content": "a"}])
