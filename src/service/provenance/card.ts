// A model card in Hugging Face's form, from the statement alone.

import type { Statement } from './provenance.ts'

/** README.md of an export. */
export function modelCard({
  model,
  base,
  training,
  merge,
  imported,
  evals,
  parity,
  parents,
  software,
  created_at,
}: Statement): string {
  const lines = [
    '---',
    `base_model: ${JSON.stringify(base.model)}`,
    'library_name: transformers',
    'tags: [luthier]',
    '---',
    '',
    `# ${model}`,
    '',
    `Made ${created_at} by ${software.name} ${software.version} from ${parents.join(', ') || base.model}.`,
    '',
  ]
  if (training) {
    const { training_file: file, seed, method, trained_tokens } = training
    lines.push(
      '## Training',
      '',
      `- Job ${training.job}, seed ${seed}, ${trained_tokens ?? 'unknown'} tokens, on ${training.device ?? 'an unknown device'}`,
      `- File ${file.id}: ${file.rows.count} rows, sha256 \`${file.sha256}\``,
      '',
      '```json',
      JSON.stringify(method, null, 2),
      '```',
      '',
    )
  }
  if (merge)
    lines.push(
      '## Merge',
      '',
      `- Merge ${merge.merge}`,
      ...(merge.chosen
        ? [
            `- Chosen by a search, candidate ${merge.chosen.candidate} of ${merge.chosen.budget}: weights ${merge.chosen.weights.join(', ')}${merge.chosen.density === undefined ? '' : `, density ${merge.chosen.density}`}, ${merge.chosen.score === undefined ? `loss ${merge.chosen.loss}` : `score ${merge.chosen.score}`}`,
          ]
        : []),
      '',
      '```json',
      JSON.stringify(merge.config, null, 2),
      '```',
      '',
    )
  if (imported)
    lines.push(
      '## Import',
      '',
      `- Import ${imported.import}, ${imported.imported_at}`,
      ...imported.received.map(
        ({ filename, sha256, bytes }) => `- ${filename}: ${bytes} bytes, sha256 \`${sha256}\``,
      ),
      '',
    )
  if (evals.length > 0)
    lines.push(
      '## Evals',
      '',
      '| eval | passed | failed | errored | of |',
      '| ---- | ------ | ------ | ------- | -- |',
      ...evals.map(
        ({ name, passed, failed, errored, total }) =>
          `| ${name.replace(/[|\n]/g, ' ')} | ${passed} | ${failed} | ${errored} | ${total} |`,
      ),
      '',
    )
  if (parity) lines.push('## Parity', '', '```json', JSON.stringify(parity, null, 2), '```', '')
  lines.push('`provenance.json` is the signed statement: `luthier verify FOLDER` checks it.', '')
  return lines.join('\n')
}
