// Whole tables as text, and back: SQL that knows no table by name. Values are what Postgres itself writes and reads,
// so that no version of it and no type of ours matters.

import type { Db, PoolClient } from './pool.ts'

export interface Table {
  readonly name: string
  readonly columns: readonly string[]
}

const FETCH = 200

/** One way to write times and numbers, whatever the server's settings are. */
const settle = async (tx: Db): Promise<void> => {
  for (const [name, value] of [
    ['timezone', 'UTC'],
    ['datestyle', 'ISO, YMD'],
    ['intervalstyle', 'postgres'],
    ['extra_float_digits', '3'],
    ['bytea_output', 'hex'],
    // Objects are moved in between, which may take longer than a transaction may be silent.
    ['idle_in_transaction_session_timeout', '0'],
  ])
    await tx.query('select set_config($1, $2, true)', [name, value])
}

/** Begins to read: everything as it is at this moment, whatever is written meanwhile. */
export const beginSnapshot = async (client: PoolClient): Promise<void> => {
  await client.query('begin isolation level repeatable read read only')
  await settle(client)
}

/** The migrations that the database has seen, in order; undefined where it is none of ours. */
export const migrationsOf = async (db: Db): Promise<string[] | undefined> => {
  const { rows: found } = await db.query<{ is: boolean }>(
    `select to_regclass('migrations') is not null as is`,
  )
  if (!found[0]!.is) return undefined
  const { rows } = await db.query<{ name: string }>('select name from migrations order by id')
  return rows.map(({ name }) => name)
}

/** All tables of ours with the columns that can be written. */
export const listTables = async (db: Db): Promise<Table[]> => {
  const { rows } = await db.query<Table>(
    `select c.relname as name, array_agg(a.attname::text order by a.attnum) as columns
       from pg_class c
       join pg_attribute a on a.attrelid = c.oid
      where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
        and c.relname <> 'migrations'
        and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      group by c.relname
      order by c.relname`,
  )
  return rows
}

/** The rows of a table, some at a time: each chunk is a JSON array of rows, a row an array of texts. */
export async function* readRows(
  tx: Db,
  { name, columns }: Table,
): AsyncGenerator<{ rows: number; json: string }> {
  const values = columns.map((column) => `${quote(column)}::text`).join(', ')
  await tx.query(
    `declare all_rows no scroll cursor for
      select json_build_array(${values})::text as row from ${quote(name)}`,
  )
  while (true) {
    const { rows } = await tx.query<{ row: string }>(`fetch ${FETCH} from all_rows`)
    if (rows.length === 0) break
    yield { rows: rows.length, json: `[${rows.map(({ row }) => row).join(',\n')}]` }
  }
  await tx.query('close all_rows')
}

/** How many rows the table has; what is empty has none. */
export const countRows = async (db: Db, table: string): Promise<number> => {
  const { rows } = await db.query<{ n: number }>(`select count(*) as n from ${quote(table)}`)
  return rows[0]!.n
}

/** Begins to write; until the end no row must find the rows that it refers to. */
export const beginLoad = async (tx: PoolClient): Promise<ForeignKey[]> => {
  await tx.query('begin')
  await settle(tx)
  const { rows } = await tx.query<ForeignKey>(
    `select conname as name, conrelid::regclass::text as table, pg_get_constraintdef(oid) as definition
       from pg_constraint
      where contype = 'f' and connamespace = current_schema()::regnamespace
      order by oid`,
  )
  for (const key of rows)
    await tx.query(`alter table ${key.table} drop constraint ${quote(key.name)}`)
  return rows
}

export interface ForeignKey {
  readonly name: string
  /** Quoted as SQL needs it. */
  readonly table: string
  readonly definition: string
}

/** What writes chunks of `readRows` into this table, and tells how many rows they were. */
export const rowWriter = async (
  tx: Db,
  table: Table,
): Promise<(json: string) => Promise<number>> => {
  const { rows: types } = await tx.query<{ name: string; type: string }>(
    `select attname as name, format_type(atttypid, atttypmod) as type
       from pg_attribute where attrelid = to_regclass($1) and attname = any ($2)`,
    [quote(table.name), table.columns],
  )
  const typeOf = new Map(types.map(({ name, type }) => [name, type]))
  const values = table.columns.map((column, at) => {
    const type = typeOf.get(column)
    if (type === undefined)
      throw new Error(`The backup holds ${table.name}.${column}, which the database does not have.`)
    return `(r ->> ${at})::${type}`
  })
  const insert = `insert into ${quote(table.name)} (${table.columns.map(quote).join(', ')})
     overriding system value
     select ${values.join(', ')} from json_array_elements($1::json) r`
  return async (json) => (await tx.query(insert, [json])).rowCount ?? 0
}

/** Ends what `beginLoad` began: references hold again, and counters go on behind the greatest number. */
export const endLoad = async (tx: PoolClient, keys: readonly ForeignKey[]): Promise<void> => {
  const { rows } = await tx.query<{ table: string; column: string }>(
    `select attrelid::regclass::text as table, attname as column
       from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
        and c.relname <> 'migrations' and attidentity <> ''`,
  )
  for (const { table, column } of rows)
    await tx.query(
      `select setval(pg_get_serial_sequence($1, $2), max(${quote(column)})) from ${table}
       having max(${quote(column)}) is not null`,
      [table, column],
    )
  for (const key of keys)
    await tx.query(`alter table ${key.table} add constraint ${quote(key.name)} ${key.definition}`)
  await tx.query('commit')
}

/** Names come from the catalog or from a backup: nothing in them may end the quotes. */
const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`
