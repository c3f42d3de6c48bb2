"""Tokens of English text are joined as the text was written."""

import pytest

from tokenrl_cli.data.detokenize import detokenized

PAIRS = {
    "It isn 't cheap , is it ?": "It isn't cheap, is it?",
    "Loch Fyne 's food ; they 're a family - friendly pub .": "Loch Fyne's food; they're a family-friendly pub.",
    "£ 20 - 25 ( or $ 30 ) , 10 % off !": "£20-25 (or $30), 10% off!",
    "name : The Mill | priceRange : more than £ 30": "name: The Mill | priceRange: more than £30",
    "The pub ' The Mill ' , or \" The Mill \" .": "The pub 'The Mill', or \"The Mill\".",
    "hors d 'oeuvres .. and more": "hors d'oeuvres .. and more",
    "Wait -- no": "Wait -- no",
    "already written: isn't it?": "already written: isn't it?",
    "": "",
}


@pytest.mark.parametrize(("tokens", "text"), PAIRS.items())
def test_tokens_are_joined_as_english_is_written(tokens: str, text: str) -> None:
    assert detokenized(tokens) == text
    assert detokenized(text) == text, "what is joined stays as it is"
