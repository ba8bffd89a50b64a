"""The words of a text, in any script.

Chinese, Japanese, Thai, Lao, Khmer and Burmese put no spaces between words, so that a whole sentence would count as one
word and every check of length or likeness would misjudge it. There each character counts as a word, with the vowel and
tone signs that stand on it. That is one to four times as many as a reader would count, in the old and the new text
alike, so that shares and ratios hold; a least number of words is easier to reach than elsewhere. Korean has spaces.

In every other script a word is a run of letters and digits, as ever.
"""

from __future__ import annotations

import re
import unicodedata

_SOUTH_EAST = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"
"""Thai and Lao, Burmese, Khmer, Burmese again."""
_EAST = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f"
)
"""Signs of repetition and numbers, hiragana and katakana, Chinese characters, narrow katakana."""
SPACELESS = f"{_SOUTH_EAST}{_EAST}\U00020000-\U0003ffff"
"""Characters of scripts without spaces between words, as the inside of a character class."""
_RANGES = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3099, 0x309A), (0xAA60, 0xAA7F))
_SIGNS = "".join(chr(code) for a, b in _RANGES for code in range(a, b + 1) if unicodedata.category(chr(code))[0] == "M")
CHARACTER = rf"(?=[^\W_])[{SPACELESS}][{_SIGNS}]*"
"""Pattern of one such character with the signs that stand on it."""
_WORD = re.compile(rf"[^\W_{SPACELESS}]+(?:['’][^\W_{SPACELESS}]+)*|{CHARACTER}")
_ALONE = re.compile(CHARACTER)
_RUNS_ON = re.compile(rf"[{_EAST}\U00020000-\U0003ffff\u3001-\u3003\u3008-\u3011！？，．：；）」』]\Z")


def words(text: str) -> list[str]:
    """Return the words of `text`, lower case; where a script has no spaces, its characters."""
    return _WORD.findall(text.lower())


def spaced(text: str) -> str:
    """Return `text` with spaces around each character of a script without them; any other text as it is."""
    return text if text.isascii() else _ALONE.sub(r" \g<0> ", text)


def runs_on(text: str) -> bool:
    """Say whether what follows `text` follows without a space: it ends in Chinese or Japanese, or their marks."""
    return _RUNS_ON.search(text) is not None
