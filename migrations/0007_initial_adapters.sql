-- A job may go on from a tuned model or a checkpoint. What it started from stays as its lineage
-- ({model, sha256, config_sha256, lora}); the bytes are held only while the job may still read them.

alter table fine_tuning_jobs
  add column initial jsonb,
  add column initial_pin text,
  add column initial_config_pin text,
  add foreign key (project_id, initial_pin) references objects,
  add foreign key (project_id, initial_config_pin) references objects,
  add check ((initial_pin is null) = (initial_config_pin is null));

create index fine_tuning_jobs_by_initial on fine_tuning_jobs (project_id, initial_pin)
  where initial_pin is not null;
create index fine_tuning_jobs_by_initial_config on fine_tuning_jobs (project_id, initial_config_pin)
  where initial_config_pin is not null;
