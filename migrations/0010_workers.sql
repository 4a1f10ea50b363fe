-- Processes that compute and that API processes pass inference on to. A row is a process that lives: it renews
-- heartbeat_at, and is forgotten by those who look when it does not.

create table workers (
  id            text primary key,
  -- where it answers, as other processes reach it
  url           text not null,
  -- what a process must show in order to be answered; new with every start
  token         text not null,
  -- ids of base models and hashes of adapters that answer without being loaded first
  resident      text[] not null default '{}',
  -- choices under way or waiting
  taken         integer not null default 0,
  started_at    timestamptz not null default clock_timestamp(),
  heartbeat_at  timestamptz not null default clock_timestamp()
);
