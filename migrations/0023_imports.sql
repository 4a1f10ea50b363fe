-- Imports: models that come from outside, looked at whole before they become models.

create table imports (
  -- of work where a worker does it; what the command line has done is here when it is done
  id                    text primary key,
  seq                   bigint generated always as identity,
  project_id            text not null references projects,
  organization_id       text not null references organizations,
  status                text not null check (status in
                          ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  -- what came: [{source, filename, sha256, bytes}]; source is a file's id, or where it was pulled from
  received              jsonb not null,
  -- the model that an adapter is for, where it was named
  base_model            text,
  user_provided_suffix  text,
  metadata              jsonb,
  -- what it was found to be
  kind                  text check (kind in ('adapter', 'folder', 'gguf')),
  -- what lay beside the model and was left out
  ignored               text[] not null default '{}',
  imported_model        text,
  error                 jsonb,
  created_at            timestamptz not null default now(),
  finished_at           timestamptz,
  check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
  check ((status = 'succeeded') = (imported_model is not null))
);
create index imports_newest on imports (project_id, seq desc);

alter table models add column import_id text references imports;
