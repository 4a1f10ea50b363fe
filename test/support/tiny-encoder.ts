// A BERT of two layers with random weights and a tokenizer of letters: what tests of encoders train and ask.

import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const LETTERS = [...'abcdefghijklmnopqrstuvwxyz']
const VOCABULARY = [
  '[PAD]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  ...LETTERS,
  ...LETTERS.map((l) => `##${l}`),
  '.',
  '!',
]

const fixture = (name: string) =>
  fileURLToPath(new URL(`../golden/fixtures/encoders/bert/${name}`, import.meta.url))

export interface TinyEncoderOptions {
  /** With the classifier that it has. */
  head?: boolean
  /** Three; without them LABEL_0, …. */
  labels?: readonly string[]
  /** Each label by itself. */
  several?: boolean
  /** Of this family. */
  family?: 'bert' | 'distilbert'
}

/** Writes the model to `folder`. Texts have up to 38 letters. */
export async function writeTinyEncoder(
  folder: string,
  { head = true, labels, several = false, family = 'bert' }: TinyEncoderOptions = {},
): Promise<string> {
  await mkdir(folder, { recursive: true })
  const source = (name: string) => fixture(`../${family}/${name}`)
  await copyFile(source('model.safetensors'), join(folder, 'model.safetensors'))
  const config = JSON.parse(await readFile(source('config.json'), 'utf8'))
  const architectures = head ? config.architectures : ['BertModel']
  const named = labels && { id2label: Object.fromEntries(labels.entries()) }
  const kind = several && { problem_type: 'multi_label_classification' }
  const written = { ...config, architectures, ...named, ...kind }
  await writeFile(join(folder, 'config.json'), JSON.stringify(written))
  const id = (token: string) => VOCABULARY.indexOf(token)
  const special = (token: string) => ({
    id: id(token),
    content: token,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })
  const around = (token: string, type_id: number) => ({ SpecialToken: { id: token, type_id } })
  const text = (name: string, type_id: number) => ({ Sequence: { id: name, type_id } })
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: VOCABULARY.slice(0, 4).map(special),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [around('[CLS]', 0), text('A', 0), around('[SEP]', 0)],
      pair: [
        around('[CLS]', 0),
        text('A', 0),
        around('[SEP]', 0),
        text('B', 1),
        around('[SEP]', 1),
      ],
      special_tokens: Object.fromEntries(
        ['[CLS]', '[SEP]'].map((token) => [
          token,
          { id: token, ids: [id(token)], tokens: [token] },
        ]),
      ),
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(VOCABULARY.map((token, i) => [token, i])),
    },
  }
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ cls_token: '[CLS]' }))
  return folder
}

/** A RoBERTa of two layers with random weights; its tokens are letters, written by GPT-2's bytes. */
export async function writeTinyRoberta(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true })
  for (const name of ['config.json', 'model.safetensors'])
    await copyFile(fixture(`../roberta/${name}`), join(folder, name))
  const special = ['<s>', '<pad>', '</s>', '<unk>']
  const vocabulary = [...special, 'Ġ', ...LETTERS]
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'ByteLevel',
      add_prefix_space: false,
      trim_offsets: true,
      use_regex: true,
    },
    post_processor: {
      type: 'RobertaProcessing',
      sep: ['</s>', 2],
      cls: ['<s>', 0],
      trim_offsets: true,
      add_prefix_space: false,
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
      merges: [],
    },
  }
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ cls_token: '<s>' }))
  return folder
}
