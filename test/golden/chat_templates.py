"""Chats as transformers renders them, and the assistant's tokens as its `{% generation %}` blocks mark them.

    python test/golden/chat_templates.py SmolLM2-135M-Instruct.Q4_1.gguf

Made with transformers 5.24.0, jinja2 3.1.6, gguf 0.19.0. `smollm2` is the GGUF's own template; the others are ours, in the manner of
the families they are named after.

fixtures/chat-templates.json
    templates: {name: text}
    rendered: [{template, messages, tools?, add_generation_prompt, text | error}]
    masked: [{messages, tokens, mask}]: `smollm2` over SmolLM2's tokenizer; mask is 1 on an assistant's content and its <|im_end|>,
        cut after the last 1
"""

import json
import sys
from pathlib import Path

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent / 'fixtures'
fields = gguf.GGUFReader(sys.argv[1]).fields
SMOLLM2 = fields['tokenizer.chat_template'].contents()

TEMPLATES = {
    'smollm2': SMOLLM2,
    'llama2': """{% if messages[0]['role'] == 'system' %}
    {% set system = messages[0]['content'] %}
    {% set rest = messages[1:] %}
{% else %}
    {% set rest = messages %}
{% endif %}
{% for m in rest %}
    {% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if m['role'] == 'user' %}
        {{- bos_token + '[INST] ' -}}
        {% if loop.first and system is defined %}{{ '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' }}{% endif %}
        {{- m['content'].strip() + ' [/INST]' -}}
    {% else %}
        {{- ' ' + m['content'] | trim + ' ' + eos_token -}}
    {% endif %}
{% endfor %}""",
    'llama3': """{{- bos_token }}
{%- if tools is not none %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nTools:\\n' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- '\\n\\n' }}
    {%- endfor %}
    {{- '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls is defined and message.tool_calls %}
        {%- for call in message.tool_calls %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
            {{- '{"name": "' + call.function.name + '", "parameters": ' + (call.function.arguments | tojson) + '}' }}
            {{- '<|eot_id|>' }}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}""",
    'zephyr': """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    'namespace': """{%- set ns = namespace(count=0, last='') -%}
{% for m in messages if m.role != 'system' %}
  {%- set ns.count = ns.count + 1 -%}
  {%- set ns.last = m.role %}
{{ loop.index }}/{{ loop.length }} {{ m.role | upper }}: {{ m.content | replace('\\n', ' ') }}{{ ' (' ~ m.name ~ ')' if m.name is defined else '' }}
{% endfor %}
{{ ns.count }} {{ ns.last }}{% if add_generation_prompt %} ASSISTANT:{% endif %}""",
}

SYSTEM = {'role': 'system', 'content': 'You are terse.'}
USER = {'role': 'user', 'content': 'Hello, who are you?'}
ASSISTANT = {'role': 'assistant', 'content': 'A model.'}
ODD = {'role': 'user', 'content': '  spaces \n\nand <|im_end|> 😀 "quotes" & <tags>  '}
CHATS = [
    [USER],
    [SYSTEM, USER],
    [USER, ASSISTANT],
    [SYSTEM, USER, ASSISTANT, ODD],
    [SYSTEM, USER, ASSISTANT, ODD, {'role': 'assistant', 'content': '  padded\n'}],
    [USER, USER],
    [{'role': 'user', 'content': 'Hi', 'name': 'ann'}],
]
TOOLS = [{'type': 'function', 'function': {'name': 'weather', 'description': 'Wetter für "hier" <b>', 'parameters': {'type': 'object', 'properties': {'city': {'type': 'string'}}}}}]
CALL = {'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'c1', 'type': 'function', 'function': {'name': 'weather', 'arguments': {'city': 'Köln', 'n': [1, 2.5, None, True]}}}]}
TOOL_CHAT = [USER, CALL, {'role': 'tool', 'tool_call_id': 'c1', 'content': 'rain'}, ASSISTANT]

rendered = []


def render(name, messages, add_generation_prompt, tools=None):
    row = {'template': name, 'messages': messages, 'add_generation_prompt': add_generation_prompt}
    if tools:
        row['tools'] = tools
    try:
        (text,), _ = render_jinja_template(
            conversations=[messages], chat_template=TEMPLATES[name], tools=tools,
            add_generation_prompt=add_generation_prompt, bos_token='<s>', eos_token='</s>',
        )
        row['text'] = text
    except Exception as error:
        row['error'] = str(error)
    rendered.append(row)


for name in TEMPLATES:
    for chat in CHATS:
        for generate in (True, False):
            render(name, chat, generate)
render('llama3', TOOL_CHAT, False, TOOLS)
render('llama3', TOOL_CHAT[:3], True, TOOLS)

get = lambda key: fields[f'tokenizer.ggml.{key}'].contents()
tokens = get('tokens')
t = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(m.split(' ')) for m in get('merges')]))
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
t.decoder = decoders.ByteLevel()
t.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, get('token_type')) if kind == 3])
smol = PreTrainedTokenizerFast(tokenizer_object=t, bos_token='<|im_start|>', eos_token='<|im_end|>')
MARKED = SMOLLM2.replace(
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
    "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}",
)
assert MARKED != SMOLLM2
masked = []
for chat in [
    [USER, ASSISTANT],
    [SYSTEM, USER, ASSISTANT],
    [SYSTEM, USER, ASSISTANT, {'role': 'user', 'content': 'And 2024?'}, {'role': 'assistant', 'content': 'Still 1 model.\n\nYes. 😀'}],
    [USER, ASSISTANT, ASSISTANT],
    [{'role': 'user', 'content': 'JSON please'}, {'role': 'assistant', 'content': '{"category": "billing", "priority": 2}'}],
]:
    out = smol.apply_chat_template(chat, chat_template=MARKED, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = out['input_ids'], out['assistant_masks']
    end = len(mask) - mask[::-1].index(1)
    masked.append({'messages': chat, 'tokens': ids[:end], 'mask': mask[:end]})

(HERE / 'chat-templates.json').write_text(json.dumps({'templates': TEMPLATES, 'rendered': rendered, 'masked': masked}, indent=1) + '\n')
