"""The pre-tokenizers that byte-level BPE vocabularies name in `tokenizer.ggml.pre`.

A pre-tokenizer is a list of regular expressions applied one after another: each cuts every piece
the ones before it left into its matches and the text between them.  BPE merges never cross a cut.

Names and the flags that go with them: llama.cpp, src/llama-vocab.cpp.  Where that file adapts an
expression of the model's own tokenizer.json to std::regex and quotes the original, the original
is used here, since the model was trained with it.

Three departures keep every expression linear in the text, whatever the text:
digit groups are aligned to the right of a number up to 90 digits long and to its left beyond,
trailing white space is only looked for where white space begins, and so is a line break after
white space in `jais-2`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split

from quintet.errors import UnsupportedModelError


@dataclass(frozen=True)
class PreTokenization:
    """How one named pre-tokenizer treats text.

    Args:
        expressions: applied in turn, in Oniguruma syntax.
        ignores_merges: a whole piece that is a token is taken as it stands.
        adds_bos: whether BOS is added when the file does not say.
        is_byte_level: pieces are spelled in the GPT-2 byte alphabet; otherwise in plain UTF-8
            with U+2581 for a space, and bytes outside the vocabulary as `<0xNN>`.
    """

    expressions: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False
    is_byte_level: bool = True

    def build(self) -> PreTokenizer:
        """The same as a `tokenizers` object."""
        if not self.is_byte_level:
            return self.build_cuts()
        return Sequence([self.build_cuts(), ByteLevel(add_prefix_space=False, use_regex=False)])

    def build_cuts(self) -> PreTokenizer:
        """What cuts the text, which stays as it is spelled, as a `tokenizers` object."""
        return Sequence([Split(Regex(expression), "isolated") for expression in self.expressions])


def pre_tokenization(name: str) -> PreTokenization:
    """The pre-tokenizer of that name.

    Raises:
        UnsupportedModelError: there is none; a default would tokenize wrongly and silently.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise UnsupportedModelError("pre-tokenizer", name, supported_names())
    return found


def supported_names() -> tuple[str, ...]:
    """Every known name, sorted."""
    return tuple(sorted(_BY_NAME))


# Parts that many expressions share.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINES = r"\s*[\r\n]+"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_HAN_KANA = r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_RIGHT_ALIGNED_DIGITS = r"\d{1,3}(?=(?:\d{3}){0,29}(?!\d))"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _SPACES
_LLAMA3 = "|".join([_CONTRACTION, _WORD, r"\p{N}{1,3}", _SYMBOLS, _LINES, _SPACES])
_QWEN2 = "|".join([_CONTRACTION, _WORD, r"\p{N}", _SYMBOLS, _LINES, _SPACES])
_BLOOM = r" ?[^(\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


def _cased_words(upper: str, lower: str, suffix: str) -> str:
    """Words cut where lower case turns to upper: `helloWorld` is two."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}[{upper}]*[{lower}]+{suffix}|{lead}[{upper}]+[{lower}]*{suffix}"


_GPT4O = "|".join(
    [
        _cased_words(_UPPER, _LOWER, _CONTRACTION + "?"),
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        _LINES,
        _SPACES,
    ]
)


def _deepseek_v3(after_symbols: str, lines: str) -> str:
    return "|".join(
        [
            _ASCII_PUNCTUATION + r"[A-Za-z]+",
            r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
            r" ?[\p{P}\p{S}]+" + after_symbols,
            lines,
            _SPACES,
        ]
    )


# The cased letters of the deepseek-llm tokenizer.json, which lists them by range.
_DEEPSEEK_LETTERS = (
    r"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    r"\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    r"\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd"
    r"\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    r"\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    r"\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    r"\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    r"\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b"
    r"\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787"
    r"\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    r"\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}"
    r"\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}"
)
_DEEPSEEK_CJK = r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_AFMOE_SCRIPTS = (
    r"[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f"
    r"\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f"
    r"\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_YOUTU_SCRIPTS = (
    r"[\uac00-\ud7a3\u3131-\u318e]+"
    r"|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    r"|[\u3105-\u312f]+|" + _HAN_KANA
)
# Not after white space other than a line break: from there the rest of the run holds no break.
_JAIS2_LINES = r"(?<![^\S\r\n])\s*[\r\n]+"
_JAIS2_SPACES = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + (
    r"|\s{1,2}(?!\S)|\s"
)
_NOT_HAN = r"&&[^\p{Han}]"
_KIMI_K2 = "|".join(
    [
        r"\p{Han}+",
        _cased_words(_UPPER + _NOT_HAN, _LOWER + _NOT_HAN, _CONTRACTION + "?"),
        r"\p{N}{1,3}",
        _SYMBOLS,
        _LINES,
        _SPACES,
    ]
)

_gpt2 = PreTokenization((_GPT2,))
_digits_gpt2 = PreTokenization((r"\p{N}", _GPT2))
_llama3 = PreTokenization((_LLAMA3,))
_llama3_whole = PreTokenization((_LLAMA3,), ignores_merges=True, adds_bos=True)
_qwen2 = PreTokenization((_QWEN2,))
_bloom = PreTokenization((_BLOOM,))
_gpt4o = PreTokenization((_GPT4O,))
_deepseek3 = PreTokenization((r"\p{N}{1,3}", _HAN_KANA, _deepseek_v3(r"[\r\n]*", _LINES)))
_bailing = PreTokenization(
    (
        "|".join(
            [
                r"'(?i:[sdmt]|ll|ve|re)",
                r"[^\r\n\p{L}\p{N}]?+\p{L}+",
                r"\p{N}",
                r" ?[^\s\p{L}\p{N}]++[\r\n]*",
                r"\s*[\r\n]",
                _SPACES,
            ]
        ),
    )
)
_tiny_aya = PreTokenization((_RIGHT_ALIGNED_DIGITS, _GPT4O))
# SentencePiece-like BPE: no cuts but at line breaks.
_lines_only = PreTokenization((r"[^\n]+|\n+",), is_byte_level=False)

_BY_NAME: dict[str, PreTokenization] = {
    "default": PreTokenization(
        (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ),
    **dict.fromkeys(
        [
            *("gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en"),
            *("jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0", "mellum", "modern-bert"),
            *("mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"),
        ],
        _gpt2,
    ),
    **dict.fromkeys(
        [
            *("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"),
            "mellum2",
        ],
        _digits_gpt2,
    ),
    **dict.fromkeys(
        [
            *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0"),
            *("lfm2", "jina-v5-nano"),
        ],
        _llama3_whole,
    ),
    **dict.fromkeys(["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], _llama3),
    **dict.fromkeys(
        [
            *("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan"),
            *("solar-open", "grok-2"),
        ],
        _qwen2,
    ),
    "qwen35": PreTokenization(
        (
            "|".join(
                [
                    _CONTRACTION,
                    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
                    r"\p{N}",
                    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
                    _LINES,
                    _SPACES,
                ]
            ),
        )
    ),
    **dict.fromkeys(["poro-chat", "bloom", "gpt3-finnish"], _bloom),
    "viking": PreTokenization((_BLOOM, r"\p{N}")),
    **dict.fromkeys(["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], _gpt4o),
    "granite-embed-multi-97m": PreTokenization((_GPT4O,), ignores_merges=True),
    "tekken": PreTokenization(
        (
            "|".join(
                [
                    _cased_words(_UPPER, _LOWER, ""),
                    r"\p{N}",
                    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                    _LINES,
                    _SPACES,
                ]
            ),
        ),
        ignores_merges=True,
        adds_bos=True,
    ),
    **dict.fromkeys(["tiny_aya", "cohere2moe"], _tiny_aya),
    "deepseek-llm": PreTokenization(
        (
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"(?<!\s)\s+\z",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenization(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")
    ),
    **dict.fromkeys(["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], _deepseek3),
    "spark2_5": PreTokenization(
        (r"\p{N}{1,3}", _HAN_KANA, _deepseek_v3("", r"[\r\n]"), r"\p{N}"),
    ),
    "youtu": PreTokenization(
        (
            _YOUTU_SCRIPTS,
            "|".join(
                [
                    _cased_words(_UPPER, _LOWER, _CONTRACTION + "?"),
                    r"\p{N}",
                    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                    _LINES,
                    _SPACES,
                ]
            ),
        ),
        ignores_merges=True,
    ),
    "falcon": PreTokenization((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "chameleon": PreTokenization(
        (
            "<sentinel:[0-9]+>",
            "(?:IMGIMG)[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        adds_bos=True,
    ),
    "jais-2": PreTokenization(
        (
            "|".join(
                [_CONTRACTION, _WORD, r"\p{N}{1,3}", _SYMBOLS, _JAIS2_LINES, _JAIS2_SPACES],
            ),
        )
    ),
    "kimi-k2": PreTokenization((_KIMI_K2,)),
    "superbpe": PreTokenization((r"\p{N}+", _RIGHT_ALIGNED_DIGITS)),
    **dict.fromkeys(["bailingmoe", "bailingmoe2", "llada-moe"], _bailing),
    "seed-coder": PreTokenization(
        (
            "|".join(
                [_CONTRACTION, _WORD, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+", _LINES, _SPACES],
            ),
        )
    ),
    "ufakzeka": PreTokenization(("|".join([_WORD, r"\p{N}", _SYMBOLS, _LINES, _SPACES]),)),
    "afmoe": PreTokenization(
        (_RIGHT_ALIGNED_DIGITS, _AFMOE_SCRIPTS, _deepseek_v3(r"[\r\n]*", _LINES)),
    ),
    "laguna": PreTokenization((r"[^\n]+|\n+", _QWEN2)),
    "exaone-moe": PreTokenization(
        (
            "|".join(
                [
                    _CONTRACTION,
                    r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                    r"\p{N}",
                    r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
                    r"\s*[\r\n]",
                    _SPACES,
                ]
            ),
        )
    ),
    "minicpm5": PreTokenization(
        (
            r"\p{N}{1,3}",
            "|".join([_CONTRACTION, _WORD, r"\p{N}+", _SYMBOLS, _LINES, _SPACES]),
        ),
        ignores_merges=True,
    ),
    **dict.fromkeys(["gemma4", "granite-embed-multi-311m", "sarvam-moe"], _lines_only),
}
