"""Control tokens that a prompt spells are text; those of the template stay control tokens."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.forward.tiny import SPECIAL, tiny_config, tiny_tokenizer
from ulcmod_dist.config.schema import TokenizationConfig
from ulcmod_dist.forward.batches import RefusedPrompt
from ulcmod_dist.forward.survey import describe_tokens
from ulcmod_dist.forward.tokens import PromptTokenizer

NAMES = {"open": "<|im_start|>", "close": "<|im_end|>", "think": "<think>", "mask": "<mask>"}
OTHER_NAMES = {"open": "<!open!>", "close": "<!close!>", "think": "<!think!>", "mask": "<!mask!>"}
TEMPLATE = (
    "{{% for m in messages %}}{open}{{{{ m['role'] }}}}\n{{{{ m['content'] | trim }}}}{close}\n"
    "{{% endfor %}}{{% if add_generation_prompt %}}{open}assistant\n{think}{{% endif %}}"
)
TEXTS = ["hello <|im_start|> think <mask> im_end", "user assistant\n", "a b c < | > x"] * 3
CONFIG = tiny_config("llama", max_position_embeddings=512)
KINDS = ["bytes", "prefix once", "prefix always", "lowercase"]


def make_backend(kind: str) -> tuple[Any, Any]:
    if kind == "bytes":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return backend, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    if kind == "lowercase":
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return backend, trainers.WordPieceTrainer(vocab_size=90, special_tokens=["<unk>"])
    backend = Tokenizer(models.Unigram())
    scheme: Any = "first" if kind == "prefix once" else "always"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return backend, trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>"
    )


@cache
def train(kind: str) -> str:
    backend, trainer = make_backend(kind)
    backend.train_from_iterator(TEXTS, trainer)
    return str(backend.to_str())


def make_tokenizer(kind: str, names: Mapping[str, str]) -> Any:
    """A tokenizer of a kind whose control tokens bear these names: three special, one added."""
    backend = Tokenizer.from_str(train(kind))
    backend.add_special_tokens([names["open"], AddedToken(names["close"], rstrip=True)])
    backend.add_tokens([AddedToken(names["think"], normalized=kind != "lowercase")])
    backend.add_special_tokens([AddedToken(names["mask"], lstrip=True)])
    tokenizer_class: Any = PreTrainedTokenizerFast
    return tokenizer_class(tokenizer_object=backend, chat_template=TEMPLATE.format(**names))


def encode(tokenizer: Any, prompt: Any, **options: Any) -> Any:
    config = TokenizationConfig(system=None, **options)
    [encoded] = PromptTokenizer(tokenizer, CONFIG, config).encode([prompt])
    return encoded


SPELLING = ["hi <|im_end|> you", "<|im_end|>", "a<think>b <mask> c<|im_start|>", "<|im_<|im_end|>"]


@pytest.mark.parametrize("template", ["model", "none"])
@pytest.mark.parametrize("tokens", ["all", "prompt", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_encode__spelled_control_tokens_read_as_where_no_token_is_spelled_so(
    kind: str, tokens: str, template: str
) -> None:
    subject, other = make_tokenizer(kind, NAMES), make_tokenizer(kind, OTHER_NAMES)
    for text in SPELLING:
        expected = encode(other, text, tokens=tokens, template=template, control_tokens="tokens")
        assert encode(subject, text, tokens=tokens, template=template) == expected


def test_encode__the_option_reads_them_as_the_tokenizer_does() -> None:
    tokenizer = make_tokenizer("bytes", NAMES)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi <|im_end|> you"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    encoded = encode(tokenizer, "hi <|im_end|> you", control_tokens="tokens")
    assert list(encoded.ids) == tokenizer.encode(text, add_special_tokens=False)
    assert encode(tokenizer, "hi <|im_end|> you").ids != encoded.ids


PIECES = st.sampled_from([*SPECIAL, "a", " ", "\n", "<", "|", ">", "user", "é", "<|user", "</s"])


@settings(max_examples=100, deadline=None)
@given(
    contents=st.lists(st.lists(PIECES, min_size=1, max_size=6).map("".join), min_size=1, max_size=3)
)
def test_encode__any_words_are_bytes_between_the_templates_own_tokens(contents: list[str]) -> None:
    roles = [("user", "assistant")[number % 2] for number in range(len(contents))]
    template = (
        "<s>{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = tiny_tokenizer(template)
    chat = tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=True))
    encoded = encode(tokenizer, chat)
    expected: list[Any] = [1]
    for role, content in zip(roles, contents, strict=True):
        letters = tiny_tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str(content)
        words = [tokenizer.convert_tokens_to_ids(c) for piece, _ in letters for c in piece]
        expected += [SPECIAL.index(f"<|{role}|>"), *words, 2]
    expected += [SPECIAL.index("<|assistant|>")] if roles[-1] == "user" else []
    assert list(encoded.ids) == expected


def test_encode__a_control_token_that_merges_lead_to_is_text_as_well() -> None:
    vocabulary = {token: n for n, token in enumerate(["<", "s", ">", "s>", "<s>", "a"])}
    backend = Tokenizer(models.BPE(vocabulary, [("s", ">"), ("<", "s>")]))
    backend.add_special_tokens(["<s>"])
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_object=backend)
    assert encode(tokenizer, "a<s>", template="none").ids == (5, 0, 3)
    assert encode(tokenizer, "a<s>", template="none", control_tokens="tokens").ids == (5, 4)


def test_encode__a_template_may_split_and_strip_at_a_token() -> None:
    splitting = (
        "{% for m in messages %}<|{{ m.role }}|>{% if '</s>' in m.content %}"
        "</s>{{ m.content.split('</s>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}"
        "<s>{% endfor %}"
    )
    tokenizer = tiny_tokenizer(splitting)
    chat = ({"role": "user", "content": "<s>"}, {"role": "assistant", "content": "a</s>\n\nb<s>"})
    subject = PromptTokenizer(tokenizer, CONFIG, TokenizationConfig(tokens="prompt"))
    [encoded] = subject.encode([chat])
    shown = '<|user|> "<s>" <s> <|assistant|> </s> "b<s>" <s>'
    assert describe_tokens(subject, encoded.ids, quote=True) == shown
    pairs = zip(encoded.ids, encoded.token_mask, strict=True)
    assert subject.decode([token for token, counted in pairs if counted]) == "<s>"


def test_encode__what_cannot_be_read_exactly_is_refused() -> None:
    deciding = "{% for m in messages %}{{ m['content'][:2] }}{{ m['content'] }}{% endfor %}"
    with pytest.raises(RefusedPrompt, match=r"position 0 spells control tokens.*template decides"):
        encode(tiny_tokenizer(deciding), "<s>")
    with pytest.raises(RefusedPrompt, match="characters of private use"):
        encode(tiny_tokenizer(TEMPLATE.format(**NAMES)), "<s> \U00100000")


def test_read__only_prompts_that_spell_control_tokens_have_another_digest() -> None:
    def read(text: str, **options: Any) -> Any:
        config = TokenizationConfig(system=None, **options)
        tokenizer = make_tokenizer("bytes", NAMES)
        return PromptTokenizer(tokenizer, CONFIG, config).read(text)

    for text, spells in (("hi", False), ("hi <think>", True)):
        literal, tokens = read(text), read(text, control_tokens="tokens")
        assert literal.spells_control_tokens == tokens.spells_control_tokens == spells
        assert (literal.digest != tokens.digest) == spells


def test_describe_tokens__tells_control_tokens_from_text() -> None:
    tokenizer = tiny_tokenizer("<s>{{ messages[0]['content'] }}</s>")
    config = TokenizationConfig(system=None)
    subject = PromptTokenizer(tokenizer, CONFIG, config)
    [encoded] = subject.encode(["a </s>\nb"])
    assert describe_tokens(subject, encoded.ids, quote=True) == '<s> "a </s>\\nb" </s>'
    assert describe_tokens(subject, encoded.ids, quote=False) == '<s> "…" </s>'
