-- A job may name an eval that is run at each of its checkpoints: how and over which rows, settled when the job is created
-- ({eval_id, data_source}, the rows pinned while the job may still read them), and what each epoch's end came to
-- ([{step, run_id, eval_score, eval_pass_rate}]): checkpoints go and runs may be deleted, and the job still stops by it.

alter table fine_tuning_jobs
  add column eval json,
  add column eval_items_sha256 text,
  add column eval_pin text,
  add column eval_scores jsonb not null default '[]',
  add foreign key (project_id, eval_pin) references objects;

create index fine_tuning_jobs_by_eval_rows on fine_tuning_jobs (project_id, eval_pin)
  where eval_pin is not null;
