// Who holds a lease: names of processes, and the proof that one is dead.

import { readFile, readlink } from 'node:fs/promises'

/** A process as a lease names it, and the part that all processes it can see have in common. */
export interface Owner {
  name: string
  /** Undefined where nothing can be proved about other processes. */
  neighbours: string | undefined
}

/** This process: machine boot, process namespace, number and start time make it unmistakable. */
export async function thisProcess(): Promise<Owner> {
  const [boot, namespace, start] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => ''),
    readlink('/proc/self/ns/pid').catch(() => ''),
    startTime(process.pid),
  ])
  if (!boot || !namespace || !start)
    return { name: `${crypto.randomUUID()}/${process.pid}`, neighbours: undefined }
  const neighbours = `${boot.trim()}/${namespace}/`
  return { name: `${neighbours}${process.pid}/${start}`, neighbours }
}

/** Whether the owner is certainly gone; false means only that it cannot be proved. */
export async function isProvablyDead(owner: string, self: Owner): Promise<boolean> {
  if (self.neighbours === undefined || !owner.startsWith(self.neighbours)) return false
  const [pid, start] = owner.slice(self.neighbours.length).split('/')
  if (!pid || !start) return false
  // A number is given again, a start time with it is not.
  return (await startTime(Number(pid))) !== start
}

/** In clock ticks since boot; undefined for a process that is not there, or is only not yet reaped. */
async function startTime(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  // The name in brackets may hold anything; the state is the first field behind it.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields?.[0] === 'Z' || fields?.[0] === 'X' ? undefined : fields?.[19]
}
