-- Sweeps: many jobs of one kind, of which the better ones go on. Their jobs are ordinary ones that pause by themselves.

create table fine_tuning_sweeps (
  id               text primary key references work,
  seq              bigint generated always as identity,
  project_id       text not null references projects,
  organization_id  text not null references organizations,
  status           text not null check (status in ('running', 'succeeded', 'failed', 'cancelled')),
  -- as sent: the job that all trials start from, what is searched, and what it may cost
  job              jsonb not null,
  search           jsonb not null,
  budget_steps     integer check (budget_steps > 0),
  max_trials       integer not null check (max_trials > 1),
  seed             bigint not null,
  -- [{job_id, hyperparameters, rungs: [{share, step, valid_loss}], dropped}], written by the holder of the work alone
  trials           jsonb not null default '[]',
  -- how many shares of a trial have been compared
  rung             integer not null default 0,
  winner           text references fine_tuning_jobs,
  error            jsonb,
  created_at       timestamptz not null default now(),
  finished_at      timestamptz,
  check ((status = 'running') = (finished_at is null))
);
create index fine_tuning_sweeps_newest on fine_tuning_sweeps (project_id, seq desc);

alter table fine_tuning_jobs
  -- the job pauses after this share of its steps; null: it goes on to its end
  add column pause_share double precision check (pause_share > 0 and pause_share < 1);
