// What computes here, in words: figures that were measured on one processor say nothing of another.

import { readFile } from 'node:fs/promises'
import { arch, cpus } from 'node:os'

/** Lines of /proc/cpuinfo that tell kinds of processors apart; a virtual one's name alone may not. */
const TELLING = /^(vendor_id|cpu family|model|model name|stepping|flags|CPU \w+|Features)\s*:/

/** The same on processors of one kind. */
export async function describeProcessor(): Promise<string> {
  const known = await readFile('/proc/cpuinfo', 'utf8').catch(() => '')
  const [first = ''] = known.split('\n\n')
  const lines = first.split('\n').filter((line) => TELLING.test(line))
  return [arch(), ...(lines.length > 0 ? lines : [cpus()[0]?.model])].join('\n')
}
