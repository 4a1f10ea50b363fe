-- Fine-tuning jobs, what they measured and saved, and the models they made.

create table fine_tuning_jobs (
  id                 text primary key references work,
  seq                bigint generated always as identity,
  project_id         text not null references projects,
  organization_id    text not null references organizations,
  -- the model as the client sent it, and the base model that it stands for
  model              text not null,
  root               text not null,
  user_provided_suffix text,
  seed               bigint not null check (seed between 0 and 2147483647),
  status             text not null check (status in
                       ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
  -- as sent, `auto` and all; what `auto` became is in the plan
  method             jsonb not null,
  plan               jsonb,
  training_file      text not null,
  validation_file    text,
  -- contents are pinned: the files may be deleted, the job goes on
  training_sha256    text not null,
  validation_sha256  text,
  metadata           jsonb,
  error              jsonb,
  -- the name that the model will have; fine_tuned_model is null until it exists
  model_name         text not null unique,
  fine_tuned_model   text,
  result_files       text[] not null default '{}',
  trained_tokens     bigint,
  estimated_finish   timestamptz,
  -- the last committed state of training
  state_sha256       text,
  state_step         integer,
  -- objects that the job referred to and that are still to be released: a crash must not forget them
  superseded         text[] not null default '{}',
  created_at         timestamptz not null default now(),
  finished_at        timestamptz,
  foreign key (project_id, training_sha256) references objects,
  foreign key (project_id, validation_sha256) references objects,
  foreign key (project_id, state_sha256) references objects,
  check ((state_sha256 is null) = (state_step is null)),
  check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null))
);
create index fine_tuning_jobs_newest on fine_tuning_jobs (project_id, seq desc);
create index fine_tuning_jobs_by_training on fine_tuning_jobs (project_id, training_sha256);
create index fine_tuning_jobs_by_validation on fine_tuning_jobs (project_id, validation_sha256)
  where validation_sha256 is not null;
create index fine_tuning_jobs_by_state on fine_tuning_jobs (project_id, state_sha256)
  where state_sha256 is not null;

-- One row a step: computed again after a crash, a step is written over with the same numbers.
create table fine_tuning_steps (
  job_id   text not null references fine_tuning_jobs,
  step     integer not null check (step > 0),
  metrics  jsonb not null,
  primary key (job_id, step)
);

create table fine_tuning_checkpoints (
  id                          text primary key,
  project_id                  text not null references projects,
  job_id                      text not null references fine_tuning_jobs,
  step_number                 integer not null check (step_number > 0),
  fine_tuned_model_checkpoint text not null unique,
  metrics                     jsonb not null,
  -- null once the name has ended: then nothing keeps the adapter
  adapter_sha256              text,
  adapter_config_sha256       text,
  created_at                  timestamptz not null default now(),
  unique (job_id, step_number),
  foreign key (project_id, adapter_sha256) references objects,
  foreign key (project_id, adapter_config_sha256) references objects,
  check ((adapter_sha256 is null) = (adapter_config_sha256 is null))
);
create index fine_tuning_checkpoints_by_adapter on fine_tuning_checkpoints (project_id, adapter_sha256);
create index fine_tuning_checkpoints_by_config on fine_tuning_checkpoints (project_id, adapter_config_sha256);

create table models (
  id                     text primary key,
  project_id             text not null references projects,
  job_id                 text not null references fine_tuning_jobs,
  owned_by               text not null,
  parent                 text not null,
  root                   text not null,
  adapter_sha256         text not null,
  adapter_config_sha256  text not null,
  created_at             timestamptz not null default now(),
  foreign key (project_id, adapter_sha256) references objects,
  foreign key (project_id, adapter_config_sha256) references objects
);
create index models_by_project on models (project_id, created_at);
create index models_by_job on models (job_id);
create index models_by_adapter on models (project_id, adapter_sha256);
create index models_by_config on models (project_id, adapter_config_sha256);
