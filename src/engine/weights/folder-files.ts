// Which files of a Hugging Face folder a model reads besides config.json and its weights. The rest is somebody else's.

/** In this order they are written. */
export const FOLDER_TEXTS = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'vocab.txt',
  'chat_template.jinja',
] as const
