-- Comparisons of eval runs. The report is kept, so that it stays as it was when runs are deleted; it is only read back
-- whole, as are the runs: json.

create table eval_comparisons (
  id           text primary key,
  seq          bigint generated always as identity,
  project_id   text not null references projects,
  eval_id      text not null references evals on delete cascade,
  name         text not null,
  status       text not null default 'in_progress'
                 check (status in ('in_progress', 'completed', 'failed')),
  -- [{run_id, label, model}], in the order in which they were asked for
  runs         json not null,
  -- fields of the rows by which they are grouped
  groups       json not null,
  metadata     jsonb,
  report       json,
  error        jsonb,
  created_at   timestamptz not null default now(),
  finished_at  timestamptz,
  check ((status = 'in_progress') = (finished_at is null))
);
create index eval_comparisons_by_eval on eval_comparisons (eval_id, seq);
