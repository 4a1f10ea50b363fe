"""Tokenizers built as Qwen's and GPT-2's are, with small vocabularies: ids, rendered chats and masks from `tokenizers` and
transformers.

    python test/golden/family_tokenizers.py

Made with transformers 5.24.0, tokenizers 0.23.3, gguf 0.19.0. The templates are ours, in the manner of Qwen 2.5 and Qwen 3.

fixtures/family-tokenizers/
    <qwen|gpt2>/tokenizer.json, tokenizer_config.json    the folder
    <qwen|gpt2>.gguf                                     the same vocabulary as llama.cpp's converter stores it, without a tensor
    golden.json   texts: [{text, qwen: ids, qwen_text: decoded without special tokens, gpt2, gpt2_text}]
                  templates: {name: text}
                  rendered: [{template, messages, tools?, add_generation_prompt, text}]
                  masked: [{template, messages, tools?, tokens, mask}]: as in chat_templates.py
"""

import json
import shutil
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent / "fixtures" / "family-tokenizers"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog. They're sure it's what we've said; I'm glad you'll come.",
    "def add(first, second):\n    return first + second\n\nclass Thing:\n    def __init__(self):\n        self.value = 0\n",
    '{"name": "weather", "arguments": {"city": "Paris", "days": 12}}',
    "system user assistant tool You are a helpful assistant. What is the weather in the city? It is raining today.",
    "Ångström é naïve 2024 12345 你好世界 日本語 Привет мир",
]
TEXTS = [
    "Hello world", " Hello world", "two  spaces   inside ", "\n", "\n\n", "a\r\nb\n\n c", "\ttabs\t\tand\n\t indent", "",
    "I'm you're he'll WE'VE they'd IT'S DON'T can't 'S", "0 1 12 123 1234 3.14159 1,000,000 ½ ² ٣",
    "ümlaut naïve Ångström A\u030angstro\u0308m", "e\u0301 combining, \u00e9 composed", "Привет, мир! Ελληνικά العربية",
    "你好，世界。日本語 한국어 \u1112\u1161\u11ab", "हिन्दी ไทย", "😀 👩‍👩‍👧‍👦 🇩🇪", "zero\u200bwidth \u00a0nbsp\u2003em \ufeffbom", "\ufb01 ligature K kelvin",
    "def f(x):\n    return {k: v for k, v in x.items()}\n", '{"name": "weather", "arguments": {"city": "Köln"}}',
    "!!!???...---===\n\n***", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "text<|endoftext|>text",
    "almost <|im_en d|>", "<think>\n\n</think>\n\nYes", "<tool_call>\n{}\n</tool_call>", "a" * 100, "constructor __proto__",
    " \n \n  x", "end with spaces   \n", "snake_case CamelCase kebab-case",
]
QWEN_25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a small helper.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nSignatures are within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nCall as {\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a small helper.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' }}BEGIN{{- message.content + '<|im_end|>' }}END{{- '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# What Qwen 3 does that Qwen 2.5 does not: it walks backwards, cuts thoughts out of earlier turns, and opens the last with some.
QWEN_3 = """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "user" or message.role == "system" %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
TEMPLATES = {"qwen2.5": QWEN_25.replace("BEGIN", "").replace("END", ""), "qwen3": QWEN_3}
MARKED = QWEN_25.replace(
    "BEGIN", "{%- if message.role == 'assistant' %}{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{%- else %}"
).replace("END", "{%- endif %}")

SYSTEM = {"role": "system", "content": "You are terse."}
USER = {"role": "user", "content": "What is the weather?"}
ASSISTANT = {"role": "assistant", "content": "It is raining."}
ODD = {"role": "user", "content": "  spaces \n\nand <|im_end|> 😀 \"quotes\" & <tags>  "}
THOUGHT = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nYes."}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Wetter für \"hier\" <b>", "parameters": {"type": "object"}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": f"c{i}", "type": "function", "function": {"name": "weather", "arguments": {"city": city, "n": [1, 2.5, None, True]}}}
    for i, city in enumerate(["Köln", "Paris"])
]}
REPLIES = [{"role": "tool", "tool_call_id": f"c{i}", "content": text} for i, text in enumerate(["rain", "sun"])]
CHATS = [
    ([USER], None), ([SYSTEM, USER], None), ([SYSTEM, USER, ASSISTANT], None), ([SYSTEM, USER, ASSISTANT, ODD], None),
    ([USER, ASSISTANT, USER, THOUGHT], None), ([USER, THOUGHT, USER, THOUGHT], None), ([SYSTEM, USER], TOOLS), ([USER, CALL], TOOLS),
    ([USER, CALL, *REPLIES], TOOLS), ([USER, CALL, *REPLIES, ASSISTANT], TOOLS),
]


def train(normalizer, pre_tokenizer, specials, added):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS * 2, trainers.BpeTrainer(
        vocab_size=256 + 70, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    ))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in added])
    return tokenizer


def qwen():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = train(
        normalizers.NFC(), pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), byte_level]),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<tool_call>", "</tool_call>", "<think>", "</think>"],
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    return tokenizer


def gpt2():
    tokenizer = train(None, pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"], [])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def save(name, tokenizer, pre, config):
    folder = HERE / name
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    size = tokenizer.get_vocab_size()
    parsed = json.loads(tokenizer.to_str())
    added = {t["id"]: t["special"] for t in parsed["added_tokens"]}
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", "qwen2" if name == "qwen" else "gpt2")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([tokenizer.id_to_token(i) for i in range(size)])
    w.add_token_types([1 if i not in added else 3 if added[i] else 4 for i in range(size)])
    w.add_token_merges([" ".join(pair) for pair in parsed["model"]["merges"]])
    for key, token in [("eos", config["eos_token"]), ("bos", config.get("bos_token"))]:
        if token:
            getattr(w, f"add_{key}_token_id")(tokenizer.token_to_id(token))
    if name == "qwen":
        w.add_add_bos_token(False)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


shutil.rmtree(HERE, ignore_errors=True)
q, g = qwen(), gpt2()
save("qwen", q, "qwen2", {"eos_token": "<|im_end|>", "bos_token": None, "chat_template": TEMPLATES["qwen2.5"]})
save("gpt2", g, "gpt-2", {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})

texts = []
for text in TEXTS:
    a, b = q.encode(text).ids, g.encode(text).ids
    texts.append({"text": text, "qwen": a, "qwen_text": q.decode(a), "gpt2": b, "gpt2_text": g.decode(b)})

rendered = []
for name, template in TEMPLATES.items():
    for messages, tools in CHATS:
        if tools and name == "qwen3":
            continue
        for generate in (True, False):
            (text,), _ = render_jinja_template(
                conversations=[messages], chat_template=template, tools=tools, add_generation_prompt=generate,
            )
            row = {"template": name, "messages": messages, "add_generation_prompt": generate, "text": text}
            rendered.append(row | ({"tools": tools} if tools else {}))

fast = PreTrainedTokenizerFast(tokenizer_object=q, eos_token="<|im_end|>")
masked = []
for messages in [[USER, ASSISTANT], [SYSTEM, USER, ASSISTANT, ODD, ASSISTANT], [SYSTEM, USER, ASSISTANT, USER, {"role": "assistant", "content": "  padded\n"}]]:
    plain = fast.apply_chat_template(messages, chat_template=TEMPLATES["qwen2.5"], tokenize=True, return_dict=True)
    out = fast.apply_chat_template(
        messages, chat_template=MARKED, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = out["input_ids"], out["assistant_masks"]
    assert ids == plain["input_ids"]
    end = len(mask) - mask[::-1].index(1)
    masked.append({"template": "qwen2.5", "messages": messages, "tokens": ids[:end], "mask": mask[:end]})

(HERE / "golden.json").write_text(
    json.dumps({"texts": texts, "templates": TEMPLATES, "rendered": rendered, "masked": masked}, indent=None) + "\n"
)
