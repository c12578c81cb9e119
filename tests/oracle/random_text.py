"""Random texts of many scripts, of code points assigned in Unicode 14 (Python 3.11 carries that
version): words, emoji, digits, all kinds of white space, long runs, and any code point at all."""
import unicodedata

WORDS = ("the The don't I'll we've you're it's he'd I'm 'S 't's O'Reilly naïve café Straße 'ſ "
         "안녕하세요 개인정보 연합학습 모델을 서울특별시 훈민정음 ㄱㄴㄷ 漢字 東京 こんにちは カタカナ "
         "Привет мир γλώσσα שלום مرحبا नमस्ते ภาษาไทย 0 7 42 2024 1,234.56 ½ Ⅷ ² ① ٣٤ 한글2024년 "
         "foo_bar fooBar() x=y+1; </s> <s> <|im_end|> <|endoftext|> <end_of_turn> <|eot_id|> <unk> "
         "{'a': [1, 2]} https://a.b/c?d=e#f <table> <0x41> ▁ ▁▁x Ġ Ċ "
         "😀 👩‍👩‍👧‍👦 🇰🇷 ❤️ 🏳️‍🌈 e\u0301 \u1112\u1161\u11ab\u1100\u1173\u11af \u200b \ufeff \u00ad "
         "… — “q” #tag @me $5 100% \\n").split(" ")
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", " \n", "\r\n", "\u00a0", "\u3000", "\u2028",
          "\u0085", "\u1680", "\x0b", "\x1c", "", "    ", "\n \n"]
ASSIGNED = [c for c in range(0x110000)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


def check_version():
    assert unicodedata.unidata_version == "14.0.0", "run it with Python 3.11"


def random_text(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return "".join(chr(rng.choice(ASSIGNED)) for _ in range(rng.randrange(0, 40)))
    if kind == 1:
        return "".join(chr(rng.randrange(0, 0x250)) for _ in range(rng.randrange(0, 60)))
    parts = []
    for _ in range(rng.randrange(0, 30)):
        parts.append(rng.choice(WORDS) if rng.random() < 0.8 else chr(rng.choice(ASSIGNED)))
        parts.append(rng.choice(SPACES) if rng.random() < 0.4 else " ")
    text = "".join(parts)
    return text * rng.randrange(2, 40) if kind == 2 and rng.random() < 0.05 else text
