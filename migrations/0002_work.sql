-- All that is long and leased: fine-tuning jobs, later merges, batches and evaluation runs. One table, so
-- that there is one claim, one heartbeat, one way to cancel and one event log for every kind.

create table work (
  -- the id of what is worked on: ftjob-…, batch_…
  id           text primary key,
  -- the order of arrival
  seq          bigint generated always as identity,
  kind         text not null,
  project_id   text not null references projects,
  state        text not null default 'ready' check (state in ('ready', 'running', 'paused', 'ended')),
  priority     integer not null default 0,
  not_before   timestamptz not null default '-infinity',
  -- claims, and errors of the work itself, since something of it was last committed
  attempt      integer not null default 0,
  faults       integer not null default 0,
  lease_owner  text,
  -- fences: every write of a holder names the token it was given, and a later claim has a higher one
  lease_token  bigint not null default 0,
  lease_until  timestamptz,
  created_at   timestamptz not null default now(),
  check (state <> 'running' or (lease_owner is not null and lease_until is not null))
);
-- The claim looks at these alone; what has ended, which is nearly all, is not in it.
create index work_claimable on work (kind, priority desc, seq) where state in ('ready', 'running');
create index work_running on work (project_id) where state = 'running';

create table work_events (
  id          text primary key,
  seq         bigint generated always as identity,
  work_id     text not null references work,
  -- what the event tells, once: work that is done again after a crash tells nothing twice
  dedupe_key  text not null,
  level       text not null check (level in ('info', 'warn', 'error')),
  type        text not null check (type in ('message', 'metrics')),
  message     text not null,
  data        jsonb not null default '{}',
  created_at  timestamptz not null default clock_timestamp(),
  unique (work_id, dedupe_key)
);
create index work_events_newest on work_events (work_id, seq desc);
