-- Merges: models made of models. And models that have files of their own instead of an adapter over a base model.

create table merges (
  id                    text primary key references work,
  seq                   bigint generated always as identity,
  project_id            text not null references projects,
  organization_id       text not null references organizations,
  status                text not null check (status in
                          ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  -- what is merged, as sent; text became what it says
  config                jsonb not null,
  -- the models that it names
  parents               text[] not null,
  user_provided_suffix  text,
  metadata              jsonb,
  -- how much there is to do, and how much of it is done
  tensors               integer not null,
  bytes                 bigint not null,
  tensors_done          integer not null default 0,
  -- the name that the model will have; merged_model is null until it exists
  model_name            text not null unique,
  merged_model          text,
  error                 jsonb,
  created_at            timestamptz not null default now(),
  finished_at           timestamptz,
  check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null))
);
create index merges_newest on merges (project_id, seq desc);

alter table models
  alter column job_id drop not null,
  alter column adapter_sha256 drop not null,
  alter column adapter_config_sha256 drop not null,
  add column merge_id text references merges,
  add check ((adapter_sha256 is null) = (adapter_config_sha256 is null));
create index models_by_root on models (project_id, root);

-- A model without an adapter: a Hugging Face folder, file by file.
create table model_files (
  model_id    text not null references models,
  project_id  text not null references projects,
  path        text not null,
  sha256      text not null,
  bytes       bigint not null check (bytes >= 0),
  primary key (model_id, path),
  foreign key (project_id, sha256) references objects
);
create index model_files_by_object on model_files (project_id, sha256);
