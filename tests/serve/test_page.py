"""The page: names from the registry are text in it, and it loads nothing from elsewhere."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from segline.serve import page


def test_page(ask: Callable[..., Any]) -> None:
    said = ask("GET /")
    assert (said.status, said.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text = said.body.decode()
    assert "cells <small>version 1 @champion</small>" in text
    assert 'style="background: rgb(240, 228, 66)"></span>cell' in text
    links = re.findall(r"""(?:src|href|action)="([^"]+)""", text)
    assert links == ["data:,", "invocations?output=overlay", "#", "#", "openapi.json"]
    assert "default-src 'self'" in said.headers["Content-Security-Policy"]


def test_names_are_text(held: Any) -> None:
    tags = {"classes": '{"0": "background", "1": "<b>cell</b>"}'}
    held.serving = replace(held.serving, name="<script>", tags=tags)
    text = page.render(held)
    assert "<b>cell</b>" not in text and "&lt;b&gt;cell" in text
    assert text.count("<script>") == 1


def test_a_version_without_tags(held: Any) -> None:
    held.serving = replace(held.serving, tags={})
    assert "<h1>cells" in page.render(held)
