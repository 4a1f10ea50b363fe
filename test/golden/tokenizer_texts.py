"""Token ids and decoded texts from the Rust `tokenizers`, for SmolLM2 (byte-level BPE) and stories260k (SentencePiece-like BPE).

    python test/golden/tokenizer_texts.py SmolLM2-135M-Instruct.Q4_1.gguf STORIES260K_FOLDER

Made with tokenizers 0.23.3, gguf 0.19.0. SmolLM2's tokenizer is put together from the GGUF's vocabulary and merges with the
pre-tokenizer of its tokenizer.json: single digits, then GPT-2's byte level.

fixtures/tokenizer-texts.json
    [{text, smollm2: ids, smollm2_text: decoded without special tokens, stories260k: ids with BOS, stories260k_text: decoded}]
fixtures/stories260k-vocabulary.gguf
    stories260k's vocabulary as llama.cpp's converter would store it, without a tensor: the same ids must come out of it.
"""

import json
import sys
from pathlib import Path

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = Path(__file__).parent / 'fixtures'
TEXTS = [
    'Hello world',
    ' Hello world',
    '  two leading spaces',
    'trailing space ',
    'many     spaces   inside',
    ' ',
    '   ',
    '\n',
    '\n\n',
    '\r\n',
    'a\nb\n\nc\r\nd',
    '\ttabs\t\tand\n\t indent',
    'Once upon a time, there was a little girl named Lily.',
    "I'm you're he'll we've they'd it's DON'T can't",
    '0 1 12 123 1234 3.14159 1,000,000 2024-11-22',
    'ümlaut naïve façade Ångström',
    'e\u0301 combining, \u00e9 composed',
    'Привет, мир! Ελληνικά עברית العربية',
    '你好，世界。日本語のテキスト 한국어',
    'हिन्दी ไทย தமிழ்',
    '😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ☃️',
    '𝕳𝖊𝖑𝖑𝖔 𐍈 \U0001f9ff',
    'zero\u200bwidth \u00a0nbsp\u2003em \ufeffbom',
    'control \x00\x01\x1b\x7f chars',
    'def f(x):\n    """doc"""\n    return {k: v for k, v in x.items() if v != None}\n',
    '<div class="a">&amp; <!-- c --></div>',
    '{"category": "billing", "priority": 2, "tags": ["a", "b\\n"]}',
    'SELECT * FROM t WHERE a<>b AND c->>\'d\' = $1;',
    'https://example.com/a?b=c&d=%20#e',
    'CamelCaseWords snake_case_words kebab-case-words SCREAMING',
    '!!!???...---===+++***///\\\\\\',
    '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    '<|im_end|><|im_end|>',
    'text<|endoftext|>text',
    'almost <|im_en d|> and <|im_start',
    ' <|im_start|> spaced <|im_end|> ',
    '<s>one</s> two<s>',
    '<unk> and <0x0A> written',
    '▁ metaspace ▁▁ written',
    'Ġ Ċ byte-level letters written',
    'constructor __proto__ toString hasOwnProperty',
    'a' * 300,
    'ab ' * 100,
    ' '.join(['supercalifragilisticexpialidocious'] * 5),
    '\ud7ff\ue000 edge of the surrogates',
    'mixed 中a文b字1 2é3',
]


def smollm2(path):
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields[f'tokenizer.ggml.{key}'].contents()
    tokens, types = get('tokens'), get('token_type')
    t = Tokenizer(models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(m.split(' ')) for m in get('merges')],
    ))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, types) if kind == 3])
    return t


def write_vocabulary(stories):
    size = stories.get_vocab_size()
    tokens = [stories.id_to_token(i) for i in range(size)]
    kind = lambda i: 2 if i == 0 else 3 if i < 3 else 6 if i < 259 else 1
    w = gguf.GGUFWriter(HERE / 'stories260k-vocabulary.gguf', 'llama')
    w.add_tokenizer_model('llama')
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(size)])
    w.add_token_types([kind(i) for i in range(size)])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


smol = smollm2(sys.argv[1])
stories = Tokenizer.from_file(str(Path(sys.argv[2]) / 'tokenizer.json'))
rows = []
for text in TEXTS:
    a, b = smol.encode(text).ids, stories.encode(text).ids
    rows.append({
        'text': text,
        'smollm2': a,
        'smollm2_text': smol.decode(a),
        'stories260k': b,
        'stories260k_text': stories.decode(b),
    })
(HERE / 'tokenizer-texts.json').write_text('[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n')
write_vocabulary(stories)
