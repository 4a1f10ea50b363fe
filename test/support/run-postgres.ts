// A process that starts the embedded Postgres of the folder it is given, says so, and stops it on SIGTERM.

import { startEmbeddedPostgres } from '../../src/service/db/embedded-postgres.ts'
import { testLog } from './log.ts'

const postgres = await startEmbeddedPostgres({ home: process.argv[2]!, log: testLog })
process.stdout.write(
  `${JSON.stringify({ url: postgres.url, pid: postgres.pid, adopted: postgres.adopted })}\n`,
)
const alive = setInterval(() => {}, 1000)
process.once('SIGTERM', () => {
  clearInterval(alive)
  void postgres.stop()
})
