-- Evals: criteria, the runs that hold models against them, and what each row of a run came to. What is only read
-- back whole is json, not jsonb: texts of models may hold what jsonb refuses.

create table evals (
  id                  text primary key,
  seq                 bigint generated always as identity,
  project_id          text not null references projects,
  name                text not null,
  data_source_config  json not null,
  testing_criteria    json not null,
  metadata            jsonb,
  created_at          timestamptz not null default now(),
  updated_at          timestamptz not null default now()
);
create index evals_by_project on evals (project_id, seq);

create table eval_runs (
  id            text primary key references work,
  seq           bigint generated always as identity,
  project_id    text not null references projects,
  eval_id       text not null references evals on delete cascade,
  name          text not null,
  status        text not null default 'queued'
                  check (status in ('queued', 'in_progress', 'completed', 'failed', 'canceled')),
  -- null where the samples come with the rows
  model         text,
  data_source   json not null,
  -- ours beside OpenAI's fields, as sent
  luthier       jsonb,
  -- the examples before each prompt, once they are chosen: {messages, examples, prompt_tokens}
  few_shot      json,
  metadata      jsonb,
  -- the rows: pinned, so that the file may be deleted
  items_sha256  text not null,
  -- where the examples are chosen from
  few_shot_sha256  text,
  -- counted when the rows have been checked
  total         integer,
  passed        integer not null default 0,
  failed        integer not null default 0,
  errored       integer not null default 0,
  error         jsonb,
  -- the checkpoint that it was made for
  job_id        text references fine_tuning_jobs,
  step          integer,
  created_at    timestamptz not null default now(),
  finished_at   timestamptz,
  foreign key (project_id, items_sha256) references objects,
  foreign key (project_id, few_shot_sha256) references objects,
  unique (job_id, step),
  check ((status in ('completed', 'failed', 'canceled')) = (finished_at is not null))
);
create index eval_runs_by_eval on eval_runs (eval_id, seq);
create index eval_runs_by_model on eval_runs (project_id, model, finished_at desc) where status = 'completed';
create index eval_runs_by_examples on eval_runs (project_id, few_shot_sha256)
  where few_shot_sha256 is not null;
create index eval_runs_by_items on eval_runs (project_id, items_sha256);

create table eval_output_items (
  id                  text primary key,
  run_id              text not null references eval_runs on delete cascade,
  datasource_item_id  integer not null,
  status              text not null check (status in ('pass', 'fail', 'error')),
  datasource_item     json not null,
  results             json not null,
  sample              json not null,
  created_at          timestamptz not null default clock_timestamp(),
  -- a row is graded once, however often its run is taken up again
  unique (run_id, datasource_item_id)
);

create table eval_run_criteria (
  run_id     text not null references eval_runs on delete cascade,
  criterion  text not null,
  passed     integer not null,
  failed     integer not null,
  score_sum  double precision not null,
  primary key (run_id, criterion)
);

create table eval_run_usage (
  run_id             text not null references eval_runs on delete cascade,
  model              text not null,
  invocation_count   bigint not null,
  prompt_tokens      bigint not null,
  completion_tokens  bigint not null,
  primary key (run_id, model)
);
